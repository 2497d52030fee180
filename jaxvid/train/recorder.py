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
from jaxvid.train.writers import MetricWriter, Progress, is_evaluation, read_jsonl


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
        self,
        workdir: Path,
        plan: Plan,
        progress: Progress,
        *,
        names: VideoDataset,
        start: int,
        tensorboard: bool,
        evaluation_due: bool = False,
    ):
        """Begins, or goes on after step ``start``, whose evaluation is still to be made if it is due."""
        self._workdir, self._plan, self._progress, self._dataset = workdir, plan, progress, names
        self._writer = MetricWriter(workdir, resume_after=start, evaluation_due=evaluation_due, tensorboard=tensorboard)
        self._pending: tuple[int, Any, float] | None = None
        self._last_read = time.perf_counter()
        self._epoch = _Sums.since_last_evaluation(workdir / "metrics.jsonl") if start else _Sums()
        self.last_saved = start or None

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

    def saved(self, step: int) -> None:
        """Takes note of the newest checkpoint."""
        self.last_saved = step

    def evaluation(self, step: int, results: Mapping[str, Any], *, num_traces: int) -> None:
        """Writes an evaluation with the means since the last one as one line."""
        compiled = count_compilations()
        evaluated = {f"eval/{name}": value for name, value in results.items()}
        means = self._epoch.means() | {
            "epoch": self._plan.epoch(step),
            "step_traces": num_traces,
            "compilations": compiled.programs,
            "compile_seconds": round(compiled.seconds, 3),
            "compile_cache_hits": compiled.cache_hits,
        }
        self._writer.write(step, evaluated | {f"epoch/{name}": value for name, value in means.items()})
        self._progress.epoch(step, means | evaluated)
        self._epoch = _Sums()
        self._last_read = time.perf_counter()

    def _raise_not_finite(self, step: int, ids: np.ndarray) -> None:
        real = [int(i) for i in ids if i >= 0]
        clips = [{"id": i, "name": self._dataset[i].name} for i in real]
        path = self._workdir / "nonfinite.json"
        path.write_text(json.dumps({"step": step, "clips": clips}, indent=2), encoding="utf-8")
        before = "no checkpoint was" if self.last_saved is None else f"the checkpoint of step {self.last_saved} was"
        raise NonFiniteLossError(
            f"the loss must be finite, received a non-finite one in step {step}; its {len(real)} clips, ids {real[:8]}"
            f"{' ...' if len(real) > 8 else ''}, are listed in {path}; {before} saved before it.",
            real,
        )


_NOT_SUMMED = ("step", "epoch", "batch_sha256", "clips_per_second", "data_wait_fraction", "nonfinite")
"""What a step's line has besides the step's metrics."""


class _Sums:
    """Sums over steps, weighted by the clips of each."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._clips = self._seconds = self._waited = 0.0

    @classmethod
    def since_last_evaluation(cls, path: Path) -> _Sums:
        """The sums that the file's last steps had come to: those of a run that is resumed equal an undisturbed one's.

        JSON holds every float exactly and the order of the additions is the same; only times are not so exact.
        """
        sums = cls()
        for line in read_jsonl(path) if path.exists() else ():
            if is_evaluation(line):
                sums = cls()
            elif "batch_sha256" in line:
                scalars = {
                    name: math.nan if value is None else float(value)
                    for name, value in line.items()
                    if name not in _NOT_SUMMED
                }
                clips, rate = scalars["num_valid"], line["clips_per_second"]
                seconds = clips / rate if rate else 0.0
                sums.add(scalars, seconds, line["data_wait_fraction"] * seconds)
        return sums

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
