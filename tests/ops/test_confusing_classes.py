"""U2S: masks of confused classes, and how alike their weights are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops.confusing_classes import masks_of_confusing_classes, weight_similarity

CONFUSING = jnp.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1]], jnp.float32)


def test_exactly_the_confusing_masks_are_averaged():
    masks = jax.random.normal(jax.random.key(0), (4, 2, 3, 5, 4))
    found = masks_of_confusing_classes(masks, CONFUSING, jnp.array([0, 1, 2, 3]))
    expected = [
        masks[0, ..., :2].mean(-1),
        (masks[1, ..., 0] + masks[1, ..., 1] + masks[1, ..., 3]) / 3,
        masks[2, ..., 2],
        (masks[3, ..., 1] + masks[3, ..., 3]) / 2,
    ]
    assert found.shape == (4, 2, 3, 5, 1)
    np.testing.assert_allclose(found[..., 0], jnp.stack(expected), rtol=1e-6, atol=1e-6)


def test_other_masks_get_no_gradient():
    masks = jnp.ones((1, 2, 1, 1, 4))
    gradient = jax.grad(lambda m: masks_of_confusing_classes(m, CONFUSING, jnp.array([1])).sum())(masks)
    np.testing.assert_allclose(gradient[0, 0, 0, 0], [1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-6)


def test_similarities_are_weights_of_the_mean():
    soft = jnp.array([[1.0, 0.5], [0.5, 1.0]])
    masks = jnp.array([2.0, 8.0]).reshape(1, 1, 1, 1, 2)
    found = masks_of_confusing_classes(masks, soft, jnp.array([1]))
    assert float(found[0, 0, 0, 0, 0]) == pytest.approx((0.5 * 2 + 8) / 1.5)


def test_bfloat16_masks_are_averaged_in_float32():
    masks = jnp.full((1, 1, 1, 1, 4), 1.0, jnp.bfloat16)
    assert masks_of_confusing_classes(masks, CONFUSING, jnp.array([1])).dtype == jnp.float32


def test_weights_by_hand():
    """Equal directions 1, a right angle 1/2, opposite ones 0; lengths do not matter."""
    kernel = jnp.array([[1.0, 5.0, 0.0, -2.0], [0.0, 0.0, 3.0, 0.0]])
    for pair, expected in (((0, 1), 1.0), ((0, 2), 0.5), ((0, 3), 0.0)):
        confusing = jnp.eye(4).at[pair].set(1).at[pair[::-1]].set(1)
        assert float(weight_similarity(kernel, confusing)) == pytest.approx(expected, abs=1e-6)
    assert float(weight_similarity(kernel, jnp.ones((4, 4)))) == pytest.approx((1 + 0.5 + 0 + 0.5 + 0 + 0.5) / 6)


def test_without_confused_classes_nothing_is_regularised():
    kernel = jax.random.normal(jax.random.key(0), (3, 4))
    value, gradient = jax.value_and_grad(weight_similarity)(kernel, jnp.eye(4))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_zero_weights_have_a_finite_gradient():
    value, gradient = jax.value_and_grad(weight_similarity)(jnp.zeros((3, 4)), jnp.ones((4, 4)))
    assert float(value) == pytest.approx(0.5)
    assert np.isfinite(gradient).all()


def test_the_gradient_parts_confused_classes():
    kernel = jnp.array([[1.0, 1.0], [0.1, -0.1]])
    confusing = jnp.ones((2, 2))
    for _ in range(5):
        kernel = kernel - 0.1 * jax.grad(weight_similarity)(kernel, confusing)
    assert kernel[1, 0] > 0.1
    assert kernel[1, 1] < -0.1
