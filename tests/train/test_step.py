import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from jaxvid import evaluation, models
from jaxvid.config import OptimizerConfig, ScheduleConfig
from jaxvid.nn.srtg import SRTG
from jaxvid.ops.normalize import normalize_video
from jaxvid.train.optim import decay_mask, make_optimizer, make_schedule
from jaxvid.train.sharding import make_mesh, put, replicate
from jaxvid.train.state import create_state
from jaxvid.train.step import make_apply, make_train_step, masked_cross_entropy

MEAN, STD = (0.45, 0.4, 0.35), (0.225, 0.25, 0.2)
K = 3
CLIP = (2, 6, 6)


class Block(nn.Module):
    features: int
    dtype: str

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.features, (3, 3, 3), use_bias=False, dtype=self.dtype, name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype, name="norm")(x)
        # Dead under any weights: how many samples are brighter than the average.
        self.sow("gates", "open_fraction", jnp.mean(x.astype(jnp.float32).mean(axis=(1, 2, 3, 4)) > 0))
        return nn.relu(x)


class Net(nn.Module):
    """Convolution, BatchNorm, gates by name, dropout: all that the step has to carry."""

    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, video, train):
        x = Block(4, self.dtype, name="stage1")(video, train)
        x = Block(6, self.dtype, name="stage2")(x, train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean(axis=(1, 2, 3)))
        return nn.Dense(K, dtype="float32", name="head")(x.astype(jnp.float32))


def make_batch(rows=8, *, seed=0, invalid=()):
    rng = np.random.default_rng(seed)
    mask = np.ones(rows, bool)
    mask[list(invalid)] = False
    return {
        "video": rng.integers(0, 256, (rows, *CLIP, 3), dtype=np.uint8),
        "label": rng.integers(0, K, rows).astype(np.int32),
        "id": np.where(mask, rng.permutation(100)[:rows], -1).astype(np.int32),
        "mask": mask,
    }


PLAIN = {"learning_rate": 0.1, "weight_decay": 0.0, "momentum": 0.0}
FULL = {
    "model": Net(dropout=0.3),
    "smoothing": 0.1,
    "ema_decay": 0.9,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
}


@functools.cache
def build(model, devices, seed, smoothing, ema_decay, schedule, optimizer, color, config):
    """Tests with the same recipe share what is slow to make: the first state and the compiled step."""
    mesh = make_mesh((("data", devices),))
    recipe = OptimizerConfig(**(PLAIN | dict(config)))
    rate = make_schedule(schedule, recipe, batch_size=8, steps_per_epoch=4.0, total_steps=8)
    optimizer = optimizer or make_optimizer(recipe, rate)
    state = create_state(model, CLIP, optimizer, seed=seed, ema=ema_decay > 0)
    step = make_train_step(
        model, optimizer, rate, mean=MEAN, std=STD, color=color, label_smoothing=smoothing, ema_decay=ema_decay,
        mesh=mesh,
    )  # fmt: skip
    return mesh, rate, state, step


class Trainer:
    """A model with its optimiser, step and state on a mesh of ``devices`` devices."""

    def __init__(
        self,
        model=Net(),  # noqa: B008 (immutable)
        *,
        devices=1,
        seed=0,
        smoothing=0.0,
        ema_decay=0.0,
        schedule=ScheduleConfig("constant"),  # noqa: B008 (immutable)
        optimizer=None,
        color="RGB",
        **config,
    ):
        self.model = model
        self.mesh, self.schedule, state, self.step = build(
            model, devices, seed, smoothing, ema_decay, schedule, optimizer, color, tuple(sorted(config.items()))
        )
        self.state = replicate(state, self.mesh)

    def run(self, batch):
        self.state, metrics = self.step(self.state, put(batch, self.mesh))
        return jax.device_get(metrics)


def host(tree):
    """A copy of a pytree on the host that outlives donation."""
    return jax.tree.map(np.array, tree)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, host(a), host(b))


def assert_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), host(a), host(b))


def learned(state):
    """All that an update changes."""
    return host((state.params, state.batch_stats, state.opt_state, state.ema_params))


# The loss


