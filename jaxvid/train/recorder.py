"""What a run writes down: one line per step and per evaluation, and the sums that an epoch's line is made of."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvid.data.records import VideoDataset
from jaxvid.train.compilations import count_compilations
from jaxvid.train.plan import Plan
from jaxvid.train.writers import MetricWriter, Progress


class NonFiniteLossError(RuntimeError):
    """The loss of a step was not finite; ``ids`` are the records of its batch."""

    def __init__(self, message: str, ids: list[int]):
        super().__init__(message)
        self.ids = ids


def batch_sha256(ids: np.ndarray) -> str:
    """sha256 (hexadecimal) of a batch's record ids, int32 little-endian, in batch order."""
    return hashlib.sha256(np.ascontiguousarray(ids, "<i4").tobytes()).hexdigest()


class Recorder:
    """Turns the metrics of steps into lines of ``metrics.jsonl``, TensorBoard and the console.

    Reading a step's metrics waits for the device, so they are read one step late, while the device is already busy
    with the next step.
    """

    def __init__(
        self, workdir: Path, plan: Plan, progress: Progress, *, names: VideoDataset, start: int, tensorboard: bool
    ):
        self._workdir, self._plan, self._progress, self._dataset = workdir, plan, progress, names
        self._writer = MetricWriter(workdir, resume_after=start, tensorboard=tensorboard)
        self._pending: tuple[int, Any, float] | None = None
        self._last_read = time.perf_counter()
        self._epoch = _Sums()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.flush()
        self._writer.close()

    def step(self, step: int, metrics: Any, *, waited: float) -> None:
        """Takes the (unread) metrics of one step and the seconds that were spent waiting for its batch."""
        self.flush()
        self._pending = (step, metrics, waited)

    def flush(self) -> None:
        """Reads and writes the step that is still unread."""
        if self._pending is None:
            return
        step, metrics, waited = self._pending
        self._pending = None
        values = jax.device_get(metrics)
        now = time.perf_counter()
        seconds, self._last_read = now - self._last_read, now
        ids = np.asarray(values.pop("id"))
        finite = bool(values.pop("finite"))
        scalars = {name: float(value) for name, value in values.items()}
        line = {
            "epoch": self._plan.epoch(step),
            **scalars,
            "batch_sha256": batch_sha256(ids),
            "clips_per_second": float(scalars["num_valid"] / seconds),
            "data_wait_fraction": min(1.0, waited / seconds),
        }
        self._writer.write(step, line)
        self._epoch.add(scalars, seconds, waited)
        if not finite:
            self._raise_not_finite(step, ids)
        self._progress.step(step, line)

    def evaluation(self, step: int, results: Mapping[str, Any], *, num_traces: int) -> None:
        """Writes an evaluation and, with the means since the last one, the epoch's line."""
        compiled = count_compilations()
        self._writer.write(step, {f"eval/{name}": value for name, value in results.items()})
        summary = self._epoch.means() | {f"eval/{name}": value for name, value in results.items()}
        summary |= {
            "epoch": self._plan.epoch(step),
            "step_traces": num_traces,
            "compilations": compiled.programs,
            "compile_seconds": round(compiled.seconds, 3),
            "compile_cache_hits": compiled.cache_hits,
        }
        self._writer.write(step, {f"epoch/{name}": value for name, value in summary.items() if "eval/" not in name})
        self._progress.epoch(step, summary)
        self._epoch = _Sums()
        self._last_read = time.perf_counter()

    def _raise_not_finite(self, step: int, ids: np.ndarray) -> None:
        real = [int(i) for i in ids if i >= 0]
        clips = [{"id": i, "name": self._dataset[i].name} for i in real]
        path = self._workdir / "nonfinite.json"
        path.write_text(json.dumps({"step": step, "clips": clips}, indent=2), encoding="utf-8")
        raise NonFiniteLossError(
            f"the loss must be finite, received a non-finite one in step {step}; its {len(real)} clips, ids {real[:8]}"
            f"{' ...' if len(real) > 8 else ''}, are listed in {path}; the last checkpoint is from before it.",
            real,
        )


class _Sums:
    """Sums over steps, weighted by the clips of each."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._clips = self._seconds = self._waited = 0.0

    def add(self, scalars: dict[str, float], seconds: float, waited: float) -> None:
        clips = scalars["num_valid"]
        for name, value in scalars.items():
            if math.isfinite(value):
                self._sums[name] = self._sums.get(name, 0.0) + value * clips
        self._clips += clips
        self._seconds += seconds
        self._waited += waited

    def means(self) -> dict[str, float]:
        means = {name: value / max(self._clips, 1.0) for name, value in self._sums.items() if name != "num_valid"}
        return means | {
            "clips_per_second": self._clips / max(self._seconds, 1e-9),
            "data_wait_fraction": min(1.0, self._waited / max(self._seconds, 1e-9)),
            "seconds": self._seconds,
        }
