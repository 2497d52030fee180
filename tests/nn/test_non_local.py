"""The non-local block, against a sum over pairs of positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn.non_local import NonLocalBlock

X = jax.random.normal(jax.random.key(0), (2, 3, 2, 2, 6))


@pytest.fixture(scope="module")
def variables():
    return NonLocalBlock().init(jax.random.key(1), X, train=False)


def test_it_starts_as_the_identity(variables):
    np.testing.assert_array_equal(NonLocalBlock().apply(variables, X, train=False), X)


def test_every_position_is_a_weighted_mean_of_all(variables):
    params = {**variables["params"], "norm": {"scale": jnp.full(6, 0.7), "bias": jnp.full(6, 0.1)}}
    found = NonLocalBlock().apply({**variables, "params": params}, X, train=False)

    def dense(name, x):
        return x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])

    for clip, out in zip(np.asarray(X).reshape(2, -1, 6), np.asarray(found).reshape(2, -1, 6), strict=True):
        theta, phi, g = (dense(name, clip) for name in ("theta", "phi", "g"))
        for i, x in enumerate(clip):
            weights = np.exp([theta[i] @ other for other in phi])
            y = dense("output", (weights / weights.sum()) @ g)
            np.testing.assert_allclose(out[i], x + 0.7 * y / np.sqrt(1 + 1e-5) + 0.1, rtol=1e-4, atol=1e-5)


def test_training_updates_its_statistics(variables):
    _, updated = NonLocalBlock().apply(variables, X, train=True, mutable=["batch_stats"])
    assert (updated["batch_stats"]["norm"]["mean"] != 0).any()
    half = NonLocalBlock(dtype=jnp.bfloat16).apply(variables, X.astype(jnp.bfloat16), train=False)
    assert half.dtype == jnp.bfloat16