def test_loss_by_hand():
    logits = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]]))
    label, mask = jnp.array([0, 1, 0]), jnp.array([True, True, False])
    plain = masked_cross_entropy(logits, label, mask)
    smoothed = masked_cross_entropy(logits, label, mask, label_smoothing=0.1)
    np.testing.assert_allclose(plain, (np.log(4) + np.log(2)) / 2, rtol=1e-6)
    first = -0.95 * np.log(0.25) - 0.05 * np.log(0.75)
    np.testing.assert_allclose(smoothed, (first + np.log(2)) / 2, rtol=1e-6)


def test_gradient_of_the_loss_is_softmax_minus_target_over_the_valid_rows():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 5)).astype(np.float32)
    label, mask = np.array([4, -1, 0, 2]), np.array([True, False, True, True])
    grad = jax.grad(lambda z: masked_cross_entropy(z, label, mask, label_smoothing=0.2))(jnp.asarray(logits))
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = 0.8 * np.eye(5)[label] + 0.2 / 5
    expected = (softmax - target) / 3 * mask[:, None]
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_loss_of_bfloat16_logits_is_float32_and_huge_ones_do_not_overflow():
    logits = jnp.array([[1000.0, 0.0]], jnp.bfloat16)
    loss = masked_cross_entropy(logits, jnp.array([1]), jnp.array([True]))
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(1000.0)


def test_loss_of_no_valid_row_is_zero_with_zero_gradient():
    fn = jax.value_and_grad(lambda z: masked_cross_entropy(z, jnp.array([0]), jnp.array([False])))
    loss, grad = fn(jnp.array([[jnp.nan, 1.0]]))
    assert float(loss) == 0.0
    loss, grad = fn(jnp.array([[3.0, 1.0]]))
    np.testing.assert_array_equal(grad, [[0.0, 0.0]])


# The update


def reference(model, state, batch, smoothing):
    """Loss, logits, new statistics and gradient without dropout, written down without the step's code."""
    video = (batch["video"].astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    weight = (batch["mask"] / batch["mask"].sum()).astype(np.float32)
    targets = ((1 - smoothing) * np.eye(K)[batch["label"]] + smoothing / K).astype(np.float32)
    variables = host({"params": state.params, "batch_stats": state.batch_stats})
    (loss, (logits, stats)), grads = _reference(model.clone(dropout=0.0), variables, video, weight, targets)
    return float(loss), np.array(logits), host(stats), host(grads)


@functools.partial(jax.jit, static_argnums=0)
def _reference(model, variables, video, weight, targets):
    def loss_fn(params):
        logits, updated = model.apply(variables | {"params": params}, video, train=True, mutable=["batch_stats"])
        return -jnp.sum(weight[:, None] * targets * jax.nn.log_softmax(logits)), (logits, updated["batch_stats"])

    return jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])


def test_step_is_gradient_descent_on_the_smoothed_loss():
    trainer, batch = Trainer(smoothing=0.1), make_batch()
    before = host(trainer.state.params)
    loss, logits, stats, grads = reference(trainer.model, trainer.state, batch, 0.1)
    metrics = trainer.run(batch)
    assert_close(trainer.state.params, jax.tree.map(lambda p, g: p - 0.1 * g, before, grads), rtol=1e-5, atol=1e-6)
    assert_close(trainer.state.batch_stats, stats, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    np.testing.assert_allclose(metrics["top1"], np.mean(logits.argmax(1) == batch["label"]), rtol=1e-6)
    np.testing.assert_array_equal(metrics["id"], batch["id"])
    assert metrics["id"].dtype == np.int32
    assert metrics["num_valid"] == 8
    assert metrics["finite"]
    assert int(trainer.state.step) == 1


def test_training_learns_a_batch_by_heart():
    trainer, batch = Trainer(), make_batch()
    losses = [float(trainer.run(batch)["loss"]) for _ in range(100)]
    assert losses[-1] < 0.3 < 0.9 < losses[0]


def test_grad_norm_is_that_of_before_clipping():
    plain, clipped = Trainer(), Trainer(clip_norm=1e-3)
    before = host(clipped.state.params)
    norms = [float(trainer.run(make_batch())["grad_norm"]) for trainer in (plain, clipped)]
    assert norms[0] == pytest.approx(norms[1])
    assert norms[0] > 1e-3
    moved = jax.tree.map(lambda a, b: a - b, before, host(clipped.state.params))
    assert float(optax.global_norm(moved)) == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_learning_rate_of_the_metrics_is_the_one_that_was_used():
    trainer = Trainer(schedule=ScheduleConfig("cosine", warmup_epochs=0.5))
    seen, moved = [], []
    for seed in range(4):
        before, (*_, grads) = (
            host(trainer.state.params),
            reference(trainer.model, trainer.state, make_batch(seed=seed), 0.0),
        )
        seen.append(float(trainer.run(make_batch(seed=seed))["learning_rate"]))
        after = host(trainer.state.params)
        moved.append(float((before["head"]["bias"] - after["head"]["bias"])[0] / grads["head"]["bias"][0]))
    assert seen == pytest.approx([float(trainer.schedule(step)) for step in range(4)])
    assert seen[0] == pytest.approx(0.05)
    assert moved == pytest.approx(seen, rel=1e-2)


def test_ema_follows_the_parameters_after_each_update():
    trainer = Trainer(**FULL)
    ema = host(trainer.state.params)
    for seed in range(3):
        trainer.run(make_batch(seed=seed))
        ema = jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, ema, host(trainer.state.params))
    assert_close(trainer.state.ema_params, ema, rtol=1e-5, atol=1e-7)


