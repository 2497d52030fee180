"""The public code's MTConv against its own numbers, in evaluation and in training."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn.mtconv_reference import MTConvReference, pool_pairs, select_half, split_groups, split_streams
from jaxvid.nn.srtg import SRTG, from_torch

TORCH = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def to_ours(array):
    return jnp.asarray(np.moveaxis(array, 1, -1))


def variables_of(module, streams, arrays):
    """Torch's arrays as our variables: every array is used, and has the shape that is wanted."""
    shapes = flax.traverse_util.flatten_dict(jax.eval_shape(lambda: module.init(jax.random.key(0), streams, False)))
    found = {}
    for path, leaf in shapes.items():
        array = arrays[f"{'.'.join(path[1:-1])}.{TORCH[path[-1]]}"]
        found[path] = jnp.asarray(array.transpose(2, 3, 4, 1, 0) if array.ndim == 5 else array)
        assert found[path].shape == leaf.shape
    assert len(found) == len([key for key in arrays if "num_batches" not in key])
    return flax.traverse_util.unflatten_dict(found)


@pytest.mark.data
@pytest.mark.parametrize("pool", ["avg", "soft"])
def test_values_and_statistics_are_the_codes(pool, golden):
    stored = golden(f"mtconv_{pool}")
    module = MTConvReference(16, (3, 3, 3), padding=(1, 1, 1), delta=0.875, pool=pool)
    streams = to_ours(stored["x_short"]), to_ours(stored["x_long"])
    arrays = {key[2:]: value for key, value in stored.items() if key.startswith("w.")}
    variables = variables_of(module, streams, arrays)
    evaluated = module.apply(variables, streams, train=False)
    trained, state = module.apply(variables, streams, train=True, mutable=["batch_stats"])
    for mode, outputs in (("eval", evaluated), ("train", trained)):
        for name, output in zip(("short", "long"), outputs, strict=True):
            expected = np.moveaxis(stored[f"y_{name}_{mode}"], 1, -1)
            np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5 * expected.std())
    for norm in ("norm_short", "norm_long"):
        for leaf in ("mean", "var"):
            expected = stored[f"w_after_train.{norm}.{TORCH[leaf]}"]
            np.testing.assert_allclose(state["batch_stats"][norm][leaf], expected, rtol=1e-5, atol=1e-7)


def test_recurrence_is_the_codes(golden):
    stored = golden("sr_gru_module")
    params = from_torch({key[2:]: value for key, value in stored.items() if key.startswith("w.")})
    y = SRTG("gru", 2).apply({"params": params}, to_ours(stored["x"]))
    np.testing.assert_allclose(y, np.moveaxis(stored["y"], 1, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "delta", "streams"),
    [(64, 0.875, (56, 8)), (20, 0.3, (6, 14)), (10, 0.75, (7, 3)), (128, 0.5, (64, 64))],
)
def test_channels_are_floored(channels, delta, streams):
    assert split_streams(channels, delta) == streams


@pytest.mark.parametrize(
    ("groups", "delta", "streams"),
    [(8, 0.875, (7, 1)), (8, 0.75, (6, 2)), (4, 0.5, (2, 2)), (1, 0.5, (1, 1))],
)
def test_groups_are_floored_and_at_least_one(groups, delta, streams):
    assert split_groups(groups, delta) == streams


def test_long_statistics_move_twice():
    """Once for the long stream, then for the lateral term."""
    streams = (
        jax.random.normal(jax.random.key(0), (2, 4, 4, 4, 4)),
        jax.random.normal(jax.random.key(1), (2, 2, 2, 2, 4)),
    )
    module = MTConvReference(8, (1, 1, 1))
    variables = module.init(jax.random.key(2), streams, False)
    _, state = module.apply(variables, streams, train=True, mutable=["batch_stats"])
    kernels = {name: leaf["kernel"][0, 0, 0] for name, leaf in variables["params"].items() if "conv" in name}
    long = streams[1] @ kernels["conv_long"]
    lateral = select_half(pool_pairs(streams[0] @ kernels["conv_short"])) @ kernels["conv_short2long"]
    first, second = long.mean((0, 1, 2, 3)), lateral.mean((0, 1, 2, 3))
    expected = 0.9 * (0.1 * first) + 0.1 * second
    np.testing.assert_allclose(state["batch_stats"]["norm_long"]["mean"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_groups_are_normalised_by_groupnorm():
    streams = jnp.ones((1, 4, 4, 4, 8)), jnp.ones((1, 2, 2, 2, 8))
    module = MTConvReference(16, (3, 3, 3), padding=(1, 1, 1), groups=4)
    variables = module.init(jax.random.key(0), streams, False)
    assert set(variables) == {"params"}  # no running statistics
    assert variables["params"]["conv_short"]["kernel"].shape == (3, 3, 3, 4, 8)
    video = jax.random.normal(jax.random.key(1), (1, 4, 4, 4, 8)), jax.random.normal(jax.random.key(2), (1, 2, 2, 2, 8))
    short, _ = module.apply(variables, video, train=True)
    groups = np.asarray(short).reshape(1, -1, 2, 4)
    np.testing.assert_allclose(groups.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(groups.std((1, 3)), 1, atol=1e-3)
    halves = module.apply(variables, jax.tree.map(lambda x: x.astype(jnp.bfloat16), video), train=False)
    assert {x.dtype for x in halves} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 3), (3, 3, 2)])
def test_short_axes_are_kept(size):
    """Where the code fails: a frame, a row or a column that cannot be halved."""
    streams = jnp.ones((2, *size, 4)), jnp.ones((2, 1, 1, 1, 4))
    outputs, _ = MTConvReference(8, (1, 1, 1)).init_with_output(jax.random.key(0), streams, False)
    assert [x.shape for x in outputs] == [(2, *size, 4), (2, 1, 1, 1, 4)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pool": "max"}, "pool must be one of avg, soft"),
        ({"delta": 0.1}, "delta must leave each stream at least one channel, received delta=0.1, features=8"),
        ({"groups": 6}, "groups must divide the input channels and features"),
    ],
)
def test_errors(fields, message):
    streams = jnp.ones((1, 4, 4, 4, 4)), jnp.ones((1, 2, 2, 2, 4))
    with pytest.raises(ValueError, match=message):
        MTConvReference(8, (1, 1, 1), **fields).init(jax.random.key(0), streams, False)
