"""A finished (or unfinished) run read back: its config, classes and network, ready to be evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn

from jaxvid import config as config_lib
from jaxvid import evaluation, paths
from jaxvid.config import Config
from jaxvid.data.records import VideoDataset
from jaxvid.files import make_output_folder
from jaxvid.train import assemble, sharding
from jaxvid.train.checkpoint import load_for_evaluation
from jaxvid.train.loop import predict
from jaxvid.train.stage_folders import newest_stage
from jaxvid.train.step import EvaluationApply, make_apply
from jaxvid.train.writers import LoggingProgress, Progress
from jaxvid.types import Variables

CHANGEABLE = (
    "eval.",
    "data.root",
    "data.annotations",
    "data.missing",
    "data.eval_split",
    "data.val_fraction",
    "data.num_frames",
    "data.frame_stride",
    "data.num_workers",
    "data.max_bad_fraction",
    "model.dtype",
    "model.conv",
    "model.u2s.oracle",
    "train.mesh",
)
"""Fields that an evaluation may override; all others are what the network was trained with.

Clips of another length or stride are another question to the same weights: networks take them as their strides allow.
"""


@dataclass(frozen=True)
class Run:
    """One checkpoint: everything that its evaluation needs."""

    checkpoint: Path
    step: int
    config: Config
    class_names: tuple[str, ...]
    model: nn.Module
    apply: EvaluationApply
    variables: Variables
    stage: str = ""  # of a run in stages, the one that the checkpoint is of

    @property
    def title(self) -> str:
        """The network, what stands around it, and the step, as a person would say it."""
        model = self.config.model
        around = " with U2S" if model.u2s.enabled else ""
        around += " and an oracle" if model.u2s.enabled and model.u2s.oracle else ""
        around += " with Class Regularization" if model.class_regularization.enabled else ""
        return f"{model.name}{around}{f', stage {self.stage}' if self.stage else ''}, step {self.step}"


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of a run: what it found and where that was written."""

    run: Run
    output: Path
    predictions: evaluation.Predictions
    clip_names: list[str]
    metrics: dict[str, Any]

    @property
    def table(self) -> str:
        """The per-class table as text, without the classes that no clip is of and none was taken for."""
        rows = evaluation.per_class(self.predictions, self.run.class_names)
        shown = [row for row in rows if row["num_clips"] or row["num_predicted"]]
        more = f"\n(and {len(rows) - len(shown)} classes that no clip is of)" if len(shown) < len(rows) else ""
        return evaluation.format_per_class(shown) + more

    @property
    def guess_table(self) -> str:
        """What the stages of a network with Class Regularization guessed, as text; empty for other networks."""
        found = evaluation.collect_guesses(self.predictions, self.run.class_names)
        return "" if found is None else evaluation.format_guesses(found.to_json())

    @property
    def fusion_table(self) -> str:
        """What several networks in one say, each and together, as text; empty where there is one network."""
        networks = evaluation.network_predictions(self.predictions)
        rows = evaluation.network_fusions(networks, self.run.class_names)
        return evaluation.format_networks(rows) if rows else ""


def load_run(checkpoint: str | Path, overrides: dict[str, Any] | None = None, *, best: bool = False) -> Run:
    """Restores a run's newest checkpoint (or its best one) onto the devices that are here.

    Args:
      checkpoint: the run folder, its ``checkpoints`` folder, or one step in it.
      overrides: dotted config fields that an evaluation may change (:data:`CHANGEABLE`).
      best: the checkpoint with the highest ``eval/top1`` instead of the newest.
    """
    for name in overrides or {}:
        if not name.startswith(CHANGEABLE) and name in config_lib.flatten(Config()):
            raise ValueError(
                f"{name} may not be changed at evaluation, because the network was trained with it; "
                f"the fields that may are {', '.join(c + '*' if c.endswith('.') else c for c in CHANGEABLE)}."
            )
    variables, meta = load_for_evaluation(checkpoint, best=best)
    config = config_lib.load(meta["config"], overrides)
    model = assemble.build_model(config, len(meta["class_names"]))
    return Run(
        checkpoint=Path(checkpoint),
        step=int(meta["step"]),
        config=config,
        class_names=tuple(meta["class_names"]),
        model=model,
        apply=make_apply(model, **{name: meta["preprocessing"][name] for name in ("mean", "std", "color")}),
        variables=variables,
        stage=_stage(Path(checkpoint)),
    )


