"""The training state: everything of a run that changes from step to step, in one pytree."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxvid.types import Size3


class TrainState(flax.struct.PyTreeNode):
    """What a step takes and returns.

    Attributes:
      step: ``int32[]``, steps taken so far.
      params: float32 parameters.
      batch_stats: float32 running statistics; ``{}`` for a model without any.
      opt_state: the optimiser's state.
      ema_params: exponential moving average of ``params``, in buffers of its own; None when none is kept.
      key: the run's root key (typed). It never changes: a step's key is ``fold_in(key, step)``.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema_params: Any | None
    key: jax.Array


def create_state(
    model: nn.Module, clip_shape: Size3, optimizer: optax.GradientTransformation, *, seed: int, ema: bool
) -> TrainState:
    """The state before the first step, made on the default device by one compiled function.

    Args:
      model: ``model.init(key, video float32[1 T H W 3], train=False)`` makes its variables.
      clip_shape: ``(T, H, W)`` of a training clip.
      optimizer: its state is made for the parameters.
      seed: the root seed of the run.
      ema: whether an exponential moving average of the parameters is kept; it starts as a copy of them.

    Raises:
      ValueError: ``clip_shape`` does not hold three sizes of at least 1.
    """
    if len(clip_shape) != 3 or min(clip_shape) < 1:
        raise ValueError(f"clip_shape must be (T, H, W) with sizes >= 1, received clip_shape={clip_shape}.")

    def create(root: jax.Array) -> TrainState:
        init_key, run_key = jax.random.split(root)
        # Compiled, the forward pass through these zeros is dead code; run eagerly it would cost seconds.
        variables = model.init(init_key, jnp.zeros((1, *clip_shape, 3), jnp.float32), train=False)
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
            # A copy: one buffer in two places of a donated tree is an error.
            ema_params=jax.tree.map(jnp.copy, params) if ema else None,
            key=run_key,
        )

    # It runs once, so on a CPU, where compiling costs more than running, it is compiled without optimisation.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    # The key is an argument, not a constant: every seed shares one compiled program.
    return jax.jit(create, compiler_options=options)(jax.random.key(seed))
