"""BatchNorm: torch's numbers, float32 statistics, one batch over many devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxvid.nn import BatchNorm


def _variables(channels: int):
    scale, bias, mean, var = (jax.random.uniform(k, (channels,)) + 0.5 for k in jax.random.split(jax.random.key(3), 4))
    return {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "var": var}}


def _train(variables, x, **options):
    y, updated = BatchNorm(**options).apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    return y, updated["batch_stats"]


def test_fresh_variables():
    variables = BatchNorm().init(jax.random.key(0), jnp.ones((1, 1, 1, 1, 2)), use_running_average=False)
    expected = {"params": {"scale": [1, 1], "bias": [0, 0]}, "batch_stats": {"mean": [0, 0], "var": [1, 1]}}
    assert jax.tree.map(lambda leaf: leaf.tolist(), variables) == expected


def test_training_by_hand():
    # Values 1 and 3: mean 2, biased variance 1, unbiased variance 2.
    x = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1, 1)
    variables = {
        "params": {"scale": jnp.array([2.0]), "bias": jnp.array([10.0])},
        "batch_stats": {"mean": jnp.array([0.0]), "var": jnp.array([1.0])},
    }
    y, stats = _train(variables, x, epsilon=0.0)
    np.testing.assert_allclose(y.ravel(), [8.0, 12.0], rtol=1e-6)
    np.testing.assert_allclose(stats["mean"], [0.2], rtol=1e-6)  # 0.9 * 0 + 0.1 * 2
    np.testing.assert_allclose(stats["var"], [1.1], rtol=1e-6)  # 0.9 * 1 + 0.1 * 2
    _, stats = _train(variables, x, momentum=0.5)
    np.testing.assert_allclose([stats["mean"].item(), stats["var"].item()], [1.0, 1.5], rtol=1e-6)


def test_evaluation_by_hand_leaves_the_state():
    x = jnp.array([[4.0], [0.0]])
    variables = {
        "params": {"scale": jnp.array([3.0]), "bias": jnp.array([1.0])},
        "batch_stats": {"mean": jnp.array([2.0]), "var": jnp.array([4.0])},
    }
    y, updated = BatchNorm(epsilon=0.0).apply(variables, x, use_running_average=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.ravel(), [4.0, -2.0], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])


def test_value_and_gradient_equal_flax():
    """Flax's module normalises by the same statistics; only its running variance is the biased one."""
    x = 3 + jax.random.normal(jax.random.key(0), (3, 2, 4, 4, 5))
    variables = _variables(5)
    cotangent = jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, use_fast_variance=False)

    def run(apply):
        def outputs(params, x):
            return apply({**variables, "params": params}, x)

        y, pull, updated = jax.vjp(outputs, variables["params"], x, has_aux=True)
        return y, pull(cotangent), updated

    received = run(lambda v, x: _train(v, x))
    expected = run(lambda v, x: theirs.apply(v, x, mutable=["batch_stats"]))
    expected[2]["batch_stats"]["var"] += 0.1 * np.var(np.asarray(x), (0, 1, 2, 3)) / (x.size // 5 - 1)
    expected = (*expected[:2], expected[2]["batch_stats"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), received, expected)


def test_statistics_of_a_far_mean_are_exact():
    """The mean of the squares minus the square of the mean would be all rounding here."""
    x = 4096.0 + jax.random.normal(jax.random.key(0), (8, 2, 8, 8, 3))
    _, stats = _train(_variables(3), x, momentum=0.0)
    np.testing.assert_allclose(stats["var"], np.var(np.asarray(x, np.float64), (0, 1, 2, 3), ddof=1), rtol=1e-3)


def test_bfloat16_keeps_float32_statistics():
    x = (100 + jax.random.normal(jax.random.key(0), (4, 2, 4, 4, 3))).astype(jnp.bfloat16)
    variables = _variables(3)
    y, stats = _train(variables, x)
    exact, exact_stats = _train(variables, x.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))
    jax.tree.map(np.testing.assert_array_equal, stats, exact_stats)
    assert _train(variables, x, dtype=jnp.float32)[0].dtype == jnp.float32


def test_eight_devices_are_one_batch():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jnp.arange(16.0)[:, None, None, None, None] * jax.random.normal(jax.random.key(0), (16, 1, 2, 2, 3))
    variables = _variables(3)

    @jax.jit
    def run(x):
        (value, (y, stats)), grad = jax.value_and_grad(
            lambda x: (lambda y, stats: (jnp.sum(jnp.sin(y)), (y, stats)))(*_train(variables, x)), has_aux=True
        )(x)
        return value, y, stats, grad

    sharded = run(jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))))
    assert len(sharded[1].sharding.device_set) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), sharded, run(x))


def test_one_value_per_channel_cannot_be_trained_on():
    x = jnp.ones((1, 1, 1, 1, 3))
    with pytest.raises(ValueError, match=r"more than one value per channel, received shape \(1, 1, 1, 1, 3\)\."):
        _train(_variables(3), x)
    assert BatchNorm().apply(_variables(3), x, use_running_average=True).shape == x.shape
