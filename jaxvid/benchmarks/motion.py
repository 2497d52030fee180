"""Does SRTG learn motion? Trains it and the plain network on `motion` over seeds; evaluates in order and shuffled."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxvid import config as config_lib
from jaxvid.benchmarks.timing import describe_machine
from jaxvid.train.run import evaluate_run
from jaxvid.train.stages import train


def bench_motion(
    config: str = "configs/motion.py",
    *,
    workdir: str | Path,
    models: Sequence[str] = ("srtg_r3d_18", "r3d_18"),
    seeds: Sequence[int] = (0, 1, 2),
    overrides: dict[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """One line for each model and seed, then one for each model with mean, minimum and maximum.

    Args:
      config: a config file that takes the model's name as its argument.
      workdir: folder of the runs, ``WORKDIR/MODEL-SEED``; finished ones are not trained again.
      models: names of models.
      seeds: one run for each.
      overrides: dotted fields for all of them.

    Yields:
      ``top1`` of the validation clips and ``top1_shuffled`` of the same clips with their frames in random order;
      ``train_seconds`` are those of this call, few for a run that was finished before.

    Raises:
      ValueError: no model, no seed, or the config does not fit.
      RuntimeError: a signal ended a run before its last step.
    """
    for field, values in (("models", models), ("seeds", seeds)):
        if not len(values):
            raise ValueError(f"{field} must hold at least 1, received {field}={values!r}.")
    for name in models:
        rows = []
        for seed in seeds:
            folder = Path(workdir) / f"{name}-{seed}"
            fields = {**(overrides or {}), "train.seed": seed}
            started = time.perf_counter()
            result = train(config_lib.load(f"{config}:{name}", fields), folder)
            seconds = time.perf_counter() - started
            if not result.finished:
                raise RuntimeError(f"{folder} was stopped after step {result.step}; the same command goes on.")
            ordered = evaluate_run(folder)
            shuffled = evaluate_run(folder, folder / "eval-shuffled", {"eval.frame_order": "shuffled"})
            rows.append(
                {
                    "benchmark": "motion",
                    "model": name,
                    "width": ordered.run.config.model.width,
                    "seed": seed,
                    "top1": ordered.metrics["top1"],
                    "top1_shuffled": shuffled.metrics["top1"],
                    "chance": 1 / len(ordered.run.class_names),
                    "num_clips": ordered.metrics["num_clips"],
                    "train_seconds": round(seconds, 1),
                    **describe_machine(),
                }
            )
            yield rows[-1]
        yield {"benchmark": "motion", "model": name, "seeds": list(seeds)} | {
            f"{key}_{kind}": function(row[key] for row in rows)
            for key in ("top1", "top1_shuffled")
            for kind, function in (("mean", statistics.fmean), ("min", min), ("max", max))
        }