def test_an_optimizer_that_knows_no_step_works_too():
    ours, theirs = Trainer(), Trainer(optimizer=optax.sgd(0.1))
    ours.run(make_batch())
    theirs.run(make_batch())
    assert_close(ours.state.params, theirs.state.params, rtol=1e-6)


# Sharding, tracing, donation


def test_eight_devices_train_as_one():
    one, eight = (Trainer(**FULL, devices=devices) for devices in (1, 8))
    for seed in range(4):
        batch = make_batch(8, seed=seed, invalid=(3, 6) if seed == 2 else ())
        a, b = one.run(batch), eight.run(batch)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert len(eight.state.params["head"]["kernel"].sharding.device_set) == 8
    assert_close(eight.state.batch_stats, one.state.batch_stats, rtol=1e-5, atol=1e-6)
    assert_close(eight.state.params, one.state.params, rtol=1e-4, atol=1e-6)
    assert_close(eight.state.ema_params, one.state.ema_params, rtol=1e-4, atol=1e-6)


def test_statistics_are_of_the_whole_batch_not_of_a_device():
    trainer, batch = Trainer(**FULL, devices=8), make_batch()
    # Every device's single clip is constant: its own variance after centring would be 0, that of the batch is not.
    batch["video"][:] = np.arange(0, 240, 30, dtype=np.uint8)[:, None, None, None, None]
    *_, stats, _ = reference(trainer.model, trainer.state, batch, 0.0)
    trainer.run(batch)
    assert_close(trainer.state.batch_stats, stats, rtol=1e-5, atol=1e-6)
    changed = (np.asarray(trainer.state.batch_stats["stage1"]["norm"]["var"]) - 0.9) / 0.1
    assert changed.min() > 1e-3


def test_metrics_and_state_are_replicated_and_the_batch_is_split():
    trainer = Trainer(**FULL, devices=8)
    batch = put(make_batch(), trainer.mesh)
    state, metrics = trainer.step(trainer.state, batch)
    assert not batch["video"].sharding.is_fully_replicated
    for leaf in jax.tree.leaves((state, metrics)):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.sharding.device_set) == 8


def test_one_trace_per_shape():
    trainer = Trainer(devices=2)  # a recipe that no other test has: the counter starts at 0
    assert trainer.step.num_traces == 0
    for seed in range(3):
        trainer.run(make_batch(seed=seed))
    assert trainer.step.num_traces == 1
    trainer.run(make_batch(4))
    trainer.run(make_batch(8, seed=5, invalid=(1,)))
    assert trainer.step.num_traces == 2


@pytest.mark.parametrize("devices", [1, 8])
def test_the_state_is_donated_and_the_batch_is_not(devices):
    trainer = Trainer(**FULL, devices=devices)
    before, batch = trainer.state, put(make_batch(), trainer.mesh)
    trainer.state, _ = trainer.step(before, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(batch))
    with pytest.raises(ValueError, match="received one that was donated"):
        trainer.step(before, batch)


# Rows that are not valid


def test_invalid_rows_have_no_influence_at_all():
    batch = make_batch(invalid=(0, 5))
    other = {name: value.copy() for name, value in batch.items()}
    other["video"][[0, 5]] = 255
    other["label"][[0, 5]] = (-1, 2)
    a, b = Trainer(**FULL, devices=8), Trainer(**FULL, devices=8)
    assert_same(a.run(batch), b.run(other))
    assert_same(learned(a.state), learned(b.state))


