"""Weight similarity: what category regularisation lowers, its colours, and what does not fit."""

import io
import itertools

import numpy as np
import pytest

from jaxvid.explain.weight_similarity import mean_similarities, similarity_of_columns, u2s_weights
from jaxvid.ops.confusing_classes import weight_similarity

CLASSES = ("c", "a", "b", "d")
CONFUSING = np.eye(4) + np.eye(4, k=1) * [[1], [0], [1], [0]] + np.eye(4, k=-1) * [[0], [1], [0], [1]]


@pytest.fixture(scope="module")
def kernel():
    return np.random.default_rng(0).standard_normal((7, 4))


def test_the_mean_of_confused_pairs_is_what_training_adds_to_its_loss(kernel):
    confused, others = mean_similarities(similarity_of_columns(kernel), CONFUSING)
    assert confused == pytest.approx(float(weight_similarity(kernel.astype(np.float32), CONFUSING)), abs=1e-6)
    rest = np.eye(4) + 1 - CONFUSING
    assert others == pytest.approx(float(weight_similarity(kernel.astype(np.float32), rest)), abs=1e-6)


def test_soft_similarities_weigh_the_pairs(kernel):
    soft = np.where(np.eye(4, dtype=bool), 1.0, 0.5 * CONFUSING + 0.2)
    confused, others = mean_similarities(similarity_of_columns(kernel), soft)
    assert confused == pytest.approx(float(weight_similarity(kernel.astype(np.float32), soft)), abs=1e-6)
    assert others is None


def test_similarity_is_symmetric_in_0_to_1_and_blind_to_scale(kernel):
    matrix = similarity_of_columns(kernel)
    np.testing.assert_allclose(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 1)
    assert (matrix >= 0).all()
    assert (matrix <= 1).all()
    np.testing.assert_allclose(similarity_of_columns(kernel * [1, 2, 3, 40]), matrix, atol=1e-12)
    np.testing.assert_allclose(similarity_of_columns(-kernel), matrix, atol=1e-12)
    kernel = kernel * [0, 1, 1, 1]
    assert similarity_of_columns(kernel)[0].tolist() == [1, 0.5, 0.5, 0.5]


def test_a_run_whose_confused_classes_were_pushed_apart(kernel):
    apart = kernel.copy()
    apart[:, 1], apart[:, 3] = -kernel[:, 0], -kernel[:, 2]
    picture = u2s_weights({"specific": {"without": kernel, "with": apart}, "mask": {"without": kernel, "with": kernel}},
                          CONFUSING, CLASSES)  # fmt: skip
    told = picture.numbers["classifiers"]["specific"]
    assert told["with"]["mean_confused"] == pytest.approx(0)
    assert told["without"]["mean_confused"] > 0.2
    assert picture.numbers["classes"] == ["a", "b", "c", "d"]
    order = [1, 2, 0, 3]
    expected = similarity_of_columns(kernel)[np.ix_(order, order)]
    np.testing.assert_allclose(told["without"]["matrix"], expected, atol=1e-5)
    titles = [axes.get_title() for axes in picture.figure.axes]
    assert "with\nspecific, mean similarity:\nconfused pairs 0.0000, others" in "".join(titles)
    bars = [axes for axes in picture.figure.axes if axes.get_ylabel() == "similarity (1 on the diagonal)"]
    assert len(bars) == 4
    images = [axes.images[0] for axes in picture.figure.axes if axes.images]
    assert len(images) == 4
    assert images[0].get_clim() == images[1].get_clim(), "both runs have the same colours"
    picture.figure.savefig(io.BytesIO(), format="png")


def test_nothing_is_cut_or_covered_with_long_names(kernel):
    names = [f"turn_counterclockwise_flash_{k:04}" for k in range(4)]
    given = {"runs/one": kernel, "runs/two": kernel[::-1]}
    figure = u2s_weights({"specific classifier": given, "mask network": given}, CONFUSING, names).figure
    figure.draw_without_rendering()
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    width, height = figure.bbox.size
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    for a, b in itertools.combinations(boxes, 2):
        assert min(a.x1, b.x1) - max(a.x0, b.x0) <= 1 or min(a.y1, b.y1) - max(a.y0, b.y0) <= 1
    pairs = [axes for axes in figure.axes if axes.get_ylabel() == "pairs of classes"]
    assert len(pairs) == 2
    assert all(tick == round(tick) for axes in pairs for tick in axes.get_yticks())


def test_dots_mark_confused_pairs_where_the_matrix_is_binary(kernel):
    def dots(confusing):
        picture = u2s_weights({"specific": {"run": kernel}}, confusing, CLASSES, order=[3, 2, 1, 0])
        return [tuple(map(float, at)) for at in picture.figure.axes[0].collections[0].get_offsets()] if (
            picture.figure.axes[0].collections) else None  # fmt: skip

    assert sorted(dots(CONFUSING)) == [(0, 1), (1, 0), (2, 3), (3, 2)]
    assert dots(0.5 * CONFUSING + 0.5 * np.eye(4)) is None


def test_no_pair_is_confused_and_classes_are_many():
    kernel = np.random.default_rng(1).standard_normal((5, 50))
    picture = u2s_weights({"specific": {"run": kernel}}, np.eye(50), [f"$class {k}" for k in range(50)])
    assert "confused pairs (none), others 0.4" in picture.lines[0]
    picture.figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize(
    ("kernels", "sentence"),
    [
        ({}, "kernels must be of the same runs for each classifier, received"),
        ({"x": {"a": np.ones((2, 4))}, "y": {"b": np.ones((2, 4))}}, "kernels must be of the same runs"),
        ({"x": {"a": np.ones((2, 3))}}, r"x of a must be \[C 4\], received \[2, 3\]\."),
    ],
)
def test_what_does_not_fit_is_refused(kernels, sentence):
    with pytest.raises(ValueError, match=sentence):
        u2s_weights(kernels, CONFUSING, CLASSES)
    with pytest.raises(ValueError, match=r"confusing must be \[4 4\], received \[3, 3\]\."):
        u2s_weights({"x": {"a": np.ones((2, 4))}}, np.eye(3), CLASSES)
