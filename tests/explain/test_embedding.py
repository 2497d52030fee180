"""t-SNE of two classes: planted clusters stay apart, the seed decides everything, and the numbers are those drawn."""

import io

import numpy as np
import pytest

from jaxvid.explain.embedding import u2s_tsne

NAMES = ("deforms", "breaks")


@pytest.fixture(scope="module")
def planted():
    """Apart in ``specific``, mixed in ``universal``."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    mixed = rng.standard_normal((24, 10))
    features = {"universal": mixed, "specific": mixed + 30 * labels[:, None]}
    correct = {"universal": np.arange(24) % 3 > 0, "specific": np.ones(24, bool)}
    return features, labels, correct


@pytest.fixture(scope="module")
def picture(planted):
    return u2s_tsne(*planted, NAMES, [f"clip {i}" for i in range(24)])


def points(picture, network):
    rows = picture.numbers["networks"][network]["points"]
    return np.array([row["at"] for row in rows]), np.array([row["class"] == NAMES[1] for row in rows])


def test_clusters_that_are_apart_stay_apart(picture):
    told = picture.numbers["networks"]
    assert told["specific"]["silhouette"] > 0.7
    assert abs(told["universal"]["silhouette"]) < 0.1
    at, second = points(picture, "specific")
    centres = at[second].mean(axis=0), at[~second].mean(axis=0)
    nearer = np.linalg.norm(at - centres[0], axis=1) < np.linalg.norm(at - centres[1], axis=1)
    np.testing.assert_array_equal(nearer, second)


def test_what_is_drawn_is_what_is_told(picture, planted):
    assert picture.figure.axes[0].get_title().startswith("universal: silhouette")
    rows = picture.numbers["networks"]["universal"]["points"]
    assert [row["right"] for row in rows] == planted[2]["universal"].tolist()
    assert rows[5]["clip"] == "clip 5"
    drawn = np.concatenate([np.asarray(c.get_offsets()) for c in picture.figure.axes[0].collections])
    at, _ = points(picture, "universal")
    assert {tuple(p) for p in drawn.round(4)} == {tuple(p) for p in at.round(4)}
    assert picture.numbers["networks"]["universal"]["accuracy"] == pytest.approx(2 / 3)
    assert picture.numbers["perplexity"] == pytest.approx(23 / 3)
    picture.figure.savefig(io.BytesIO(), format="png")


def test_the_two_classes_are_named_and_zero_has_no_sign(picture):
    assert picture.figure.get_suptitle() == "clips of deforms and breaks"
    assert picture.lines[0].startswith("universal: silhouette of deforms and breaks ")
    labels = np.array([0, 1] * 4)
    alike = np.repeat(np.arange(4.0), 2)[:, None] * np.ones(3) + 1e-7 * labels[:, None]
    features = {"x": alike}
    near = u2s_tsne(features, labels, {"x": np.ones(8, bool)}, NAMES)
    assert "-0.000" not in near.figure.axes[0].get_title() + near.lines[0]


def test_the_same_seed_gives_the_same_points(picture, planted):
    again = u2s_tsne(*planted, NAMES)
    np.testing.assert_array_equal(points(again, "specific")[0], points(picture, "specific")[0])


@pytest.mark.parametrize(
    ("labels", "names", "sentence"),
    [
        ([0, 0, 1, 1, 2, 2], ("a", "b", "c"), "clips of 2 classes, received a, b, c"),
        ([0, 0, 0, 0, 0, 1], NAMES, "at least 2 clips of each class and 6 in all, received 5 of 'deforms' and 1 of"),
        ([0, 0, 1, 1], NAMES, "received 2 of 'deforms' and 2 of 'breaks'"),
    ],
)
def test_too_few_or_too_many(labels, names, sentence):
    n = len(labels)
    with pytest.raises(ValueError, match=sentence):
        u2s_tsne({"x": np.zeros((n, 3))}, np.array(labels), {"x": np.ones(n, bool)}, names)


def test_features_that_do_not_fit():
    labels = np.array([0, 1] * 3)
    with pytest.raises(ValueError, match=r"the features of x must be \[6 C\], received \[5, 3\]\."):
        u2s_tsne({"x": np.zeros((5, 3))}, labels, {"x": np.ones(6, bool)}, NAMES)
