"""Accuracy against similarity: the numbers that are drawn, the correlation, and what does not fit."""

import io

import numpy as np
import pytest

from jaxvid.explain.class_similarity import correlation, u2s_similarity

CLASSES = ("a", "b", "c", "d")
SIMILARITY = {"universal": np.array([0.2, 0.4, 0.6, 0.8]), "specific": np.array([0.1, 0.3, 0.2, 0.2])}
ACCURACY = {"universal": np.array([1.0, 0.9, 0.7, np.nan]), "specific": np.array([0.5, 0.5, 0.5, np.nan])}


@pytest.fixture(scope="module")
def picture():
    return u2s_similarity(SIMILARITY, ACCURACY, CLASSES)


def test_the_planted_numbers_come_back(picture):
    universal, specific = (picture.numbers["networks"][name] for name in ("universal", "specific"))
    assert (universal["mean_similarity"], specific["mean_similarity"]) == pytest.approx((0.5, 0.2))
    assert universal["correlation"] == pytest.approx(np.corrcoef([0.2, 0.4, 0.6], [1, 0.9, 0.7])[0, 1])
    assert universal["correlation"] < -0.9
    assert specific["correlation"] is None, "all classes are as accurate"
    assert universal["accuracy"] == {"a": 1.0, "b": 0.9, "c": 0.7, "d": None}
    assert specific["average_similarity"] == dict(zip(CLASSES, SIMILARITY["specific"].tolist(), strict=True))
    assert [universal["normalized_similarity"]["d"], specific["normalized_similarity"]["a"]] == [1.0, 0.0]
    assert picture.lines[0] == "universal: mean similarity 0.5000, correlation with the accuracy: r = -0.98"
    assert picture.lines[1].endswith("r is undefined")


def test_every_class_is_in_one_bin(picture):
    for network in picture.numbers["networks"].values():
        assert sum(network["counts"]) == len(CLASSES)
    assert len(picture.numbers["bins"]) == 11


def test_a_class_without_clips_is_no_point(picture):
    scatter, histogram = picture.figure.axes
    assert [np.isfinite(np.asarray(c.get_offsets(), float)).all(axis=1).sum() for c in scatter.collections] == [3, 3]
    heights = [sum(bar.get_height() for bar in bars) for bars in histogram.containers]
    assert heights == [4, 4]
    picture.figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize("least", [0.0, 0.333, 0.5, 0.95, 1.0])
def test_axes_end_at_1_and_count_whole_classes(least):
    accuracy = ACCURACY | {"specific": np.array([least, 1.0, 1.0, np.nan]), "universal": np.ones(4)}
    picture = u2s_similarity(SIMILARITY, accuracy, CLASSES, title="runs/a $x", notes=["a note"])
    scatter, histogram = picture.figure.axes
    assert picture.figure.get_suptitle() == "runs/a $x"
    assert picture.lines[-1] == "a note"
    bottom, top = scatter.get_ylim()
    span = max(0.1, 1 - least)
    assert (bottom, top) == pytest.approx((1 - 1.08 * span, 1 + 0.04 * span))
    assert max(scatter.get_yticks()) == pytest.approx(1)
    assert min(scatter.get_yticks()) >= bottom
    assert all(tick == round(tick) for tick in histogram.get_yticks())


def test_correlation_does_not_depend_on_the_scale():
    rng = np.random.default_rng(0)
    a, b = rng.random(9), rng.random(9)
    assert correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)
    assert correlation(0.1 * a + 3, b) == pytest.approx(correlation(a, b), abs=1e-9)
    assert correlation(a, -b) == pytest.approx(-correlation(a, b), abs=1e-9)
    assert correlation(a[:2], b[:2]) is None


def test_one_class_and_equal_values_are_drawn():
    picture = u2s_similarity({"x": np.array([0.5])}, {"x": np.array([np.nan])}, ["only"])
    picture.figure.savefig(io.BytesIO(), format="png")
    assert picture.numbers["networks"]["x"]["correlation"] is None


@pytest.mark.parametrize(
    ("similarity", "accuracy", "sentence"),
    [
        ({}, {}, "accuracy must be of the networks of similarity"),
        ({"x": np.ones(4)}, {"y": np.ones(4)}, r"of similarity \(x\), received y\."),
        ({"x": np.ones(3)}, {"x": np.ones(4)}, r"'x' must have one value for each of 4 classes, received \[3\]\."),
    ],
)
def test_what_does_not_fit_is_refused(similarity, accuracy, sentence):
    with pytest.raises(ValueError, match=sentence):
        u2s_similarity(similarity, accuracy, CLASSES)
