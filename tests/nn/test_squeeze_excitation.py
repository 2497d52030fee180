"""Squeeze-and-excitation against its formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn import SqueezeExcitation


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    params = {
        "reduce": {"kernel": rng.normal(size=(1, 1, 1, 6, 4)), "bias": rng.normal(size=4)},
        "expand": {"kernel": rng.normal(size=(1, 1, 1, 4, 6)), "bias": rng.normal(size=6)},
    }
    params = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), params)
    return params, rng.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)


def formula(params, x):
    (w1, b1), (w2, b2) = (
        (np.asarray(params[name]["kernel"], np.float64)[0, 0, 0], np.asarray(params[name]["bias"], np.float64))
        for name in ("reduce", "expand")
    )
    hidden = np.maximum(x.astype(np.float64).mean((1, 2, 3)) @ w1 + b1, 0)
    return x / (1 + np.exp(-(hidden @ w2 + b2)))[:, None, None, None, :]


def test_values_are_the_formula(parts):
    params, x = parts
    y = SqueezeExcitation(4).apply({"params": params}, x)
    assert np.ptp(y / x, axis=-1).min() > 0.1  # the channels do get different weights
    np.testing.assert_allclose(y, formula(params, x), rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_differences(parts):
    params, x = parts
    cotangent = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    score = lambda params, x: jnp.vdot(cotangent, SqueezeExcitation(4).apply({"params": params}, x))  # noqa: E731
    gradients = jax.grad(score, (0, 1))(params, x)
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), (params, x))
    step, start = 1e-6, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, x))
    ends = [
        np.vdot(cotangent, formula(*jax.tree.map(lambda a, d, s=s: a + s * d, start, direction))) for s in (-step, step)
    ]
    slope = sum(np.vdot(g, d) for g, d in zip(jax.tree.leaves(gradients), jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose(slope, (ends[1] - ends[0]) / (2 * step), rtol=1e-4)


def test_weights_are_float32_in_a_network_of_bfloat16(parts):
    params, x = parts
    x = jnp.asarray(x, jnp.bfloat16)
    y = SqueezeExcitation(4).apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    # Two roundings to 8 bits: of the weight and of the product.
    np.testing.assert_allclose(y.astype(jnp.float32), formula(params, np.asarray(x, np.float32)), rtol=2**-7)


def test_parameters_are_float32_and_named():
    variables = jax.eval_shape(SqueezeExcitation(8).init, jax.random.key(0), jnp.zeros((1, 2, 2, 2, 54), jnp.bfloat16))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), variables["params"])
    assert shapes == {
        "reduce": {"kernel": ((1, 1, 1, 54, 8), "float32"), "bias": ((8,), "float32")},
        "expand": {"kernel": ((1, 1, 1, 8, 54), "float32"), "bias": ((54,), "float32")},
    }
