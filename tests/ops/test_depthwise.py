"""Depthwise shifts and sums: what the tests of conv3d do not ask of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops import conv3d, depthwise, grouped
from jaxvid.ops.depthwise_form import Geometry


@pytest.mark.parametrize(
    ("strides", "dilation"),
    [((1, 2, 3), (1, 1, 1)), ((2, 4, 1), (3, 2, 2)), ((3, 1, 2), (3, 1, 4))],
    ids=["stride", "dilation by other steps", "dilation by the same or more"],
)
def test_float64_is_computed_in_float64(strides, dilation):
    """Gradients too, of strides and dilations with and without a common divisor."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 9, 8, 9, 3), jnp.float64)
        kernel = jax.random.normal(jax.random.key(1), (3, 2, 3, 1, 3), jnp.float64)

        def both(implementation):
            def convolve(x, kernel):
                options = {"dilation": dilation, "groups": 3, "implementation": implementation}
                return conv3d(x, kernel, strides, ((1, 2), (0, 1), (2, 0)), **options)

            y, pull = jax.vjp(convolve, x, kernel)
            return y, *pull(jnp.sin(y))

        run = jax.jit(both, static_argnums=0)
        for received, expected in zip(run("shifted"), run("direct"), strict=True):
            assert received.dtype == jnp.float64
            assert np.abs(expected).max() > 1
            np.testing.assert_allclose(received, expected, rtol=0, atol=1e-12)


def test_the_gradient_of_the_input_multiplies_no_zeros():
    """A stride of 2 along each axis: every phase has its own taps, 27 products of the cotangent's size in all."""
    geometry = Geometry((8, 8, 8), (3, 3, 3), (2, 2, 2), ((1, 1),) * 3)
    convolution = depthwise.Depthwise(geometry, depthwise.FORM)
    jaxpr = jax.make_jaxpr(lambda kernel, g: convolution.solve(grouped.X, kernel, g))(
        jnp.zeros((3, 3, 3, 1, 4)), jnp.zeros((1, 4, 4, 4, 4))
    )
    products = [eqn.outvars[0].aval.shape for eqn in jaxpr.eqns if eqn.primitive.name == "mul"]
    assert products == [(1, 4, 4, 4, 4)] * 27
