import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvid.config import OptimizerConfig, ScheduleConfig
from jaxvid.train.optim import decay_mask, make_optimizer, make_schedule


def rates(schedule, steps, *, rate=1.0, base=0, batch_size=8, steps_per_epoch=10.0, total_steps=100):
    fn = make_schedule(
        schedule,
        OptimizerConfig(learning_rate=rate, base_batch_size=base),
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
    )
    return [float(fn(step)) for step in steps]


def test_constant_rate():
    assert rates(ScheduleConfig("constant"), [0, 1, 99], rate=0.25) == [0.25] * 3


def test_linear_scaling_multiplies_by_the_ratio_of_batch_sizes():
    assert rates(ScheduleConfig("constant"), [0], rate=0.1, base=64, batch_size=16) == pytest.approx([0.025])


def test_warmup_climbs_by_equal_parts_and_wastes_no_step():
    received = rates(ScheduleConfig("constant", warmup_epochs=0.4), range(6), rate=2.0)
    assert received == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


def test_step_schedule_drops_at_epochs():
    schedule = ScheduleConfig("step", boundaries=(4.0, 7.0), factor=0.1)
    received = rates(schedule, [0, 39, 40, 69, 70, 99], rate=0.1)
    assert received == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_step_schedule_with_a_fraction_of_a_step_drops_at_the_first_step_past_the_epoch():
    schedule = ScheduleConfig("step", boundaries=(1.0, 3.0), factor=0.5)
    # One epoch is 3 1/3 steps: steps 0..3 begin within it; three epochs are exactly 10 steps.
    received = rates(schedule, [3, 4, 9, 10], steps_per_epoch=10 / 3)
    assert received == pytest.approx([1.0, 0.5, 0.5, 0.25])


def test_cosine_by_hand():
    schedule = ScheduleConfig("cosine", final_fraction=0.2)
    received = rates(schedule, [0, 25, 50, 75, 100], rate=0.5)
    half = math.sqrt(0.5)
    shape = [1.0, 0.2 + 0.8 * (1 + half) / 2, 0.6, 0.2 + 0.8 * (1 - half) / 2, 0.2]
    assert received == pytest.approx([0.5 * value for value in shape], rel=1e-6)


def test_cosine_begins_where_the_warmup_ends_and_never_rises_again():
    received = rates(ScheduleConfig("cosine", warmup_epochs=1.0), range(110), rate=3.0)
    assert max(received) == pytest.approx(3.0)
    assert received.index(max(received)) == 9
    assert all(a >= b for a, b in itertools.pairwise(received[9:]))
    assert received[99] > 0
    assert received[100:] == pytest.approx([0.0] * 10, abs=1e-7)


def test_warmup_longer_than_a_shortened_run_still_works():
    received = rates(ScheduleConfig("cosine", warmup_epochs=1.0), range(3), total_steps=3)
    assert received == pytest.approx([0.1, 0.2, 0.3])


def test_schedule_is_the_same_compiled_and_float32():
    for schedule in (
        ScheduleConfig("constant", warmup_epochs=0.5),
        ScheduleConfig("step", boundaries=(0.5,)),
        ScheduleConfig("cosine", warmup_epochs=0.3),
    ):
        fn = make_schedule(schedule, OptimizerConfig(), batch_size=8, steps_per_epoch=7.5, total_steps=20)
        steps = jnp.arange(20, dtype=jnp.int32)
        compiled = jax.jit(jax.vmap(fn))(steps)
        assert compiled.dtype == jnp.float32
        np.testing.assert_allclose(compiled, [fn(int(step)) for step in steps], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("steps_per_epoch", 0.0), ("total_steps", -1), ("steps_per_epoch", math.nan)]
)
def test_schedule_names_the_bad_count(name, value):
    counts = {"batch_size": 8, "steps_per_epoch": 10.0, "total_steps": 100} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be > 0, received {name}={value}"):
        make_schedule(ScheduleConfig(), OptimizerConfig(), **counts)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"schedule\.name must be .*'linear'"):
        rates(ScheduleConfig("linear"), [0])
    with pytest.raises(ValueError, match=r"optimizer\.name must be .*'lion'"):
        make_optimizer(OptimizerConfig(name="lion"), optax.constant_schedule(0.1))