def test_invalid_rows_look_like_the_first_valid_one():
    batch = make_batch(invalid=(0, 1, 6))
    filled = {name: value.copy() for name, value in batch.items()}
    filled["video"][[0, 1, 6]] = filled["video"][2]
    trainer = Trainer()
    before = host(trainer.state.params)
    loss, logits, stats, grads = reference(trainer.model, trainer.state, filled, 0.0)
    metrics = trainer.run(batch)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    valid = batch["mask"]
    np.testing.assert_allclose(metrics["top1"], np.mean((logits.argmax(1) == batch["label"])[valid]), rtol=1e-6)
    assert metrics["num_valid"] == 5
    np.testing.assert_array_equal(metrics["id"], batch["id"])
    assert_close(trainer.state.batch_stats, stats, rtol=1e-5, atol=1e-7)
    assert_close(trainer.state.params, jax.tree.map(lambda p, g: p - 0.1 * g, before, grads), rtol=1e-5, atol=1e-6)


def test_a_batch_without_a_valid_row_changes_nothing_but_the_step():
    trainer = Trainer(**FULL, devices=8)
    trainer.run(make_batch())
    before = learned(trainer.state)
    metrics = trainer.run(make_batch(invalid=range(8)))
    assert metrics["loss"] == 0
    assert metrics["top1"] == 0
    assert metrics["num_valid"] == 0
    assert metrics["finite"]
    assert_same(learned(trainer.state), before)
    assert int(trainer.state.step) == 2


# Numbers that are not finite


class Fragile(nn.Module):
    """Its loss is finite at the start, its gradient is not: the derivative of the square root at 0."""

    @nn.compact
    def __call__(self, video, train):
        w = self.param("w", nn.initializers.zeros, (K,))
        mean = nn.BatchNorm(use_running_average=not train, name="norm")(video.mean(axis=(1, 2, 3)))
        return jnp.sqrt(w) + mean


def test_a_finite_loss_with_an_infinite_gradient_leaves_the_state_alone():
    trainer = Trainer(Fragile(), ema_decay=0.5, momentum=0.9)
    before = learned(trainer.state)
    metrics = trainer.run(make_batch())
    assert np.isfinite(metrics["loss"])
    assert not metrics["finite"]
    assert_same(learned(trainer.state), before)
    assert int(trainer.state.step) == 1


@pytest.mark.parametrize("devices", [1, 8])
def test_a_loss_that_is_not_finite_leaves_the_state_alone(devices):
    trainer = Trainer(**FULL, devices=devices)
    params = host(trainer.state.params)
    params["head"]["bias"][1] = np.nan
    trainer.state = trainer.state.replace(params=replicate(params, trainer.mesh))
    before = learned(trainer.state)
    metrics = trainer.run(make_batch())
    assert not np.isfinite(metrics["loss"])
    assert not metrics["finite"]
    np.testing.assert_array_equal(metrics["id"], make_batch()["id"])
    assert_same(learned(trainer.state), before)


class Overflowing(nn.Module):
    """Its activations overflow in BatchNorm's variance only, which hides them from the loss."""

    @nn.compact
    def __call__(self, video, train):
        x = 1e25 * video.mean(axis=(1, 2, 3))
        x = nn.BatchNorm(use_running_average=not train, use_fast_variance=False, name="norm")(x)
        return nn.Dense(K)(x)


def test_statistics_that_are_not_finite_are_noticed():
    trainer = Trainer(Overflowing())
    before = learned(trainer.state)
    assert not trainer.run(make_batch())["finite"]
    assert_same(learned(trainer.state), before)


# Randomness


def test_dropout_is_a_function_of_the_seed_and_the_step():
    def loss(seed, step):
        trainer = Trainer(**FULL)
        key, count = replicate((jax.random.key(seed), jnp.int32(step)), trainer.mesh)
        trainer.state = trainer.state.replace(key=key, step=count)
        return float(trainer.run(make_batch())["loss"])

    losses = [loss(seed, step) for seed in (0, 1) for step in (0, 1)]
    assert len(set(losses)) == 4
    assert losses == [loss(seed, step) for seed in (0, 1) for step in (0, 1)]


