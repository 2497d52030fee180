"""Conv3D: its parameters, its start, and that it computes conv3d."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn import Conv3D
from jaxvid.ops import conv3d


def test_computes_conv3d_of_its_kernel_and_bias():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 5, 4))
    module = Conv3D(6, (3, 3, 3), (1, 2, 2), (1, 1, 1), use_bias=True, groups=2)
    variables = module.init(jax.random.key(1), x)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes == {"kernel": (3, 3, 3, 2, 6), "bias": (6,)}
    variables["params"]["bias"] = jnp.arange(6.0)
    expected = conv3d(x, variables["params"]["kernel"], (1, 2, 2), (1, 1, 1), groups=2) + jnp.arange(6.0)
    np.testing.assert_allclose(module.apply(variables, x), expected, rtol=1e-6, atol=1e-6)


def test_without_bias_and_with_each_implementation():
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 4, 5))
    variables = Conv3D(2, (3, 3, 3)).init(jax.random.key(1), x)
    assert list(variables["params"]) == ["kernel"]
    direct, folded = (Conv3D(2, (3, 3, 3), implementation=name).apply(variables, x) for name in ("direct", "folded"))
    assert direct.shape == (1, 3, 4, 4, 2)  # SAME
    np.testing.assert_allclose(folded, direct, atol=1e-5)


def test_kernel_starts_kaiming_normal_by_fan_out():
    kernel = Conv3D(64, (3, 3, 3)).init(jax.random.key(0), jnp.zeros((1, 1, 1, 1, 32)))["params"]["kernel"]
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / (64 * 27)), rtol=0.02)
    assert np.abs(kernel).max() > 4 * np.std(kernel)  # a normal distribution, not a truncated one


def test_bfloat16_computation_keeps_float32_parameters():
    x = jnp.ones((1, 2, 3, 3, 5))
    module = Conv3D(2, (3, 3, 3), use_bias=True, dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert module.apply(variables, x).dtype == jnp.bfloat16


@pytest.mark.parametrize(("channels", "features"), [(4, 6), (6, 4)])
def test_groups_must_divide_the_channels(channels, features):
    with pytest.raises(ValueError, match=rf"groups=3, {channels} input channels, features={features}\."):
        Conv3D(features, (1, 1, 1), groups=3).init(jax.random.key(0), jnp.zeros((1, 1, 1, 1, channels)))
