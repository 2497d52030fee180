"""Benchmarks: what ``jaxvid bench NAME`` runs. Each yields one JSON-able dictionary per case, with the machine in it.

No benchmark passes or fails. Every line of one that measures time holds the median and the quartiles over the counted
runs, the number of runs and of uncounted warm-up runs, the devices and the versions; compare lines of one machine only.
The lines of ``motion``, which measures accuracy, hold one run each, and then the mean and the range over the seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

Line = dict[str, Any]


def _decode(options: Any) -> Iterator[Line]:
    from jaxvid.benchmarks.decode import bench_decode

    return bench_decode(runs=options.runs)


def _ops(options: Any) -> Iterator[Line]:
    from jaxvid.benchmarks.ops import bench_ops

    dtypes = (options.dtype,) if options.dtype else None
    return bench_ops(op=options.op, quick=options.quick, runs=options.runs, dtypes=dtypes)


def _pipeline(options: Any) -> Iterator[Line]:
    from jaxvid.benchmarks.pipeline import bench_pipeline

    return bench_pipeline(runs=options.runs)


def _step(options: Any) -> Iterator[Line]:
    from jaxvid.benchmarks.step import bench_step

    return bench_step(
        model=options.model,
        width=options.width,
        clip=parse_clip(options.clip),
        batch_size=options.batch_size,
        runs=options.runs,
        regularized=options.class_regularization,
    )


def _motion(options: Any) -> Iterator[Line]:
    from jaxvid.benchmarks.motion import bench_motion

    return bench_motion(options.config, workdir=options.workdir, seeds=range(options.seeds))


BENCHMARKS: Mapping[str, Callable[[Any], Iterator[Line]]] = MappingProxyType(
    {"decode": _decode, "motion": _motion, "ops": _ops, "pipeline": _pipeline, "step": _step}
)
"""Name -> function of the command line's options, of which each reads its own."""


def parse_clip(text: str) -> tuple[int, int, int]:
    """``(T, H, W)`` from the command line.

    Raises:
      ValueError: not three numbers of at least 1.

    >>> parse_clip("16,64,64")
    (16, 64, 64)
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"clip must be three numbers T,H,W, each >= 1, received clip={text!r}.")
    T, H, W = (int(part) for part in parts)
    return T, H, W
