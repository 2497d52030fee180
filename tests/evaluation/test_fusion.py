"""Several runs as one: the mean by hand, the search of its weights, what is held out, and what is refused."""

import numpy as np
import pytest

from jaxvid.evaluation.fusion import fused_scores


def softmax(logits):
    powers = np.exp(logits)
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


def test_the_mean_by_hand():
    a, b, c = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.25, 0.75]]), np.array([[0.5, 0.5], [1, 0]])
    fused = fused_scores([a, b, c], [2, 1, 1])
    assert fused.dtype == np.float32
    np.testing.assert_array_equal(fused, [[0.625, 0.375], [0.5625, 0.4375]])


def test_only_proportions_matter_and_weight_zero_leaves_a_network_out():
    rng = np.random.default_rng(0)
    one, other = softmax(rng.normal(size=(2, 7, 5)))
    np.testing.assert_allclose(fused_scores([one, other], [0.6, 0.2]), fused_scores([one, other], [3, 1]), rtol=1e-6)
    np.testing.assert_array_equal(fused_scores([one, other], [1.5e308, 5e307]), fused_scores([one, other], [3, 1]))
    np.testing.assert_array_equal(fused_scores([one, np.full_like(other, np.nan)], [5, 0]), one)
    np.testing.assert_array_equal(fused_scores([one, one], [0.3, 0.7]), one)
    np.testing.assert_allclose(fused_scores([one, other], [1, 2]).sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "weights", "sentence"),
    [
        ([], [], "scores must be float[n K] of one shape, at least one of them"),
        ([(3, 2), (4, 2)], [1, 1], "received the shapes [(3, 2), (4, 2)]"),
        ([(3,), (3,)], [1, 1], "scores must be float[n K]"),
        ([(3, 2), (3, 2)], [1], "weights must be 2 numbers >= 0, one for each array of scores and not all 0"),
        ([(3, 2), (3, 2)], [1, -0.1], "received [1, -0.1]"),
        ([(3, 2), (3, 2)], [0, 0], "not all 0"),
        ([(3, 2), (3, 2)], [1, float("nan")], "weights must be"),
        ([(3, 2), (3, 2)], [1, float("inf")], "weights must be"),
    ],
)
def test_what_does_not_fit_is_refused(shapes, weights, sentence):
    with pytest.raises(ValueError) as caught:
        fused_scores([np.zeros(shape) for shape in shapes], weights)
    assert sentence in str(caught.value)