def evaluate_run(
    checkpoint: str | Path,
    output: str | Path | None = None,
    overrides: dict[str, Any] | None = None,
    *,
    best: bool = False,
    progress: Progress | None = None,
    predictions: evaluation.Predictions | None = None,
) -> Evaluated:
    """Evaluates a checkpoint and writes metrics, per-class table, confusion matrix and predictions.

    Args:
      checkpoint: as in :func:`load_run`.
      output: folder of the results; by default ``RUN/eval``, or ``RUN/eval-oracle`` with ``model.u2s.oracle``.
      overrides: as in :func:`load_run`, for example ``{"eval.num_clips": 10, "eval.num_crops": 3}``.
      best: as in :func:`load_run`.
      progress: told how far the evaluation is.
      predictions: of this checkpoint with these settings, where the training has just made them; only written then.

    Raises:
      ValueError: the checkpoint, a field or the data set does not fit, or the output is no folder to write to.
    """
    paths.enable_compilation_cache()
    progress = progress or LoggingProgress()
    run = load_run(checkpoint, overrides, best=best)
    oracle = run.config.model.u2s.enabled and run.config.model.u2s.oracle
    if output is None:
        output = _run_folder(run.checkpoint) / ("eval-oracle" if oracle else "eval")
    folder = make_output_folder("--output", output)
    dataset = eval_split(run, progress)
    if predictions is None:
        mesh = sharding.make_mesh(run.config.train.mesh)
        variables = sharding.replicate(run.variables, mesh)
        predictions = predict(run.config, dataset, run.apply, variables, mesh, folder, progress)
    metrics = evaluation.summarize(predictions, run.class_names)
    clip_names = [record.name for record in dataset]
    settings = {"checkpoint_step": run.step, "num_views": run.config.eval.num_clips * run.config.eval.num_crops}
    settings |= {"frame_order": run.config.eval.frame_order, "split": dataset.split}
    settings |= {"stage": run.stage} if run.stage else {}
    settings |= {"oracle": True} if oracle else {}
    evaluation.write_report(folder, predictions, metrics | settings, run.class_names, clip_names=clip_names)
    return Evaluated(run, folder, predictions, clip_names, metrics)


def eval_split(run: Run, progress: Progress | None = None) -> VideoDataset:
    """The videos that a run is evaluated on, with the labels of the run's classes.

    Raises:
      ValueError: the data set is empty, or has classes that the run does not know.
    """
    dataset = assemble.open_dataset(run.config, run.config.data.eval_split, progress)
    return dataset if dataset.class_names == run.class_names else _with_classes(dataset, run.class_names)


def _with_classes(dataset: VideoDataset, class_names: tuple[str, ...]) -> VideoDataset:
    """The data set with the checkpoint's classes, of which it may hold some only."""
    try:
        return dataset.relabelled(class_names)
    except ValueError:
        raise ValueError(
            f"the data set must have the {len(class_names)} classes of the checkpoint {_few(class_names)}, or some of "
            f"them, received {_few(dataset.class_names)}."
        ) from None


def _few(names: tuple[str, ...]) -> str:
    return f"[{', '.join(map(repr, names[:20]))}{', ...' if len(names) > 20 else ''}]"


def _stage(checkpoint: Path) -> str:
    newest = newest_stage(checkpoint)
    return newest.name if newest != checkpoint else ""


def _run_folder(checkpoint: Path) -> Path:
    """The run folder that a checkpoint path lies in."""
    for folder in (checkpoint, *checkpoint.parents):
        if (folder / "checkpoints").is_dir():
            return folder
    return checkpoint
