"""The training step: what compiling it takes, and clips per second afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxvid import models
from jaxvid.benchmarks.timing import describe_machine, measure
from jaxvid.config import OptimizerConfig, ScheduleConfig
from jaxvid.models.cost import count_macs, count_parameters
from jaxvid.train import sharding
from jaxvid.train.compilations import count_compilations
from jaxvid.train.optim import make_optimizer, make_schedule
from jaxvid.train.state import create_state
from jaxvid.train.step import make_train_step
from jaxvid.types import Batch, Size3


def bench_step(
    *,
    model: str = "srtg_r3d_18",
    width: int = 16,
    clip: Size3 = (16, 64, 64),
    batch_size: int = 16,
    num_classes: int = 10,
    runs: int = 5,
    steps_per_run: int = 1,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """Trains on one batch of noise again and again: SGD with momentum on all devices, no data loading.

    The line holds ``compile_seconds`` (in XLA), ``first_step_seconds`` (tracing, compiling and the first run) and the
    rate of the steps after it; ``train_macs_per_second`` takes three times the forward multiply-adds for a step.

    Args:
      model: a name of ``jaxvid.models.MODELS``.
      width: channels of a ResNet's stage 1; 64 is the paper's size of every network.
      clip: ``(T, H, W)`` of a clip.
      batch_size: clips over all devices; a multiple of their number.
      num_classes: outputs of the network.
      runs: counted runs.
      steps_per_run: steps in a run.
      **options: of the model, as :func:`jaxvid.models.build` takes them.

    Raises:
      ValueError: the name or an option of the model is unknown, or a number does not fit.
    """
    network = models.build(model, num_classes, width=width, **options)
    mesh = sharding.make_mesh((("data", -1),))
    optimizer_config = OptimizerConfig(learning_rate=1e-4)
    schedule = make_schedule(
        ScheduleConfig("constant"), optimizer_config, batch_size=batch_size, steps_per_epoch=100, total_steps=1000
    )
    optimizer = make_optimizer(optimizer_config, schedule)
    state = sharding.replicate(create_state(network, clip, optimizer, seed=0, ema=False), mesh)
    batch = sharding.put(_noise(batch_size, clip, num_classes), mesh)
    step = make_train_step(
        network,
        optimizer,
        schedule,
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        label_smoothing=0.0,
        ema_decay=0.0,
        mesh=mesh,
    )
    state = jax.block_until_ready(state)

    def run() -> None:
        nonlocal state
        for _ in range(steps_per_run):
            state, _ = step(state, batch)
        jax.block_until_ready(state)

    compilations = count_compilations()
    before = (compilations.seconds, compilations.cache_hits)
    started = time.perf_counter()
    state = jax.block_until_ready(step(state, batch)[0])
    first = time.perf_counter() - started
    compiled = {
        "compile_seconds": compilations.seconds - before[0],
        "compile_cache_hits": compilations.cache_hits - before[1],
    }
    timing = measure(run, runs=runs)
    clips = batch_size * steps_per_run
    macs = count_macs(network, clip)
    yield {
        "benchmark": "step",
        "model": model,
        "width": width,
        "clip": list(clip),
        "batch_size": batch_size,
        "clips_per_second": clips / timing.median,
        "train_macs_per_second": 3 * macs * clips / timing.median,
        **compiled,
        "first_step_seconds": first,
        "num_traces": step.num_traces,
        "params": count_parameters(network, clip),
        "macs": macs,
        "peak_device_bytes": _peak_bytes(),
        "steps_per_run": steps_per_run,
        **timing.summary(),
        **describe_machine(),
    }


def _noise(batch_size: int, clip: Size3, num_classes: int) -> Batch:
    rng = np.random.default_rng(0)
    return {
        "video": rng.integers(0, 256, (batch_size, *clip, 3), np.uint8),
        "label": rng.integers(0, num_classes, batch_size).astype(np.int32),
        "id": np.arange(batch_size, dtype=np.int32),
        "mask": np.ones(batch_size, bool),
    }


def _peak_bytes() -> int | None:
    """The most memory that the first device held; ``None`` where the backend does not say."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")
