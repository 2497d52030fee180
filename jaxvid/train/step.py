"""The compiled steps: one training update, and the apply function of an evaluation.

Both take uint8 pixels and normalise them on the device. The batch is one global array split over the devices, so the
loss and the BatchNorm statistics are those of the whole batch on any number of devices; the collectives that this
needs come from the shardings.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from jaxvid.ops.choices import require_choice
from jaxvid.ops.normalize import normalize_video
from jaxvid.train import finetune, sharding
from jaxvid.train.state import TrainState
from jaxvid.types import Array, Batch, Variables

Metrics = dict[str, jax.Array]

COLORS = ("RGB", "BGR")


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    label_smoothing: float,
    ema_decay: float,
    mesh: jax.sharding.Mesh,
    color: str = "RGB",
    trainable: Sequence[str] = (),
    beginning: finetune.Beginning | None = None,
) -> TrainStep:
    """The training step ``(state, batch) -> (state, metrics)``, compiled at its first call.

    The loss is the mean over the valid rows (``mask``) of the cross-entropy with the smoothed label
    ``(1 - s) onehot + s / K`` (Szegedy et al. 2016, section 7), in float32. A model that sows logits of several
    networks into ``side`` (names that end with ``/logits``) has the sum of theirs instead of its own, and whatever a
    model sows into ``losses`` is added; the terms are metrics then, ``loss/<name>``.

    A row that is not valid has no weight in ``loss``, ``top1`` and the gradient; and since BatchNorm and gates see
    every row, its pixels are replaced on the device by those of the first valid row. Nothing but ``id`` depends on what
    an invalid row held.

    The update is left out, and all of the state but ``step`` stays as it was, when no row is valid (the loss is
    then 0) or when the loss, a gradient or a batch statistic is not finite (``finite`` is then False).

    Args:
      model: ``model.apply(variables, video float[N T H W 3], train=True, rngs=...) -> [N K]``, with keys for
        ``dropout`` and for ``pool``, the draws of stochastic pooling. It may update ``batch_stats`` and sow
        scalars into ``gates``.
      optimizer: any optax optimiser; told the keyword ``step``, which those that do not know it ignore.
      schedule: ``step -> rate``, for the metrics.
      mean: of the three channels, of pixels in [0, 1].
      std: of the three channels, of pixels in [0, 1].
      label_smoothing: ``s`` in [0, 1).
      ema_decay: ``d`` in [0, 1): ``ema = d ema + (1 - d) params`` after every update; 0 leaves ``ema_params`` alone.
      mesh: from :func:`jaxvid.train.sharding.make_mesh`.
      color: ``"RGB"`` or ``"BGR"``, the order of channels that the network is given, and that of ``mean`` and ``std``.
      trainable: the parts of the network that change, see :mod:`jaxvid.train.finetune`; none means all. The optimizer
        must have come through :func:`jaxvid.train.finetune.only` with the same parts.
      beginning: where the network begins when batches hold ``features0``, … of its frozen first blocks and no
        ``video``, see :mod:`jaxvid.train.features`.

    Raises:
      ValueError: a number is out of its range, or ``color`` is unknown.
    """
    require_choice("color", color, COLORS)
    for name, value in {"label_smoothing": label_smoothing, "ema_decay": ema_decay}.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), received {name}={value}.")
    return TrainStep(
        model=model,
        optimizer=optax.with_extra_args_support(optimizer),
        schedule=schedule,
        mean=tuple(mean),
        std=tuple(std),
        label_smoothing=label_smoothing,
        ema_decay=ema_decay,
        mesh=mesh,
        color=color,
        trainable=tuple(trainable),
        beginning=beginning,
    )


@dataclass(frozen=True, eq=False)
class TrainStep:
    """A compiled training step; made by :func:`make_train_step`, which says what it computes.

    Calling it with a state (from :func:`jaxvid.train.sharding.replicate`) and a batch (from
    :func:`jaxvid.train.sharding.put`) returns the next state and the metrics. The given state is donated: its buffers
    are gone afterwards. The metrics, all replicated, are ``loss``, ``top1`` (of the batch's valid rows), ``grad_norm``
    (before clipping), ``learning_rate``, ``num_valid``, ``finite`` (bool), ``id`` (``int32[N]``, rows in batch order)
    and, for a model with gates, the share of open ones: ``gate/<path of the gate's module>`` and their ``gate/mean``.
    """

    model: nn.Module
    optimizer: optax.GradientTransformationExtraArgs
    schedule: optax.Schedule
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_smoothing: float
    ema_decay: float
    mesh: jax.sharding.Mesh
    color: str = "RGB"
    trainable: tuple[str, ...] = ()
    beginning: finetune.Beginning | None = None

    def __call__(self, state: TrainState, batch: Batch | Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        """One step; see the class.

        Raises:
          ValueError: the state was given to an earlier step, or the batch or the state does not fit.
        """
        # Left to XLA, a donated buffer on several simulated devices ends the process without an exception.
        if state.step.is_deleted():
            raise ValueError("state must be the one that the last step returned, received one that was donated to it.")
        return self._compiled(state, dict(batch))

    def lower(self, state: TrainState, batch: Mapping[str, Any]) -> jax.stages.Lowered:
        """The step for arguments of these shapes, traced and not yet compiled; ``jax.ShapeDtypeStruct`` will do."""
        return self._compiled.lower(state, dict(batch))

    @property
    def num_traces(self) -> int:
        """How often the step was traced: once for each shape of a batch, or something is wrong."""
        return len(self._traced)

    @functools.cached_property
    def _traced(self) -> list[tuple[int, ...]]:
        return []

    @functools.cached_property
    def _compiled(self) -> Any:
        whole = sharding.everywhere(self.mesh)
        return jax.jit(
            self._step,
            in_shardings=(whole, sharding.over_data(self.mesh)),
            out_shardings=whole,
            donate_argnums=0,
        )

    def _step(self, state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, Metrics]:
        self._traced.append(batch["label"].shape)  # runs while tracing only
        _check(state, self.ema_decay)
        mask, num_valid = batch["mask"], jnp.sum(batch["mask"], dtype=jnp.int32)
        key = jax.random.fold_in(state.key, state.step)
        trained, frozen = finetune.split(state.params, self.trainable)

        def loss_fn(trained: Any) -> tuple[jax.Array, tuple[jax.Array, Mapping[str, Any], Metrics]]:
            variables = {"params": finetune.join(trained, frozen), "batch_stats": state.batch_stats}
            if takes_labels(self.model):
                variables["given"] = {"label": batch["label"]}
            with finetune.frozen_as_in_evaluation(self.trainable), self._input(batch) as video:
                logits, updated = self.model.apply(
                    variables,
                    video,
                    train=True,
                    rngs={"dropout": key, "pool": key},  # no module draws from both
                    mutable=["batch_stats", "gates", "side", "losses"],
                )
            terms = self._loss_terms(logits, updated, batch)
            return sum(terms.values(), jnp.zeros(())), (logits, updated, terms)

        (loss, (logits, updated, terms)), grads = jax.value_and_grad(loss_fn, has_aux=True)(trained)
        batch_stats = updated.get("batch_stats", state.batch_stats)
        finite = _all_finite((loss, grads, batch_stats))
        zeros = jax.tree.map(jnp.zeros_like, frozen)  # which the optimizer does not look at
        following = jax.lax.cond(  # a branch, where a choice leaf by leaf would copy what the donated state held
            finite & (num_valid > 0),
            lambda state: self._update(state, finetune.join(grads, zeros)).replace(batch_stats=batch_stats),
            lambda state: state,
            state,
        ).replace(step=state.step + 1)
        right = mask & (jnp.argmax(logits, axis=-1) == batch["label"])
        metrics = {
            "loss": loss,
            "top1": jnp.sum(right, dtype=jnp.float32) / jnp.maximum(num_valid, 1),
            "grad_norm": optax.global_norm(grads),
            "learning_rate": jnp.asarray(self.schedule(state.step), jnp.float32),
            "num_valid": num_valid,
            "finite": finite,
            "id": batch["id"],
            **({f"loss/{name}": value for name, value in terms.items()} if len(terms) > 1 else {}),
            **_gate_metrics(updated.get("gates", {}), self.beginning),
        }
        return following, metrics

    def _loss_terms(self, logits: jax.Array, updated: Mapping[str, Any], batch: Mapping[str, Array]) -> Metrics:
        """What the loss is the sum of, by name."""
        own = {
            name.removesuffix("/logits"): value
            for name, value in side_outputs(updated).items()
            if name.endswith("/logits")
        }
        cross_entropy = functools.partial(
            masked_cross_entropy, label=batch["label"], mask=batch["mask"], label_smoothing=self.label_smoothing
        )
        terms = {name: cross_entropy(value) for name, value in (own or {"logits": logits}).items()}
        return terms | _sown(updated, "losses")

    @contextlib.contextmanager
    def _input(self, batch: Mapping[str, Array]) -> Iterator[jax.Array]:
        """The normalised video; within it, where features are kept, the network begins behind their block."""
        mask = batch["mask"]
        if self.beginning is not None:
            features = {name: _fill_invalid(rows, mask) for name, rows in batch.items() if name.startswith("features")}
            with self.beginning.outputs(features) as nothing:
                yield nothing
            return
        _check_video(batch["video"])
        pixels = _fill_invalid(batch["video"], mask)
        yield normalize_video(pixels, self.mean, self.std, reverse=self.color == "BGR")

    def _update(self, state: TrainState, grads: Any) -> TrainState:
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params, step=state.step)
        params = optax.apply_updates(state.params, updates)
        ema_params = state.ema_params
        if self.ema_decay and ema_params is not None:
            # Of what changes only: in float32 the average of equal numbers is not quite that number.
            trained, _ = finetune.split(params, self.trainable)
            averaged, frozen = finetune.split(ema_params, self.trainable)
            averaged = optax.incremental_update(trained, averaged, step_size=1.0 - self.ema_decay)
            ema_params = finetune.join(averaged, frozen)
        return state.replace(params=params, opt_state=opt_state, ema_params=ema_params)


def masked_cross_entropy(logits: Array, label: Array, mask: Array, *, label_smoothing: float = 0.0) -> jax.Array:
    """The mean over the rows with ``mask`` of the softmax cross-entropy with smoothed labels, in float32.

    Args:
      logits: ``float[N K]``.
      label: ``int32[N]``; the value of a masked row does not matter.
      mask: ``bool[N]``.
      label_smoothing: share of the label that is spread over all ``K`` classes.

    Returns:
      ``float32[]``; 0 when no row has ``mask``.

    >>> import jax.numpy as jnp
    >>> logits = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
    >>> round(float(masked_cross_entropy(logits, jnp.array([0, 0]), jnp.array([True, False]))), 4)  # -log 0.25
    1.3863
    """
    targets = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1], dtype=jnp.float32), label_smoothing)
    losses = optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)
    return jnp.sum(jnp.where(mask, losses, 0.0)) / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)


@dataclass(frozen=True)
class EvaluationApply:
    """``(variables, video uint8[N T H W 3]) -> logits float32[N K]``; equal ones share their compiled programs."""

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: str = "RGB"

    def __call__(self, variables: Variables, video: Array) -> jax.Array:
        """The logits in evaluation mode, normalisation included."""
        return _apply(dict(variables), video, evaluation=self)[0]

    def with_side(self) -> SideApply:
        """The same network, and what it says beside its logits."""
        return SideApply(self)


@dataclass(frozen=True)
class SideApply:
    """``(variables, video) -> (logits, side)``; ``side`` is what the model sows into the collection ``side``.

    That is ``{path: [N ...]}``, the path of the module and the name joined by slashes; most networks sow nothing.
    """

    apply: EvaluationApply

    @property
    def takes_labels(self) -> bool:
        """Whether the variables must hold ``{"given": {"label": int32[N]}}``: an oracle's must."""
        return takes_labels(self.apply.model)

    def __call__(self, variables: Variables, video: Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The logits in evaluation mode, normalisation included, and the rest."""
        return _apply(dict(variables), video, evaluation=self.apply)


def make_apply(model: nn.Module, *, mean: Sequence[float], std: Sequence[float], color: str = "RGB") -> EvaluationApply:
    """The model as evaluations, explanations and predictions see it: pixels in, logits out, compiled.

    Args:
      model: ``model.apply(variables, video float32[N T H W 3], train=False) -> [N K]``.
      mean: of the three channels, of pixels in [0, 1].
      std: of the three channels, of pixels in [0, 1].
      color: ``"RGB"`` or ``"BGR"``, the order of channels that the network is given, and that of ``mean`` and ``std``.

    Returns:
      ``apply(variables, video)``; give it ``{"params": state.ema_params, "batch_stats": ...}`` to evaluate the average.
    """
    require_choice("color", color, COLORS)
    return EvaluationApply(model, tuple(mean), tuple(std), color)


@functools.partial(jax.jit, static_argnames=("evaluation",))
def _apply(
    variables: dict[str, Any], video: jax.Array, *, evaluation: EvaluationApply
) -> tuple[jax.Array, dict[str, jax.Array]]:
    model, reverse = evaluation.model, evaluation.color == "BGR"
    normalised = normalize_video(video, evaluation.mean, evaluation.std, reverse=reverse)
    logits, sown = model.apply(variables, normalised, train=False, mutable=["side"])
    return cast(jax.Array, logits).astype(jnp.float32), side_outputs(sown)


def side_outputs(sown: Mapping[str, Any]) -> dict[str, jax.Array]:
    """What a model sowed into the collection ``side``, by the path of the module and the name."""
    return _sown(sown, "side")


def _sown(collections: Mapping[str, Any], name: str) -> dict[str, jax.Array]:
    flat = flax.traverse_util.flatten_dict(dict(collections.get(name, {})))
    return {"/".join(path): cast(jax.Array, value) for path, value in flat.items()}


def takes_labels(model: nn.Module) -> bool:
    """Whether a model is given labels too, as ``given/label``: an oracle, see :mod:`jaxvid.models`."""
    return bool(getattr(model, "oracle", False))


def _check(state: TrainState, ema_decay: float) -> None:
    if ema_decay and state.ema_params is None:
        raise ValueError(f"ema_decay > 0 needs a state with ema_params, received ema_decay={ema_decay} without them.")


def _check_video(video: Array) -> None:
    if video.ndim != 5 or video.shape[-1] != 3:
        raise ValueError(f"video must be uint8[N T H W 3], received shape {tuple(video.shape)}.")


def _fill_invalid(video: Array, mask: Array) -> jax.Array:
    """The rows without ``mask`` replaced by the first row that has it; zeros where none has."""
    first = mask & (jnp.cumsum(mask) == 1)
    rows = (-1, *[1] * (video.ndim - 1))
    # A masked sum, not video[first]: the batch is split over devices, and a sum sends one clip between them, where
    # indexing may gather all of them. At most one term is not 0, so any type holds it.
    filler = jnp.sum(jnp.where(first.reshape(rows), video, 0), axis=0, dtype=video.dtype, keepdims=True)
    return jnp.where(mask.reshape(rows), video, filler)


def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def _gate_metrics(gates: Mapping[str, Any], beginning: finetune.Beginning | None) -> Metrics:
    """``gate/<module path>`` for every open fraction sown by a block that runs, and their mean."""
    # A module sows a scalar, or Flax's default tuple with one scalar for each time that it was called.
    metrics = {
        "/".join(("gate", *path[:-1])): jnp.mean(jnp.stack(jax.tree.leaves(sown)).astype(jnp.float32))
        for path, sown in flax.traverse_util.flatten_dict(dict(gates)).items()
        if beginning is None or beginning.runs(path)
    }
    if metrics:
        metrics["gate/mean"] = jnp.mean(jnp.stack(list(metrics.values())))
    return metrics
