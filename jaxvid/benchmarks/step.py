"""The training step: what compiling it takes, and clips per second afterwards."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxvid import models
from jaxvid.benchmarks.step_cost import step_cost
from jaxvid.benchmarks.timing import Timing, describe_machine, measure_in_turns, quartiles
from jaxvid.config import OptimizerConfig, ScheduleConfig
from jaxvid.models.class_regularized import class_regularized
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
    regularized: bool = False,
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
      regularized: whether a second line is the same network with Class Regularization, their runs in turns, and a third
        one what that adds: see :func:`_added`.
      **options: of the model, as :func:`jaxvid.models.build` takes them.

    Raises:
      ValueError: the name or an option of the model is unknown, or a number does not fit.
    """
    network = models.build(model, num_classes, width=width, **options)
    networks = [network, class_regularized(model, network)] if regularized else [network]
    trials = [_Trial(each, clip, batch_size, num_classes, steps_per_run) for each in networks]
    timings = measure_in_turns([trial.run for trial in trials], runs=runs)
    for each, trial, timing in zip(networks, trials, timings, strict=True):
        clips = batch_size * steps_per_run
        macs = count_macs(each, clip)
        yield {
            "benchmark": "step",
            "model": model,
            **({"class_regularization": True} if each is not network else {}),
            "width": width,
            "clip": list(clip),
            "batch_size": batch_size,
            "clips_per_second": clips / timing.median,
            "train_macs_per_second": 3 * macs * clips / timing.median,
            **trial.compiled,
            "num_traces": trial.step.num_traces,
            "params": count_parameters(each, clip),
            "macs": macs,
            "peak_device_bytes": _peak_bytes(),
            "steps_per_run": steps_per_run,
            **timing.summary(),
            **describe_machine(),
        }
    if regularized:
        what = {"model": model, "width": width, "clip": list(clip), "batch_size": batch_size}
        shape = {"clip": clip, "batch_size": batch_size, "num_classes": num_classes, "width": width}
        yield what | _added(model, timings[0], timings[1], **shape, **options)


class _Trial:
    """A network, its state and its batch, behind the first step."""

    def __init__(self, network: nn.Module, clip: Size3, batch_size: int, num_classes: int, steps_per_run: int):
        mesh = sharding.make_mesh((("data", -1),))
        optimizer_config = OptimizerConfig(learning_rate=1e-4)
        schedule = make_schedule(
            ScheduleConfig("constant"), optimizer_config, batch_size=batch_size, steps_per_epoch=100, total_steps=1000
        )
        optimizer = make_optimizer(optimizer_config, schedule)
        state = sharding.replicate(create_state(network, clip, optimizer, seed=0, ema=False), mesh)
        self.batch = sharding.put(_noise(batch_size, clip, num_classes), mesh)
        self.steps_per_run = steps_per_run
        self.step = make_train_step(
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
        compilations = count_compilations()
        before = (compilations.seconds, compilations.cache_hits)
        started = time.perf_counter()
        self.state = jax.block_until_ready(self.step(state, self.batch)[0])
        first = time.perf_counter() - started
        self.compiled = {
            "compile_seconds": compilations.seconds - before[0],
            "compile_cache_hits": compilations.cache_hits - before[1],
            "first_step_seconds": first,
        }

    def run(self) -> None:
        """Some steps."""
        for _ in range(self.steps_per_run):
            self.state, _ = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)


def _added(model: str, plain: Timing, ours: Timing, **options: Any) -> dict[str, Any]:
    """What Class Regularization adds to a step, as shares of the step without it.

    ``seconds`` is the median over the runs of the share in a pair of neighbouring runs, with its quartiles; ``flops``,
    ``bytes_accessed`` and ``peak_bytes`` are the compiled program's (:func:`jaxvid.benchmarks.step_cost.step_cost`, on
    one device), which no other work on the machine disturbs; ``params`` is of the network.
    """
    shares = [b / a - 1 for a, b in zip(plain.seconds, ours.seconds, strict=True)]
    programs = [step_cost(model, regularized=regularized, optimize=False, **options) for regularized in (False, True)]
    counted = ("flops", "bytes_accessed", "peak_bytes", "params")
    return {
        "benchmark": "class_regularization",
        "added_seconds": statistics.median(shares),
        "added_seconds_quartiles": list(quartiles(shares)),
        **{f"added_{name}": programs[1][name] / programs[0][name] - 1 for name in counted},
        "runs": len(shares),
        "warmup": plain.warmup,
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
