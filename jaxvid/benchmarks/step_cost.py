"""What a training step takes, read from its compiled program: memory, code, and the work of compiling it."""

from __future__ import annotations

import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid import models
from jaxvid.benchmarks.timing import describe_machine
from jaxvid.config import OptimizerConfig, ScheduleConfig
from jaxvid.models.cards import NUM_CLASSES
from jaxvid.models.class_regularized import class_regularized
from jaxvid.models.cost import variable_shapes
from jaxvid.models.training_clips import training_clip_of
from jaxvid.train import sharding
from jaxvid.train.compilations import count_compilations
from jaxvid.train.optim import make_optimizer, make_schedule
from jaxvid.train.state import TrainState
from jaxvid.train.step import TrainStep, make_train_step
from jaxvid.types import Size3

BATCH_SIZE = 8
"""Clips on one device; what the public recipes of SlowFast, TSM and TAM give to a GPU."""


def step_cost(
    name: str,
    *,
    clip: Size3 | None = None,
    batch_size: int = BATCH_SIZE,
    dtype: str = "float32",
    remat: bool = False,
    conv: str = "auto",
    optimize: bool = True,
    num_classes: int = NUM_CLASSES,
    regularized: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Compiles a network's training step on the first device, from shapes: nothing is allocated and nothing runs.

    The program is the whole step of ``jaxvid train``: uint8 pixels in, normalisation, forward and backward pass,
    BatchNorm's statistics, SGD with momentum, metrics, the state donated. So ``argument_bytes`` are the batch and the
    state: parameters, one moment for each of them (AdamW keeps two), running statistics. ``temp_bytes`` are everything
    that lives inside the step, the gradients among them. ``peak_bytes`` is all that must be allocated at once:

        peak = argument + output - alias + temp

    where ``alias`` is the part of the output that takes the place of the donated state. Outside are data loading,
    evaluation, and what the backend keeps for itself (a GPU's library handles, the allocator's reserve).

    ``instructions`` counts those of the optimised program, called computations included, and ``code_bytes`` is the
    machine code, null where the backend does not tell (a CPU); both say without a clock how much work the compiler
    had. ``compile_cpu_seconds`` is processor time over all threads, less disturbed by other work on the machine than
    wall time; null where a persistent cache had the program. ``trace_cpu_seconds`` is the time in Python before it.
    ``flops`` and ``bytes_accessed`` are XLA's own analysis of the program, where a loop's body counts once.

    Args:
      name: a name of :data:`jaxvid.models.MODELS`.
      clip: ``(T, H, W)``; by default :func:`jaxvid.models.training_clips.training_clip_of`.
      batch_size: clips, all on this one device.
      dtype: of the activations.
      remat: whether the backward pass computes activations again; a CPU's compiler merges them with the first ones.
      conv: formulation of the convolutions; ``"auto"`` is folded into 2-D ones on a CPU and direct elsewhere.
      optimize: whether machine code is optimised, on a CPU. The program is the same one without, its memory and its
        instructions too, and compiling it takes about half as long.
      num_classes: outputs.
      regularized: whether Class Regularization stands behind the stages.
      **options: of the network, as :func:`jaxvid.models.build` takes them.

    Returns:
      A JSON-able dictionary with the machine in it.

    Raises:
      ValueError: the name or an option is unknown, or a number does not fit.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, received batch_size={batch_size}.")
    clip = training_clip_of(name) if clip is None else clip
    model = models.build(name, num_classes, dtype=dtype, remat=remat, conv=conv, **options)
    if regularized:
        model = class_regularized(name, model)
    step, state, batch = _abstract_step(model, clip, batch_size)
    compilations = count_compilations()
    started, hits = time.process_time(), compilations.cache_hits
    lowered = step.lower(state, batch)
    traced = time.process_time()
    # As in the first state of a run: only a CPU's compiler knows of it.
    plain = not optimize and jax.default_backend() == "cpu"
    compiler_options: Any = {"xla_backend_optimization_level": 0} if plain else None
    compiled = lowered.compile(compiler_options=compiler_options)
    finished = time.process_time()
    return {
        "benchmark": "step_cost",
        **question(
            name,
            clip=clip,
            batch_size=batch_size,
            dtype=dtype,
            remat=remat,
            conv=conv,
            optimize=optimize,
            num_classes=num_classes,
        ),
        **({"class_regularization": True} if regularized else {}),
        "params": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "parameter_bytes": _nbytes(state.params),
        "state_bytes": _nbytes((state.params, state.opt_state, state.batch_stats)),
        **_memory(compiled),
        **_work(compiled),
        "trace_cpu_seconds": traced - started,
        "compile_cpu_seconds": None if compilations.cache_hits > hits else finished - traced,
        **describe_machine(),
    }


def question(
    name: str,
    *,
    clip: Size3 | None = None,
    batch_size: int = BATCH_SIZE,
    dtype: str = "float32",
    remat: bool = False,
    conv: str = "auto",
    optimize: bool = True,
    num_classes: int = NUM_CLASSES,
) -> dict[str, Any]:
    """The part of a line that says what was compiled; the arguments are those of :func:`step_cost`."""
    return {
        "model": name,
        "clip": list(training_clip_of(name) if clip is None else clip),
        "batch_size": batch_size,
        "dtype": dtype,
        "remat": remat,
        "conv": conv,
        "optimize": optimize,
        "num_classes": num_classes,
    }


def _abstract_step(model: Any, clip: Size3, batch_size: int) -> tuple[TrainStep, TrainState, dict[str, Any]]:
    """The step of ``jaxvid train`` on one device, and the shapes of its arguments."""
    config = OptimizerConfig()
    schedule = make_schedule(ScheduleConfig(), config, batch_size=batch_size, steps_per_epoch=1000, total_steps=100_000)
    optimizer = make_optimizer(config, schedule)
    step = make_train_step(
        model,
        optimizer,
        schedule,
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        label_smoothing=0.0,
        ema_decay=0.0,
        mesh=sharding.make_mesh(((sharding.DATA_AXIS, 1),), devices=jax.devices()[:1]),
    )
    variables = variable_shapes(model, clip)
    state = TrainState(
        step=_shape((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=jax.eval_shape(optimizer.init, variables["params"]),
        ema_params=None,
        key=jax.eval_shape(jax.random.key, 0),
    )
    batch = {
        "video": _shape((batch_size, *clip, 3), jnp.uint8),
        "label": _shape((batch_size,), jnp.int32),
        "id": _shape((batch_size,), jnp.int32),
        "mask": _shape((batch_size,), jnp.bool_),
    }
    return step, state, batch


def _shape(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _memory(compiled: jax.stages.Compiled) -> dict[str, int | None]:
    found = compiled.memory_analysis()
    if found is None:
        raise RuntimeError(f"the backend {jax.default_backend()!r} does not say how much memory a program takes.")
    argument, output = found.argument_size_in_bytes, found.output_size_in_bytes
    alias, temp = found.alias_size_in_bytes, found.temp_size_in_bytes
    return {
        "argument_bytes": argument,
        "output_bytes": output,
        "alias_bytes": alias,
        "temp_bytes": temp,
        "peak_bytes": argument + output - alias + temp,
        "code_bytes": found.generated_code_size_in_bytes or None,
    }


_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = ", re.MULTILINE)


def _work(compiled: jax.stages.Compiled) -> dict[str, int | None]:
    """The program's size, and what XLA's own analysis says that it does; a loop's body counts there once."""
    analysis = compiled.cost_analysis() or {}
    text = compiled.as_text() or ""
    return {
        "instructions": len(_INSTRUCTION.findall(text)),
        "flops": _whole(analysis.get("flops")),
        "bytes_accessed": _whole(analysis.get("bytes accessed")),
    }


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _nbytes(tree: Any) -> int:
    return sum(leaf.size * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))
