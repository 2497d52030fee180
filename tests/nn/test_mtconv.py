"""The thesis' MTConv: against NumPy, its cost, its options, its edges."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.models import cost
from jaxvid.nn.convolution import Conv3D
from jaxvid.nn.mtconv import PROLONGED_POOLS, SELECTIONS, MTConv, split_channels
from jaxvid.ops.resize import resize_trilinear_reference
from jaxvid.ops.soft_pooling import softpool_reference


def start(module, x, seed=0):
    """Variables with BN statistics and scales that are not those of a fresh start."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(seed), x, False))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return jnp.asarray(rng.normal(size=leaf.shape) * np.sqrt(2 * leaf.shape[-1] / leaf.size), leaf.dtype)
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.3, 0.3)
        return jnp.asarray(rng.uniform(low, high, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def apply_with_every_option(module, variables, x):
    """In evaluation, all options in one program: they change no parameter."""
    options = itertools.product(PROLONGED_POOLS, SELECTIONS)
    modules = [module.clone(pool=pool, selection=selection) for pool, selection in options]
    return jax.jit(lambda v: [each.apply(v, x, train=False) for each in modules])(variables)


def numpy_selected(x):
    """The half of the frames whose two cosines, before and after, have the lowest sum."""
    kept = []
    for sample in np.asarray(x, np.float64):
        g = sample.mean((1, 2))
        cosine = [g[t] @ g[t + 1] / np.linalg.norm(g[t]) / np.linalg.norm(g[t + 1]) for t in range(len(g) - 1)]
        triplets = [cosine[t - 1] + cosine[t] for t in range(1, len(g) - 1)]
        kept.append(sample[np.sort(np.argsort(triplets, kind="stable")[: len(g) // 2]) + 1])
    return np.stack(kept)


def test_pointwise_mtconv_is_its_definition():
    x = jax.random.normal(jax.random.key(0), (2, 6, 5, 6, 8))
    module = MTConv(16, (1, 1, 1), delta=0.75)
    v = start(module, x)

    def term(x, name):
        p, s = v["params"][f"norm_{name}"], v["batch_stats"][f"norm_{name}"]
        z = np.asarray(x) @ np.asarray(v["params"][name]["kernel"][0, 0, 0])
        return np.maximum((z - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"], 0)

    def reduced(x):
        return numpy_selected(softpool_reference(jnp.asarray(x), (1, 2, 2)))

    local = term(x[..., :6], "local")
    prolonged = term(reduced(x[..., 6:]), "prolonged") + term(reduced(local), "lateral")
    prolonged = resize_trilinear_reference(jnp.asarray(prolonged, jnp.float32), (6, 5, 6))
    y = module.apply(v, x, train=False)
    np.testing.assert_allclose(y, np.concatenate([local, prolonged], -1), rtol=1e-4, atol=1e-5)


def test_example_of_the_thesis():
    """Table 6.1: 3x3x3 with 54 channels is 47 local and 7 prolonged ones, and a point-wise 47 to 7."""
    x = jnp.zeros((1, 4, 4, 4, 54))
    shapes = lambda groups: {  # noqa: E731
        name: leaf["kernel"].shape
        for name, leaf in jax.eval_shape(
            lambda: MTConv(54, (3, 3, 3), groups=groups).init(jax.random.key(0), x, False)
        )["params"].items()
        if "kernel" in leaf
    }
    assert shapes(1) == {"local": (3, 3, 3, 47, 47), "prolonged": (3, 3, 3, 7, 7), "lateral": (1, 1, 1, 47, 7)}
    assert shapes(None) == {"local": (3, 3, 3, 1, 47), "prolonged": (3, 3, 3, 1, 7), "lateral": (1, 1, 1, 47, 7)}


@pytest.mark.parametrize("delta", [7 / 8, 3 / 4, 1 / 2, 1 / 4])
@pytest.mark.parametrize("kernel_size", [(1, 1, 1), (3, 3, 3)])
def test_prolonged_channels_cost_an_eighth(kernel_size, delta):
    """Decision 5: quadratic in delta, and the prolonged branch works on 1/8 of the positions."""
    clip, channels, taps = (8, 8, 8), 16, np.prod(kernel_size)
    local, prolonged = split_channels(channels, delta)
    module = MTConv(channels, kernel_size, delta=delta, conv=functools.partial(Conv3D, implementation="direct"))

    def apply(x):
        return module.init_with_output(jax.random.key(0), x, False)[0]

    x = jax.ShapeDtypeStruct((1, *clip, channels), jnp.float32)
    found = cost.macs_of_jaxpr(jax.make_jaxpr(apply)(x).jaxpr)
    positions = np.prod(clip)
    assert found == taps * local**2 * positions + (taps * prolonged**2 + local * prolonged) * positions // 8


def test_without_prolonged_branch_it_is_a_convolution():
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 4, 6))
    variables = MTConv(4, (3, 3, 3), delta=1.0).init(jax.random.key(1), x, False)
    assert set(variables["params"]) == {"local", "norm_local"}


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 5), (3, 6, 7), (5, 2, 1)])
def test_every_option_at_every_size(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 8))
    module = MTConv(8, (3, 3, 3), (1, 2, 2), delta=0.5, groups=None)
    for y in apply_with_every_option(module, start(module, x), x):
        assert y.shape == (2, size[0], -(-size[1] // 2), -(-size[2] // 2), 8)
        assert np.all(np.isfinite(y))


def test_options_change_the_prolonged_half_only():
    x = jax.random.uniform(jax.random.key(0), (1, 4, 4, 4, 8))
    module = MTConv(8, (1, 1, 1), delta=0.5)
    variables = start(module, x)
    outputs = apply_with_every_option(module, variables, x)
    for i, y in enumerate(outputs):
        np.testing.assert_array_equal(y[..., :4], outputs[0][..., :4])
        assert all(not np.allclose(y[..., 4:], other[..., 4:]) for other in outputs[:i])


def test_stochastic_pooling_draws_in_training_only():
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 4, 8))
    module = MTConv(8, (1, 1, 1), delta=0.5, pool="stochastic")
    variables = start(module, x)

    def train(seed):
        return module.apply(variables, x, train=True, rngs={"pool": jax.random.key(seed)}, mutable=["batch_stats"])[0]

    np.testing.assert_array_equal(train(1), train(1))
    assert not np.allclose(train(1), train(2))
    np.testing.assert_array_equal(*(module.apply(variables, x, train=False) for _ in range(2)))


@pytest.mark.slow
def test_every_parameter_has_a_gradient_and_bfloat16_stays():
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 4, 8))
    module = MTConv(8, (3, 3, 3), delta=0.5, groups=None)
    variables = start(module, x)

    def loss(params):
        y, _ = module.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y))

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(variables["params"])):
        assert np.all(np.isfinite(gradient)), path
        assert np.any(gradient != 0), path
    assert module.apply(variables, x.astype(jnp.bfloat16), train=False).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"delta": 0.0}, r"delta must be in \(0, 1\] and give each branch channels"),
        ({"delta": 1.5}, r"delta must be in \(0, 1\]"),
        ({"delta": 0.1}, r"received delta=0.1, which splits 8 into \(0, 8\)"),
        ({"groups": 3}, "groups must divide the input channels and features"),
        ({"pool": "sotf"}, "pool must be one of"),
        ({"selection": "highest"}, "selection must be one of"),
    ],
)
def test_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        MTConv(8, (1, 1, 1), **fields).init(jax.random.key(0), jnp.zeros((1, 4, 4, 4, 8)), False)