def test_a_state_taken_up_again_goes_on_bit_for_bit():
    whole, first, second = (Trainer(**FULL) for _ in range(3))
    expected = [whole.run(make_batch(seed=seed)) for seed in range(4)]
    for seed in range(2):
        first.run(make_batch(seed=seed))
    second.state = replicate(first.state, second.mesh)
    for seed in (2, 3):
        assert_same(second.run(make_batch(seed=seed)), expected[seed])
    assert_same(learned(second.state), learned(whole.state))


# Gates, dtypes


def test_gates_are_reported_by_path_with_their_mean():
    trainer, batch = Trainer(), make_batch()
    _, updated = trainer.model.apply(
        {"params": trainer.state.params, "batch_stats": trainer.state.batch_stats},
        normalize_video(batch["video"], MEAN, STD),
        train=True,
        mutable=["gates", "batch_stats"],
    )
    expected = {f"gate/{name}": float(updated["gates"][name]["open_fraction"][0]) for name in ("stage1", "stage2")}
    metrics = trainer.run(batch)
    received = {name: float(value) for name, value in metrics.items() if name.startswith("gate/")}
    assert received == pytest.approx(expected | {"gate/mean": sum(expected.values()) / 2})
    assert 0 < received["gate/mean"] < 1


class Twice(nn.Module):
    """Sows with Flax's default reduction: a tuple with one value for each call."""

    @nn.compact
    def __call__(self, video):
        for value in (0.5, 1.0):
            self.sow("gates", "open_fraction", jnp.float32(value))
        return nn.Dense(K)(video.mean(axis=(1, 2, 3)))


class Gated(nn.Module):
    """The library's gate, which sows a scalar, and one frame, at which it is always open."""

    @nn.compact
    def __call__(self, video, train):
        return Twice(name="twice")(SRTG(num_layers=1, gate="cyclic", name="srtg")(video[:, :1]))


def test_a_gate_may_sow_a_scalar_or_several_values():
    metrics = Trainer(Gated()).run(make_batch())
    assert {name: float(value) for name, value in metrics.items() if name.startswith("gate")} == {
        "gate/srtg": 1.0,
        "gate/twice": 0.75,
        "gate/mean": 0.875,
    }


def test_a_model_without_gates_and_statistics_trains_and_reports_none():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, video, train):
            return nn.Dense(K)(video.mean(axis=(1, 2, 3)))

    trainer = Trainer(Plain())
    losses = [trainer.run(make_batch()) for _ in range(5)]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert not [name for name in losses[0] if name.startswith("gate")]
    assert trainer.state.batch_stats == {}