def walk(config, grads, *, schedule=None, params=None):
    """The parameters after each of the updates with ``grads``."""
    optimizer = make_optimizer(config, schedule or make_constant(config.learning_rate))
    params = {"kernel": jnp.array([[1.0, -2.0]])} if params is None else params
    state = optimizer.init(params)
    trail = []
    for step, grad in enumerate(grads):
        updates, state = optimizer.update(grad, state, params, step=jnp.int32(step))
        params = optax.apply_updates(params, updates)
        trail.append(params)
    return trail


def make_constant(rate):
    return make_schedule(
        ScheduleConfig("constant"),
        OptimizerConfig(learning_rate=rate),
        batch_size=1,
        steps_per_epoch=1,
        total_steps=1,
    )


GRADS = [{"kernel": jnp.array([[0.5, 0.0]])}, {"kernel": jnp.array([[0.2, 1.0]])}]


def test_sgd_with_momentum_and_decay_by_hand():
    config = OptimizerConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.1)
    first, second = walk(config, GRADS)
    # v1 = g + 0.1 w = [0.6, -0.2];                         w1 = [1, -2] - 0.1 v1 = [0.94, -1.98]
    # v2 = 0.9 v1 + (g + 0.1 w1) = [0.54, -0.18] + [0.294, 0.802] = [0.834, 0.622]
    # w2 = w1 - 0.1 v2 = [0.8566, -2.0422]
    np.testing.assert_allclose(first["kernel"], [[0.94, -1.98]], rtol=1e-6)
    np.testing.assert_allclose(second["kernel"], [[0.8566, -2.0422]], rtol=1e-6)


def test_sgd_with_nesterov_by_hand():
    config = OptimizerConfig(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.0)
    first, second = walk(config, GRADS)
    # v1 = [0.5, 0], step g + 0.9 v1 = [0.95, 0];           w1 = [0.905, -2]
    # v2 = 0.9 v1 + g = [0.65, 1], step g + 0.9 v2 = [0.785, 1.9];  w2 = [0.8265, -2.19]
    np.testing.assert_allclose(first["kernel"], [[0.905, -2.0]], rtol=1e-6)
    np.testing.assert_allclose(second["kernel"], [[0.8265, -2.19]], rtol=1e-6)


def test_sgd_without_momentum_keeps_no_velocity():
    config = OptimizerConfig(learning_rate=0.5, momentum=0.0, weight_decay=0.0)
    np.testing.assert_allclose(walk(config, GRADS)[-1]["kernel"], [[0.65, -2.5]], rtol=1e-6)
    optimizer = make_optimizer(config, make_constant(0.5))
    assert jax.tree.leaves(optimizer.init(GRADS[0])) == []


def test_a_changing_rate_is_outside_the_velocity():
    schedule = make_schedule(
        ScheduleConfig("step", boundaries=(1.0,), factor=0.1),
        OptimizerConfig(learning_rate=1.0),
        batch_size=1,
        steps_per_epoch=1,
        total_steps=2,
    )
    config = OptimizerConfig(momentum=0.5, weight_decay=0.0)
    last = walk(config, [{"kernel": jnp.ones((1, 2))}] * 2, schedule=schedule)[-1]
    # w - 1 * 1 - 0.1 * (0.5 * 1 + 1)
    np.testing.assert_allclose(last["kernel"], [[1.0 - 1.15, -2.0 - 1.15]], rtol=1e-6)


def test_adamw_is_the_recurrence_of_its_paper():
    config = OptimizerConfig(name="adamw", learning_rate=0.01, weight_decay=0.3)
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(20, 3, 2)).astype(np.float32)
    w = rng.normal(size=(3, 2)).astype(np.float32)
    trail = walk(config, [{"kernel": jnp.asarray(g)} for g in grads], params={"kernel": jnp.asarray(w)})
    w, m, v = w.astype(np.float64), 0.0, 0.0
    for t, (g, received) in enumerate(zip(grads, trail, strict=True), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.01 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.3 * w)
        np.testing.assert_allclose(received["kernel"], w, rtol=2e-5, atol=1e-6)


