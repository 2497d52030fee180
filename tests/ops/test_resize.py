"""Trilinear resizing: numbers of the formula in float64, laws, gradients of any order, the same map in jax.image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops import resize_trilinear, resize_trilinear_reference

SIZES = {
    "twice": ((2, 2, 3, 4, 3), (4, 6, 8)),
    "uneven up": ((1, 3, 5, 4, 2), (4, 7, 11)),
    "down": ((2, 8, 6, 7, 2), (4, 3, 2)),
    "up and down": ((1, 4, 3, 9, 3), (2, 8, 9)),
    "from one": ((2, 1, 1, 1, 3), (3, 2, 5)),
    "to one": ((1, 4, 5, 3, 2), (1, 1, 1)),
    "itself": ((1, 2, 3, 4, 2), (2, 3, 4)),
}


def formula(x, size):
    """The definition in float64, entry by entry: half-pixel centres, clamped at the first, the last repeated."""
    result = np.zeros((x.shape[0], *size, x.shape[-1]))
    for place in np.ndindex(*size):
        corners = []
        for i, old, new in zip(place, x.shape[1:4], size, strict=True):
            source = max((i + 0.5) * old / new - 0.5, 0.0)
            low = int(np.floor(source))
            corners.append([(low, 1 - source + low), (min(low + 1, old - 1), source - low)])
        for t, a in corners[0]:
            for h, b in corners[1]:
                for w, c in corners[2]:
                    result[:, *place] += a * b * c * x[:, t, h, w]
    return result


@pytest.mark.parametrize("function", [resize_trilinear, resize_trilinear_reference])
@pytest.mark.parametrize("case", SIZES)
def test_equals_the_formula_in_float64(case, function):
    shape, size = SIZES[case]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    received = jax.jit(function, static_argnums=1)(x, size)
    np.testing.assert_allclose(received, formula(x.astype(float), size), rtol=1e-5, atol=1e-6)
    in_bfloat16 = function(jnp.asarray(x, jnp.bfloat16), size)
    assert in_bfloat16.dtype == jnp.bfloat16
    expected = formula(np.asarray(jnp.asarray(x, jnp.bfloat16), float), size)
    np.testing.assert_allclose(np.asarray(in_bfloat16, float), expected, rtol=2**-8, atol=1e-5)


def test_by_hand():
    line = jnp.array([0.0, 8.0, 4.0]).reshape(1, 1, 1, 3, 1)
    assert resize_trilinear(line, (1, 1, 6)).ravel().tolist() == [0.0, 2.0, 6.0, 7.0, 5.0, 4.0]
    np.testing.assert_allclose(resize_trilinear(line, (1, 1, 2)).ravel(), [2.0, 5.0])  # read at 1/4 and 7/4
    square = jnp.array([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 2, 2, 1, 1)
    assert resize_trilinear(square, (1, 1, 1)).item() == 1.5


@pytest.mark.parametrize("case", ["twice", "up and down", "from one"])
def test_equals_jax_image_in_value_and_gradient(case):
    shape, size = SIZES[case]
    x = jax.random.normal(jax.random.key(0), shape)
    new_shape = (shape[0], *size, shape[-1])
    cotangent = jax.random.normal(jax.random.key(1), new_shape)

    def value_and_pull(function):
        @jax.jit
        def run(x, cotangent):
            y, pull = jax.vjp(function, x)
            return y, pull(cotangent)[0]

        return run(x, cotangent)

    expected = value_and_pull(lambda x: jax.image.resize(x, new_shape, "linear", antialias=False))
    for function in (resize_trilinear, resize_trilinear_reference):
        for a, b in zip(value_and_pull(lambda x, f=function: f(x, size)), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_the_second_derivative_and_the_gradient_of_the_gradient():
    x, v = jax.random.normal(jax.random.key(0), (2, 1, 2, 3, 2, 2))
    size = (3, 5, 4)

    def along(function):
        gradient = jax.grad(lambda x: jnp.sum(function(x, size) ** 3))
        return jax.jit(jax.grad(lambda x: jnp.vdot(gradient(x), v)))(x)

    np.testing.assert_allclose(along(resize_trilinear), along(resize_trilinear_reference), rtol=1e-5, atol=1e-5)


def test_a_constant_stays_and_a_ramp_stays_straight_inside():
    x = jnp.full((1, 3, 4, 5, 2), 7.0)
    np.testing.assert_allclose(resize_trilinear(x, (7, 3, 11)), jnp.full((1, 7, 3, 11, 2), 7.0), rtol=1e-6)
    ramp = jnp.arange(8.0).reshape(1, 8, 1, 1, 1)
    steps = np.diff(resize_trilinear(ramp, (16, 1, 1)).ravel())
    np.testing.assert_allclose(steps[1:-1], 0.5, rtol=1e-6)


def test_its_own_size_changes_nothing():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 2), jnp.bfloat16)
    np.testing.assert_array_equal(resize_trilinear(x, (3, 4, 5)), x)


def test_vmap_and_large_factors():
    x = jax.random.normal(jax.random.key(0), (2, 3, 1, 2, 1, 4))
    received = jax.vmap(lambda x: resize_trilinear(x, (2, 40, 56)))(x)
    np.testing.assert_array_equal(received[1], resize_trilinear(x[1], (2, 40, 56)))
    grad = jax.grad(lambda x: resize_trilinear(x, (2, 40, 56)).sum())(x[0])
    np.testing.assert_allclose(grad, 2 * 40 * 56 / 2, rtol=1e-5)


@pytest.mark.parametrize("function", [resize_trilinear, resize_trilinear_reference])
@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((2, 3, 4, 5), (1, 1, 1), r"x must have the axes N T H W C, received shape \(2, 3, 4, 5\)\."),
        ((1, 2, 3, 4, 5), (1, 1), r"size must be three numbers >= 1 \(T, H, W\), received size=\(1, 1\)\."),
        ((1, 2, 3, 4, 5), (1, 0, 1), r"size must be three numbers >= 1 \(T, H, W\), received size=\(1, 0, 1\)\."),
    ],
)
def test_errors_name_the_rule_and_the_value(function, shape, size, message):
    with pytest.raises(ValueError, match=message):
        function(jnp.zeros(shape), size)