def test_bfloat16_is_for_activations_only():
    trainer = Trainer(Net(dtype="bfloat16"), name="adamw", ema_decay=0.9)
    metrics = trainer.run(make_batch())
    floats = [leaf for leaf in jax.tree.leaves(learned(trainer.state)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {np.dtype("float32")}
    for metric in ("loss", "top1", "grad_norm", "learning_rate", "gate/mean"):
        assert metrics[metric].dtype == np.float32, metric
    logits = make_apply(trainer.model, mean=MEAN, std=STD)(
        {"params": trainer.state.params, "batch_stats": trainer.state.batch_stats}, make_batch()["video"]
    )
    assert logits.dtype == jnp.float32
    exact = Trainer().run(make_batch())
    np.testing.assert_allclose(metrics["loss"], exact["loss"], rtol=3e-2)
    assert metrics["loss"] != exact["loss"]


# Evaluation


def test_apply_is_the_model_in_evaluation_mode_on_normalised_pixels():
    trainer, batch = Trainer(**FULL), make_batch()
    trainer.run(batch)
    variables = {"params": trainer.state.params, "batch_stats": trainer.state.batch_stats}
    logits = make_apply(trainer.model, mean=MEAN, std=STD)(variables, batch["video"])
    video = (batch["video"].astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    expected = trainer.model.apply(variables, video, train=False)
    assert logits.shape == (8, K)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    # A clip's logits do not depend on its neighbours.
    alone = make_apply(trainer.model, mean=MEAN, std=STD)(variables, batch["video"][:1])
    np.testing.assert_allclose(alone, logits[:1], rtol=1e-5, atol=1e-6)


def test_a_network_of_bgr_is_given_the_channels_reversed():
    trainer, batch = Trainer(**FULL), make_batch()
    trainer.run(batch)
    variables = {"params": trainer.state.params, "batch_stats": trainer.state.batch_stats}
    apply = make_apply(trainer.model, mean=MEAN, std=STD)
    reverse = make_apply(trainer.model, mean=MEAN, std=STD, color="BGR")
    np.testing.assert_array_equal(reverse(variables, batch["video"][..., ::-1]), apply(variables, batch["video"]))
    assert apply != reverse
    with pytest.raises(ValueError, match=r"color must be one of RGB, BGR, received color='rgb'"):
        make_apply(trainer.model, mean=MEAN, std=STD, color="rgb")


def test_the_step_trains_on_bgr():
    rgb, bgr, batch = Trainer(), Trainer(color="BGR"), make_batch()
    expected, received = rgb.run(batch), bgr.run(batch | {"video": batch["video"][..., ::-1]})
    assert received["loss"] == expected["loss"]
    assert received["grad_norm"] == expected["grad_norm"]


def test_apply_evaluates_the_average_when_given_it():
    trainer = Trainer(**FULL)
    trainer.run(make_batch())
    apply, video = make_apply(trainer.model, mean=MEAN, std=STD), make_batch()["video"]
    live, average = (
        apply({"params": params, "batch_stats": trainer.state.batch_stats}, video)
        for params in (trainer.state.params, trainer.state.ema_params)
    )
    assert float(jnp.abs(live - average).max()) > 1e-3


def test_equal_applies_are_equal_and_share_their_program():
    traces = []

    class Counting(nn.Module):
        @nn.compact
        def __call__(self, video, train):
            traces.append(video.shape)
            return nn.Dense(K)(video.mean(axis=(1, 2, 3)))

    first, second = (make_apply(Counting(), mean=list(MEAN), std=STD) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != make_apply(Counting(), mean=MEAN, std=(1.0, 1.0, 1.0))
    variables = Counting().init(jax.random.key(0), jnp.zeros((1, *CLIP, 3)), train=False)
    traces.clear()
    for apply in (first, second):
        apply(variables, make_batch()["video"])
    assert len(traces) == 1


def test_apply_serves_an_evaluation_over_devices():
    trainer = Trainer(**FULL, devices=8)
    trainer.run(make_batch())
    variables = {"params": trainer.state.params, "batch_stats": trainer.state.batch_stats}
    apply = make_apply(trainer.model, mean=MEAN, std=STD)
    batch = make_batch()
    views = np.stack([batch["video"], batch["video"][:, ::-1]], axis=1)
    ids = np.arange(8, dtype=np.int32)
    batches = [
        {"video": views, "label": batch["label"], "id": ids, "mask": batch["mask"]},
    ]
    predictions = evaluation.evaluate(
        apply, variables, batches, num_classes=K, put=lambda rows: put(rows, trainer.mesh)
    )
    np.testing.assert_allclose(predictions.logits[:, 0], apply(variables, views[:, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predictions.logits[:, 1], apply(variables, views[:, 1]), rtol=1e-5, atol=1e-6)


# A network of the library


RESNET = models.build("srtg_r3d_18", K, width=4, gate="cyclic", gate_gradient="straight_through", dropout=0.2)


@pytest.mark.slow
def test_a_gated_resnet_trains_alike_on_one_and_eight_devices():
    one, eight = (Trainer(RESNET, devices=devices, momentum=0.9, weight_decay=0.01) for devices in (1, 8))
    for seed in range(2):
        a, b = one.run(make_batch(seed=seed)), eight.run(make_batch(seed=seed))
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(b[name], a[name], rtol=2e-4, atol=2e-5, err_msg=name)
    assert_close(eight.state.batch_stats, one.state.batch_stats, rtol=1e-3, atol=1e-4)
    assert_close(eight.state.params, one.state.params, rtol=1e-3, atol=1e-4)
    gates = {name for name in a if name.startswith("gate/")}
    assert len(gates) == 8 + 1  # one for each residual block, and their mean
    assert all(0 <= a[name] <= 1 for name in gates)


def test_decay_of_a_gated_resnet_acts_on_kernels_only():
    init = functools.partial(RESNET.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, *CLIP, 3)))["params"]
    decays = {"/".join(path) for path, yes in flatten_dict(decay_mask(shapes)).items() if yes}
    names = {path.rsplit("/", 1)[-1] for path in decays}
    assert names == {"kernel", "input_kernel_0", "input_kernel_1", "recurrent_kernel_0", "recurrent_kernel_1"}
    assert {"stem", "head"} <= {path.split("/")[0] for path in decays}


# Errors


@pytest.mark.parametrize(("name", "value"), [("label_smoothing", 1.0), ("label_smoothing", -0.1), ("ema_decay", 1.0)])
def test_ranges(name, value):
    numbers = {"label_smoothing": 0.0, "ema_decay": 0.0} | {name: value}
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\), received {name}={value}"):
        make_train_step(
            Net(),
            optax.sgd(0.1),
            optax.constant_schedule(0.1),
            mean=MEAN,
            std=STD,
            mesh=make_mesh((("data", 1),)),
            **numbers,
        )


def test_wrong_videos():
    trainer, batch = Trainer(), make_batch()
    with pytest.raises(ValueError, match=r"video must be uint8\[N T H W 3\], received shape \(8, 1, 2, 6, 6, 3\)"):
        trainer.run(batch | {"video": batch["video"][:, None]})
    with pytest.raises(ValueError, match="video must be uint8"):
        trainer.run(batch | {"video": batch["video"].astype(np.float32)})


def test_an_average_needs_a_place_in_the_state():
    trainer = Trainer(**FULL)
    trainer.state = trainer.state.replace(ema_params=None)
    with pytest.raises(ValueError, match="ema_decay > 0 needs a state with ema_params"):
        trainer.run(make_batch())


class Several(nn.Module):
    """Two networks in one, a term of its own in the loss, and an oracle that adds the label to one's logits."""

    oracle: bool = True

    @nn.compact
    def __call__(self, video, train):
        x = video.mean(axis=(1, 2, 3))
        first, second = nn.Dense(K, name="head")(x), nn.Dense(K, name="other")(x)
        if not self.is_initializing():
            label = self.get_variable("given", "label")
            second = second + 2 * jax.nn.one_hot(label, K)
            self.sow("side", "first/logits", first, init_fn=lambda: 0.0, reduce_fn=lambda _, new: new)
            self.sow("side", "second/logits", second, init_fn=lambda: 0.0, reduce_fn=lambda _, new: new)
            self.sow("losses", "size", 0.5 * (x**2).mean(), init_fn=lambda: 0.0, reduce_fn=lambda _, new: new)
        return first + second


def test_the_loss_is_the_sum_of_its_terms():
    """Of each network's cross-entropy and of what is sown, all of the valid rows' labels; the sum is the gradient's."""
    trainer = Trainer(Several(), smoothing=0.1)
    batch = make_batch(invalid=(2,))
    state = trainer.state
    pixels = normalize_video(jnp.asarray(batch["video"]).at[2].set(batch["video"][0]), MEAN, STD)
    label, mask = batch["label"], batch["mask"]

    def expected(params):
        variables = {"params": params, "given": {"label": label}}
        _, sown = Several().apply(variables, pixels, train=True, mutable=["side", "losses"])
        cross = [
            masked_cross_entropy(sown["side"][f"{name}/logits"], label, mask, label_smoothing=0.1)
            for name in ("first", "second")
        ]
        return cross[0] + cross[1] + sown["losses"]["size"], (*cross, sown["losses"]["size"])

    (total, terms), gradients = jax.value_and_grad(expected, has_aux=True)(state.params)
    metrics = trainer.run(batch)
    for name, value in zip(("loss/first", "loss/second", "loss/size"), terms, strict=True):
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.global_norm(gradients)), rel=1e-5)


def test_what_is_said_beside_the_logits_comes_with_them():
    """An apply function says logits alone; with its side, the same logits and the rest, and an oracle asks."""
    apply = make_apply(Several(), mean=MEAN, std=STD)
    batch = make_batch()
    variables = {"params": Trainer(Several()).state.params, "given": {"label": batch["label"]}}
    logits, side = apply.with_side()(variables, batch["video"])
    assert set(side) == {"first/logits", "second/logits"}
    np.testing.assert_array_equal(logits, apply(variables, batch["video"]))
    np.testing.assert_allclose(side["first/logits"] + side["second/logits"], logits, rtol=1e-6)
    assert apply.with_side().takes_labels
    assert not make_apply(Net(), mean=MEAN, std=STD).with_side().takes_labels
