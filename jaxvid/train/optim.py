"""Learning-rate schedule and optimiser from their configs.

A schedule is ``step -> rate`` with ``step`` counted from 0 over the whole run. The optimiser keeps no counter of its
own for it: it is told the step (``optimizer.update(grads, opt_state, params, step=state.step)``), so the rate, the
data position and the log line of a step can never drift apart.
"""

from __future__ import annotations

import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from jaxvid.config import OptimizerConfig, ScheduleConfig

B1, B2, EPSILON = 0.9, 0.999, 1e-8  # Kingma & Ba 2015, algorithm 1


def make_schedule(
    schedule: ScheduleConfig,
    optimizer: OptimizerConfig,
    *,
    batch_size: int,
    steps_per_epoch: float,
    total_steps: int,
) -> optax.Schedule:
    """The learning rate of every step of a run.

    ``rate(step) = peak * warmup(step) * shape(step)``, where

    * ``peak`` is ``learning_rate``, times ``batch_size / base_batch_size`` when a base batch size is given (the linear
      scaling rule; Goyal et al. 2017, section 2.1).
    * ``warmup = min(1, (step + 1) / W)`` over ``W = warmup_epochs * steps_per_epoch`` steps (same paper, section 2.2).
      The first step is not wasted on a rate of 0.
    * ``shape`` is 1 (``constant``); ``factor`` to the number of ``boundaries`` (epochs) that ``step`` has reached
      (``step``); or ``f + (1 - f) (1 + cos(pi p)) / 2`` with ``f = final_fraction`` and ``p`` running from 0 at the end
      of the warm-up to 1 at ``total_steps``, one past the last step (``cosine``; Loshchilov & Hutter 2017, eq. 5).

    Args:
      schedule: the shape.
      optimizer: holds the rate and the base batch size.
      batch_size: clips per step, over all devices and hosts.
      steps_per_epoch: steps that one pass over the data takes; need not be whole.
      total_steps: steps of the whole run.

    Returns:
      ``step -> float32[]``; ``step`` may be an int or a traced array.

    Raises:
      ValueError: a count is not positive or the schedule's name is unknown.

    >>> cosine = make_schedule(
    ...     ScheduleConfig("cosine"), OptimizerConfig(learning_rate=0.5), batch_size=8, steps_per_epoch=2, total_steps=4
    ... )
    >>> [round(float(cosine(step)), 3) for step in range(5)]
    [0.5, 0.427, 0.25, 0.073, 0.0]
    """
    if schedule.name not in ("constant", "step", "cosine"):
        raise ValueError(f"schedule.name must be 'constant', 'step' or 'cosine', received {schedule.name!r}.")
    for name, value in {
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch,
        "total_steps": total_steps,
    }.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, received {name}={value}.")
    scale = batch_size / optimizer.base_batch_size if optimizer.base_batch_size else 1.0
    peak = optimizer.learning_rate * scale
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    # An epoch's end seldom falls on a whole step; the tolerance keeps 3 * (1/3) from being the step after.
    drops = [math.ceil(epoch * steps_per_epoch - 1e-6) for epoch in schedule.boundaries]

    def shape(step: jax.Array) -> jax.Array:
        if schedule.name == "step":
            passed = sum((step >= drop).astype(jnp.float32) for drop in drops)
            return jnp.float32(schedule.factor) ** passed
        progress = jnp.clip((step - warmup_steps) / max(total_steps - warmup_steps, 1.0), 0.0, 1.0)
        falling = jnp.cos(0.5 * jnp.pi * progress) ** 2  # (1 + cos(pi p)) / 2, without its cancellation near the end
        return schedule.final_fraction + (1.0 - schedule.final_fraction) * falling

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(count)
        warmup = jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1.0))
        return jnp.float32(peak) * warmup * (1.0 if schedule.name == "constant" else shape(step))

    return rate


def make_optimizer(optimizer: OptimizerConfig, schedule_fn: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """The optimiser as one optax chain: clip, decay, momentum or Adam, rate.

    * ``sgd``: ``g += weight_decay * w;  v = momentum * v + g;  w -= rate * v``, with Nesterov's variant
      ``w -= rate * (g + momentum * v)``. This is ``torch.optim.SGD``: decay is an L2 term of the gradient and the rate
      is outside the velocity.
    * ``adamw``: ``w -= rate * (m / (sqrt(v) + eps) + weight_decay * w)`` with bias-corrected moments, decay decoupled
      (Loshchilov & Hutter 2019, algorithm 2), which is ``torch.optim.AdamW``.

    Gradients are clipped to ``clip_norm`` by their global norm before decay is added. Only the parameters that
    :func:`decay_mask` marks are decayed. Moments have the dtype of the parameters, float32.

    Args:
      optimizer: the config.
      schedule_fn: ``step -> rate``.

    Returns:
      A transformation whose ``update`` needs ``params`` and the keyword ``step``, the number of steps before this one.

    Raises:
      ValueError: the optimiser's name is unknown.
    """
    decay = optax.add_decayed_weights(optimizer.weight_decay, mask=decay_mask)
    if optimizer.name == "sgd":
        momentum = [optax.trace(optimizer.momentum, nesterov=optimizer.nesterov)] if optimizer.momentum else []
        rule = [decay, *momentum]
    elif optimizer.name == "adamw":
        rule = [optax.scale_by_adam(B1, B2, EPSILON), decay]
    else:
        raise ValueError(f"optimizer.name must be 'sgd' or 'adamw', received {optimizer.name!r}.")
    clip = [optax.clip_by_global_norm(optimizer.clip_norm)] if optimizer.clip_norm else []
    return optax.with_extra_args_support(optax.chain(*clip, *rule, _descend(schedule_fn)))


def decay_mask(params: Any) -> Any:
    """True for the parameters that weight decay acts on: matrices and convolution kernels.

    Not decayed are normalisation scales, every bias (those of recurrent cells too, stacked over gates or not) and
    whatever else has fewer than two axes.

    >>> import jax.numpy as jnp
    >>> decay_mask({"conv": {"kernel": jnp.ones((1, 3, 3, 3, 8))}, "norm": {"scale": jnp.ones(8), "bias": jnp.ones(8)}})
    {'conv': {'kernel': True}, 'norm': {'bias': False, 'scale': False}}
    """
    return jax.tree_util.tree_map_with_path(_decays, params)


def _decays(path: tuple[Any, ...], leaf: jax.Array) -> bool:
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return leaf.ndim >= 2 and "bias" not in name and name != "scale"


def _descend(schedule_fn: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """``updates -> -schedule_fn(step) * updates``, the step given by the caller."""

    def update(
        updates: optax.Updates, state: optax.OptState, params: Any = None, *, step: jax.Array, **extra: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        del params, extra
        rate = jnp.asarray(schedule_fn(step), jnp.float32)
        return jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, cast(Any, update))
