from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.config import OptimizerConfig
from jaxvid.train.optim import make_optimizer
from jaxvid.train.state import TrainState, create_state


class Net(nn.Module):
    """Reports every call with whether it was traced, so that a test can see how it was initialised."""

    report: Callable[[bool], None]

    @nn.compact
    def __call__(self, video, train):
        self.report(isinstance(video, jax.core.Tracer))
        x = nn.Dense(4, name="dense")(video.mean(axis=(1, 2, 3)))
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        self.sow("gates", "open_fraction", jnp.float32(0.5))
        return self.perturb("head", x)


def make(seed=0, *, ema=True, calls=None):
    optimizer = make_optimizer(OptimizerConfig(name="adamw"), lambda step: jnp.float32(0.1))
    return create_state(
        Net((lambda traced: None) if calls is None else calls.append), (2, 4, 4), optimizer, seed=seed, ema=ema
    )


def test_holds_only_what_training_needs():
    state = make()
    assert isinstance(state, TrainState)
    assert set(state.params) == {"dense", "norm"}
    assert set(state.batch_stats) == {"norm"}
    assert state.step.dtype == jnp.int32
    assert int(state.step) == 0
    assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.batch_stats, state.ema_params))} == {
        jnp.dtype("float32")
    }


def test_a_model_without_statistics_has_an_empty_tree():
    optimizer = make_optimizer(OptimizerConfig(), lambda step: jnp.float32(0.1))

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, video, train):
            return nn.Dense(2)(video.mean(axis=(1, 2, 3)))

    assert create_state(Plain(), (1, 2, 2), optimizer, seed=0, ema=False).batch_stats == {}


def test_init_is_never_eager():
    calls = []
    make(calls=calls)
    assert calls
    assert all(calls)


def test_ema_is_an_equal_copy_in_its_own_buffers():
    state = make()
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.ema_params), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()
    assert make(ema=False).ema_params is None


def test_the_seed_decides_everything():
    a, b, c = make(3), make(3), make(4)
    np.testing.assert_array_equal(a.params["dense"]["kernel"], b.params["dense"]["kernel"])
    np.testing.assert_array_equal(jax.random.key_data(a.key), jax.random.key_data(b.key))
    assert not np.array_equal(a.params["dense"]["kernel"], c.params["dense"]["kernel"])
    assert not np.array_equal(jax.random.key_data(a.key), jax.random.key_data(c.key))


@pytest.mark.parametrize("shape", [(2, 4), (0, 4, 4)])
def test_clip_shape_is_checked(shape):
    optimizer = make_optimizer(OptimizerConfig(), lambda step: jnp.float32(0.1))
    with pytest.raises(ValueError, match=r"clip_shape must be \(T, H, W\)"):
        create_state(Net(lambda traced: None), shape, optimizer, seed=0, ema=False)
