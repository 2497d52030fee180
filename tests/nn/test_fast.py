"""FAST convolutions against compositions of XLA's own convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxvid.nn import BatchNorm, Conv3D, FASTConv
from jaxvid.nn.fast import ARRANGEMENTS

X = (2, 5, 7, 6, 4)


def make(arrangement, features=6, kernel_size=(3, 3, 3), strides=(1, 1, 1), groups=1):
    conv = functools.partial(Conv3D, implementation="direct")
    return FASTConv(features, kernel_size, strides, conv, BatchNorm, arrangement, groups)


@pytest.fixture
def drawn_for():
    """``module -> (variables, x)``, every number drawn."""

    def draw(module):
        rng = np.random.default_rng(0)
        x = rng.normal(size=X).astype(np.float32)
        shapes = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), x)
        return jax.tree.map(lambda leaf: rng.uniform(0.3, 1.3, leaf.shape).astype(leaf.dtype), shapes), x

    return draw


def convolve(x, kernel, strides, groups=1):
    padding = [(length // 2, length // 2) for length in kernel.shape[:3]]
    dimensions = lax.conv_dimension_numbers(x.shape, kernel.shape, ("NTHWC", "THWIO", "NTHWC"))
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dimensions, feature_group_count=groups, precision="highest"
    )


def normalise(x, variables, name):
    statistics, params = variables["batch_stats"][name], variables["params"][name]
    return (x - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5) * params["scale"] + params["bias"]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2), (2, 1, 3)])
@pytest.mark.parametrize("kernel_size", [(3, 3, 3), (5, 3, 7)])
def test_sequential_is_space_then_horizontal_then_vertical(kernel_size, strides, groups, drawn_for):
    module = make("sequential", kernel_size=kernel_size, strides=strides, groups=groups)
    variables, x = drawn_for(module)
    kernels = {name: leaf["kernel"] for name, leaf in variables["params"].items() if "kernel" in leaf}
    t, h, w = kernel_size
    assert {name: kernel.shape[:3] for name, kernel in kernels.items()} == {
        "spatial": (1, h, w),
        "horizontal": (t, 1, w),
        "vertical": (t, h, 1),
    }
    y = convolve(x, kernels["spatial"], (1, *strides[1:]), groups)
    y = jax.nn.relu(normalise(y, variables, "spatial_norm"))
    y = convolve(y, kernels["horizontal"], (strides[0], 1, 1), groups)
    y = jax.nn.relu(normalise(y, variables, "horizontal_norm"))
    y = convolve(y, kernels["vertical"], (1, 1, 1), groups)
    received = module.apply(variables, x, False)
    assert received.shape[1:4] == tuple(-(-n // s) for n, s in zip(X[1:4], strides, strict=True))
    np.testing.assert_allclose(received, y, rtol=1e-4, atol=1e-5 * float(jnp.abs(y).max()))


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2)])
def test_parallel_is_one_kernel_whose_frames_are_crosses(strides, drawn_for):
    """The sum of the horizontal and the vertical convolution is that of their kernels, laid over each other."""
    module = make("parallel", strides=strides)
    variables, x = drawn_for(module)
    params = variables["params"]
    y = convolve(x, params["spatial"]["kernel"], (1, *strides[1:]))
    y = jax.nn.relu(normalise(y, variables, "spatial_norm"))
    cross = np.zeros((3, 3, 3, 6, 6), np.float32)
    cross[:, 1:2, :] += params["horizontal"]["kernel"]
    cross[:, :, 1:2] += params["vertical"]["kernel"]
    expected = convolve(y, cross, (strides[0], 1, 1))
    assert "horizontal_norm" not in params
    np.testing.assert_allclose(
        module.apply(variables, x, False), expected, rtol=1e-4, atol=1e-5 * float(jnp.abs(expected).max())
    )


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_weights_are_as_many_as_those_of_the_one_kernel(arrangement):
    shapes = jax.eval_shape(functools.partial(make(arrangement, 4).init, train=False), jax.random.key(0), jnp.zeros(X))
    assert sum(leaf["kernel"].size for leaf in shapes["params"].values() if "kernel" in leaf) == 27 * 4 * 4


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_training_uses_the_batch_and_every_parameter_learns(arrangement, drawn_for):
    module = make(arrangement)
    variables, x = drawn_for(module)

    def loss(params):
        y, state = module.apply(variables | {"params": params}, x, True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)), state["batch_stats"]

    gradients, statistics = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert all(np.all(np.isfinite(leaf)) and np.any(leaf != 0) for leaf in jax.tree.leaves(gradients))
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), variables["batch_stats"], statistics)
    assert all(jax.tree.leaves(moved))


def test_unknown_arrangement():
    with pytest.raises(ValueError, match=r"arrangement must be one of sequential, parallel, received .*'paralel'\."):
        jax.eval_shape(functools.partial(make("paralel").init, train=False), jax.random.key(0), jnp.zeros(X))
