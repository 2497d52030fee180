"""Measuring: warm-up, repeated runs, median and quartiles; and the machine that they belong to."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxvid import machine


@dataclass(frozen=True)
class Timing:
    """What runs of one case took.

    Attributes:
      seconds: wall time of each counted run.
      cpu_seconds: processor time of each counted run, summed over this process's threads.
      warmup: runs before them that were not counted.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    warmup: int

    @property
    def median(self) -> float:
        """Median wall time of a run, in seconds."""
        return statistics.median(self.seconds)

    @property
    def cpu_median(self) -> float:
        """Median processor time of a run, in seconds."""
        return statistics.median(self.cpu_seconds)

    def summary(self) -> dict[str, Any]:
        """What every line says about its runs: median, quartiles, extremes (seconds) and their number."""
        low, high = quartiles(self.seconds)
        return {
            "seconds_median": self.median,
            "seconds_quartiles": [low, high],
            "seconds_min": min(self.seconds),
            "seconds_max": max(self.seconds),
            "runs": len(self.seconds),
            "warmup": self.warmup,
        }


def measure(function: Callable[[], object], *, runs: int, warmup: int = 1) -> Timing:
    """Calls a function again and again.

    Args:
      function: one run; it must have finished its work when it returns (``block_until_ready`` for jax).
      runs: counted runs, at least 1.
      warmup: runs before them, at least 0.

    Raises:
      ValueError: a number is too small.
    """
    return measure_in_turns([function], runs=runs, warmup=warmup)[0]


def measure_in_turns(functions: Sequence[Callable[[], object]], *, runs: int, warmup: int = 1) -> list[Timing]:
    """As :func:`measure`, of several functions whose runs alternate: what else the machine does disturbs all alike."""
    if runs < 1 or warmup < 0:
        raise ValueError(f"runs must be >= 1 and warmup >= 0, received runs={runs}, warmup={warmup}.")
    for function in functions:
        for _ in range(warmup):
            function()
    seconds: list[list[float]] = [[] for _ in functions]
    cpu_seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(runs):
        for i, function in enumerate(functions):
            started, cpu_started = time.perf_counter(), time.process_time()
            function()
            seconds[i].append(time.perf_counter() - started)
            cpu_seconds[i].append(time.process_time() - cpu_started)
    return [Timing(tuple(wall), tuple(cpu), warmup) for wall, cpu in zip(seconds, cpu_seconds, strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper quartile, interpolated between the values.

    >>> quartiles([1, 2, 3, 4, 5])
    (2.0, 4.0)
    >>> quartiles([7])
    (7.0, 7.0)
    """
    if len(values) == 1:
        return float(values[0]), float(values[0])
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return float(low), float(high)


def describe_machine() -> dict[str, Any]:
    """The part of a line that says where it was measured; devices only when jax is in use already."""
    described: dict[str, Any] = {
        "cpu": machine.cpu_name() or platform.processor() or platform.machine(),
        "cores": machine.num_cores(),
        "python": platform.python_version(),
        "versions": machine.versions(),
    }
    if "jax" in sys.modules:
        import jax

        described |= {"device": jax.local_devices()[0].device_kind, "num_devices": jax.device_count()}
    return described