def test_clipping_is_by_the_global_norm_and_before_decay():
    config = OptimizerConfig(learning_rate=1.0, momentum=0.0, weight_decay=0.5, clip_norm=1.0)
    params = {"a": {"kernel": jnp.full((1, 1), 2.0)}, "b": {"bias": jnp.zeros(1)}}
    grads = {"a": {"kernel": jnp.full((1, 1), 3.0)}, "b": {"bias": jnp.full(1, 4.0)}}
    (after,) = walk(config, [grads], params=params)
    # Norm 5: the gradients become 0.6 and 0.8; decay adds 0.5 * 2 to the kernel alone.
    np.testing.assert_allclose(after["a"]["kernel"], [[2.0 - 1.6]], rtol=1e-6)
    np.testing.assert_allclose(after["b"]["bias"], [-0.8], rtol=1e-6)


def test_a_small_gradient_is_not_clipped():
    config = OptimizerConfig(learning_rate=1.0, momentum=0.0, weight_decay=0.0, clip_norm=10.0)
    np.testing.assert_array_equal(walk(config, GRADS[:1])[0]["kernel"], [[0.5, -2.0]])


PARAMS = {
    "stem": {"conv": {"kernel": jnp.ones((3, 7, 7, 3, 4))}, "norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)}},
    "srtg": {
        "layer0_kernel": jnp.ones((4, 16)),
        "layer0_bias": jnp.ones(16),
        "layer1_recurrent_bias": jnp.ones((4, 4)),
        "peephole": jnp.ones((3, 4)),
    },
    "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
}
DECAYED = {
    "stem": {"conv": {"kernel": True}, "norm": {"scale": False, "bias": False}},
    "srtg": {"layer0_kernel": True, "layer0_bias": False, "layer1_recurrent_bias": False, "peephole": True},
    "head": {"kernel": True, "bias": False},
}


def test_decay_mask():
    assert decay_mask(PARAMS) == DECAYED


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_alone_shrinks_the_masked_parameters_and_no_other(name):
    config = OptimizerConfig(name=name, learning_rate=0.5, momentum=0.0, weight_decay=0.2)
    (after,) = walk(config, [jax.tree.map(jnp.zeros_like, PARAMS)], params=PARAMS)
    expected = jax.tree.map(lambda p, decays: p * (0.9 if decays else 1.0), PARAMS, DECAYED)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), after, expected)


def test_the_update_needs_the_step():
    optimizer = make_optimizer(OptimizerConfig(), make_constant(0.1))
    with pytest.raises(TypeError, match="step"):
        optimizer.update(GRADS[0], optimizer.init(GRADS[0]), GRADS[0])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_moments_are_float32_in_buffers_of_their_own(name):
    optimizer = make_optimizer(OptimizerConfig(name=name, momentum=0.9), make_constant(0.1))
    moments = [leaf for leaf in jax.tree.leaves(jax.jit(optimizer.init)(PARAMS)) if leaf.ndim]
    assert len(moments) == len(jax.tree.leaves(PARAMS)) * {"sgd": 1, "adamw": 2}[name]
    assert {leaf.dtype for leaf in moments} == {jnp.dtype("float32")}
    assert len({leaf.unsafe_buffer_pointer() for leaf in moments}) == len(moments)


@pytest.mark.data
def test_the_cosine_of_20000_steps_is_the_authors(golden):
    """SRTG's rate of 1.16 over 20,000 steps, every tenth of them."""
    numbers = golden("lr_cosine")
    schedule = make_schedule(
        ScheduleConfig("cosine"),
        OptimizerConfig(learning_rate=1.16),
        batch_size=1,
        steps_per_epoch=100,
        total_steps=20000,
    )
    np.testing.assert_allclose(jax.vmap(schedule)(numbers["n"]), numbers["lr"], atol=2e-7)
