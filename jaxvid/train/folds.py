"""Cross-validation: one run per fold, then one report over the predictions of all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxvid import evaluation
from jaxvid.config import Config
from jaxvid.files import make_output_folder
from jaxvid.train import assemble
from jaxvid.train.run import Evaluated, evaluate_run
from jaxvid.train.stages import train
from jaxvid.train.writers import LoggingProgress, Progress


@dataclass(frozen=True)
class FoldsResult:
    """What cross-validation leaves: metrics over all clips, and the accuracy of each fold."""

    workdir: Path
    metrics: dict[str, Any]
    per_fold: dict[str, float]
    finished: bool


def fold_config(config: Config, fold: str) -> Config:
    """The config of one fold: ``{fold}`` filled in where the names of the splits and of the weights hold it."""
    names = {field: getattr(config.data, field).replace("{fold}", fold) for field in ("train_split", "eval_split")}
    finetune = dataclasses.replace(config.finetune, weights=config.finetune.weights.replace("{fold}", fold))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **names, folds=()), finetune=finetune)


def cross_validate(config: Config, workdir: str | Path, *, progress: Progress | None = None) -> FoldsResult:
    """Trains ``config.data.folds`` one after the other in ``workdir/FOLD`` and pools their predictions.

    A finished fold is not trained again, so a stopped cross-validation goes on where it was. Every fold is measured
    with its last weights: no checkpoint is chosen by its test score. What ``finetune.draws`` keeps is in
    ``workdir/features``, for all folds.

    Returns:
      ``metrics`` over all clips of all folds (each clip is tested once, by the fold that did not train on it), with
      ``fold_mean_top1`` beside the clip-averaged ``top1``.
    """
    assemble.check_names(config)
    workdir, progress = make_output_folder("--workdir", workdir), progress or LoggingProgress()
    done: list[Evaluated] = []
    for number, fold in enumerate(config.data.folds, start=1):
        progress.message(f"Fold {fold}, {number} of {len(config.data.folds)}.")
        result = train(fold_config(config, fold), workdir / fold, progress=progress, features=workdir / "features")
        if not result.finished or (result.stopped and number < len(config.data.folds)):
            return FoldsResult(workdir, {}, {}, finished=False)
        done.append(evaluate_run(workdir / fold, progress=progress, predictions=result.predictions))
    per_fold = {fold: float(part.metrics["top1"]) for fold, part in zip(config.data.folds, done, strict=True)}
    class_names = done[0].run.class_names
    predictions = pool([part.predictions for part in done])
    metrics = evaluation.summarize(predictions, class_names)
    metrics["fold_mean_top1"] = sum(per_fold.values()) / len(per_fold)
    evaluation.write_report(
        workdir,
        predictions,
        metrics | {"per_fold": per_fold},
        class_names,
        clip_names=[name for part in done for name in part.clip_names],
    )
    return FoldsResult(workdir, metrics, per_fold, finished=True)


def pool(parts: Sequence[evaluation.Predictions]) -> evaluation.Predictions:
    """The predictions of disjoint test sets as those of one set; ids are counted on from part to part."""
    whole = evaluation.concatenate(parts)
    return dataclasses.replace(whole, ids=np.arange(len(whole), dtype=np.int32))
