"""The training loop: ``train_run(config, workdir)`` from the first batch to the last checkpoint.

The run folder is the whole state of a run. Calling it on a folder that holds checkpoints goes on from the newest usable
one, and since the data stream is a function of (seed, position), the losses and the record ids that follow are those
of a run that was never stopped.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from jaxvid import config as config_lib
from jaxvid import evaluation, paths
from jaxvid.config import Config
from jaxvid.data.pipeline import FrameCache, train_batches
from jaxvid.data.quarantine import Quarantine
from jaxvid.data.records import VideoDataset
from jaxvid.files import make_output_folder, write_text
from jaxvid.train import assemble, finetune, optim, sharding
from jaxvid.train.checkpoint import Checkpointer
from jaxvid.train.compilations import count_compilations
from jaxvid.train.confusing import with_confusing
from jaxvid.train.features import KeptFeatures
from jaxvid.train.features import keep as keep_features
from jaxvid.train.groups import group_table
from jaxvid.train.plan import Plan
from jaxvid.train.process import only_one_process, stop_signals
from jaxvid.train.recorder import Recorder
from jaxvid.train.state import TrainState, create_state
from jaxvid.train.step import EvaluationApply, make_apply, make_train_step
from jaxvid.train.writers import LoggingProgress, Progress
from jaxvid.types import Variables

log = logging.getLogger(__name__)

_GIB = 2**30


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves: the folder, the last step, the last evaluation, and whether the run is complete.

    ``predictions`` are those of the last step, and None where this call has not evaluated it. ``stopped`` says whether
    a signal came: a run that was just complete is ``finished`` all the same, but nothing shall begin behind it.
    """

    workdir: Path
    step: int
    metrics: dict[str, Any]
    finished: bool
    predictions: evaluation.Predictions | None = None
    stopped: bool = False


def train_run(
    config: Config, workdir: str | Path, *, progress: Progress | None = None, features: Path | None = None
) -> TrainResult:
    """Trains, or goes on training, one network in one stage; :func:`jaxvid.train.train` takes stages too.

    Args:
      config: the checked configuration.
      workdir: the run folder; made when absent, resumed when it holds checkpoints.
      progress: told of every step, epoch and message; logs by default. Where parts of the network are frozen, or come
        from other weights, a table of the groups is its first message before the first step, and ``groups.txt``.
      features: with ``finetune.draws``, the folder of what is kept, which several runs may share; by default
        ``workdir/features``.

    Returns:
      The :class:`TrainResult`; ``finished`` is False when SIGTERM or Ctrl-C ended the run early (its state is saved).

    Raises:
      ValueError: the config does not fit the data, the devices or the run that the folder holds.
      NonFiniteLossError: the loss was not finite; the message and ``nonfinite.json`` name the batch's clips.
      TooManyBadVideosError: more videos than ``data.max_bad_fraction`` could not be decoded.
    """
    if config.data.folds:
        raise ValueError(
            f"data.folds must be empty for one run (cross_validate trains all folds), "
            f"received {len(config.data.folds)} folds."
        )
    if config.train.stages:
        raise ValueError(
            f"train.stages must be empty for a run of one stage (jaxvid.train.train trains all stages), "
            f"received {len(config.train.stages)} stages."
        )
    assemble.check_names(config)
    progress = progress or LoggingProgress()
    if notice := sharding.split_cpu(config.train.cpu_devices):
        progress.message(notice)
    with ExitStack() as stack:
        workdir = make_output_folder("--workdir", workdir)
        stack.enter_context(only_one_process(workdir))
        stop = stack.enter_context(stop_signals())
        return _Training(config, workdir, progress, stack, features).run(stop)


class _Training:
    """The parts of one run and its state; files and threads are closed by the stack."""

    def __init__(
        self, config: Config, workdir: Path, progress: Progress, stack: ExitStack, features: Path | None = None
    ):
        paths.enable_compilation_cache()
        count_compilations()
        self.config, self.workdir, self.progress = config, workdir, progress
        self.predictions: evaluation.Predictions | None = None
        self.mesh = sharding.make_mesh(config.train.mesh)
        _check_batch_size(config, self.mesh)
        self.train_set, self.eval_set = _open_splits(config, progress)
        # One for training and evaluation: what an evaluation keeps, the next one finds.
        self.cache = FrameCache(int(config.data.cache_gib * _GIB)) if config.data.cache_gib else None
        self.plan = Plan.of(config, len(self.train_set))
        model = assemble.build_model(config, len(self.train_set.class_names))
        schedule = optim.make_schedule(
            config.schedule,
            config.optimizer,
            batch_size=self.plan.batch_size,
            steps_per_epoch=self.plan.steps_per_epoch,
            total_steps=self.plan.total_steps,
        )
        trainable = config.finetune.trainable
        optimizer = finetune.only(optim.make_optimizer(config.optimizer, schedule), trainable)
        pixels = {"mean": config.data.mean, "std": config.data.std, "color": config.data.color}
        self.apply = make_apply(model, **pixels)
        clip_shape = (config.data.num_frames, config.data.crop_size, config.data.crop_size)
        ema = config.optimizer.ema_decay > 0
        state = create_state(model, clip_shape, optimizer, seed=config.train.seed, ema=ema)
        finetune.check_trainable(state.params, trainable)
        keep = {"keep_last": config.checkpoint.keep_last, "keep_best": config.checkpoint.keep_best}
        self.saver = stack.enter_context(Checkpointer(workdir / "checkpoints", **keep))
        if config.finetune.weights and not self.saver.steps():
            state, message = finetune.start_from(state, config, self.train_set.class_names, run=workdir.parent)
            progress.message(message)
        if config.model.u2s.similarity and not self.saver.steps():
            path = config.model.u2s.similarity.replace("{run}", str(workdir.parent))
            state = with_confusing(state, path, config.model.u2s.variant, self.train_set.class_names)
        self._restore(sharding.replicate(state, self.mesh))
        save_config(config, workdir)
        if (trainable or config.finetune.weights) and not self.step:
            table = group_table(self.state.params, trainable, schedule, self.plan.total_steps)
            progress.message(table)
            if not config.finetune.weights:
                progress.message("What is not trained stays as it was drawn, because finetune.weights is empty.")
            if jax.process_index() == 0:
                write_text(workdir / "groups.txt", f"{table}\n")
        self.kept: KeptFeatures | None = None
        if config.finetune.draws and self.step < self.plan.total_steps:
            self.kept = self._keep_features(model, features or workdir / "features")
        self.train_step = make_train_step(
            model,
            optimizer,
            schedule,
            **pixels,
            label_smoothing=config.train.label_smoothing,
            ema_decay=config.optimizer.ema_decay,
            mesh=self.mesh,
            trainable=trainable,
            beginning=self.kept.beginning if self.kept else None,
        )
        self.recorder = stack.enter_context(
            Recorder(
                workdir,
                self.plan,
                progress,
                names=self.train_set,
                start=self.step,
                tensorboard=config.train.tensorboard,
                evaluation_due=self.evaluation_due,
            )
        )

    def run(self, stop: threading.Event) -> TrainResult:
        """Trains until the plan's last step, or until ``stop`` is set."""
        self.progress.start(step=self.step, total_steps=self.plan.total_steps)
        if self.evaluation_due:
            self._evaluate()
        with self._batches() as batches:
            while self.step < self.plan.total_steps and not stop.is_set():
                waiting = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - waiting
                self.state, metrics = self.train_step(self.state, sharding.put(batch, self.mesh))
                self.step += 1
                self.recorder.step(self.step, metrics, waited=waited)
                self.evaluation_due = self.plan.evaluates_after(self.step)
                if self.plan.saves_after(self.step) or stop.is_set():
                    self._save()
                if self.evaluation_due:
                    self._evaluate()
        if self.cache is not None and len(self.cache):  # with decoding processes it is in them, and went with them
            kept = f"{self.cache.nbytes / _GIB:.2f} of {self.cache.max_bytes / _GIB:.2f} GiB"
            self.progress.message(f"Kept {kept} of decoded frames, of {len(self.cache)} videos.")
        if self.recorder.last_saved != self.step and self.step:  # the signal came after the last look at it
            self._save()
        self.saver.wait()
        finished = self.step >= self.plan.total_steps
        if not finished:
            self.progress.message(f"Stopped by a signal; step {self.step} is saved, and the same command goes on.")
        predictions = self.predictions if finished else None
        return TrainResult(self.workdir, self.step, self.results, finished, predictions, stop.is_set())

    def _evaluate(self) -> None:
        """Evaluates the step that was just saved: an evaluation that fails, or is killed, costs no training."""
        params = self.state.params if self.state.ema_params is None else self.state.ema_params
        variables = {"params": params, "batch_stats": self.state.batch_stats}
        self.predictions = predict(
            self.config, self.eval_set, self.apply, variables, self.mesh, self.workdir, self.progress, self.cache
        )
        self.results = evaluation.summarize(self.predictions, self.eval_set.class_names)
        self.recorder.evaluation(self.step, self.results, num_traces=self.train_step.num_traces)
        metrics = {f"eval/{name}": value for name, value in self.results.items() if value is not None}
        self.evaluation_due = False
        self.saver.add_metrics(self.step, metrics, {"results": self.results, "evaluation_due": False})

    def _save(self) -> None:
        self.recorder.flush()  # what is not finite stops the run before it is saved
        meta = {
            "config": config_lib.to_dict(self.config),
            "class_names": list(self.train_set.class_names),
            "preprocessing": assemble.preprocessing(self.config),
            "data_position": min(self.step * self.plan.batch_size, self.plan.total_clips),
            "results": self.results,
            "evaluation_due": self.evaluation_due,
        }
        self.saver.save(self.step, self.state, meta)
        self.recorder.saved(self.step)

    def _restore(self, state: TrainState) -> None:
        """Takes the newest usable state of the folder, or the given one where there is none."""
        self.state, self.step, self.results = state, 0, {}
        self.evaluation_due = False
        class_names = self.train_set.class_names
        restored = self.saver.restore(state, check=lambda meta: _check_same_run(self.config, class_names, meta))
        if restored is not None:
            self.state, self.step, self.results = restored.state, restored.step, restored.meta["results"]
            self.evaluation_due = restored.meta.get("evaluation_due", False)
            self.progress.message(f"Resuming after step {self.step} of {self.plan.total_steps}.")

    def _keep_features(self, model: nn.Module, folder: Path) -> KeptFeatures:
        """What the frozen first blocks make of the training videos, made now where it is not there yet."""
        return keep_features(
            self.config,
            model,
            {"params": self.state.params, "batch_stats": self.state.batch_stats},
            self.train_set,
            assemble.train_clips(self.config, self.train_set.class_names),
            folder,
            mesh=self.mesh,
            quarantine=_quarantine(self.config, self.workdir),
            progress=self.progress.making(),
        )

    def _batches(self) -> AbstractContextManager[Iterator[Any]]:
        span: dict[str, int] = {
            "batch_size": self.plan.batch_size,
            "seed": self.config.train.seed,
            "num_clips_total": self.plan.total_clips,
            "position": self.step * self.plan.batch_size,
        }
        if self.kept is not None:
            return closing(self.kept.batches(self.train_set, **span))
        return train_batches(
            self.train_set,
            assemble.train_clips(self.config, self.train_set.class_names),
            **span,
            num_workers=self.config.data.num_workers,
            shard=sharding.host_shard(),
            quarantine=_quarantine(self.config, self.workdir),
            cache=self.cache,
        )


def predict(
    config: Config,
    dataset: VideoDataset,
    apply: EvaluationApply,
    variables: Variables,
    mesh: jax.sharding.Mesh,
    folder: Path,
    progress: Progress,
    cache: FrameCache | None = None,
) -> evaluation.Predictions:
    """Every video of a split once, with its views; bad ones are noted in ``folder/quarantine.jsonl``.

    See :func:`jaxvid.train.assemble.evaluation_batches`.
    """
    batches = assemble.evaluation_batches(config, dataset, mesh, _quarantine(config, folder), cache)
    with batches:
        return evaluation.evaluate(
            apply.with_side(),
            variables,
            batches,
            num_classes=len(dataset.class_names),
            put=lambda batch: sharding.put(batch, mesh),
            progress=progress.evaluating(len(dataset)),
            num_clips=len(dataset),
        )


def _check_batch_size(config: Config, mesh: jax.sharding.Mesh) -> None:
    size, multiple = config.train.batch_size, sharding.batch_multiple(mesh)
    if size % multiple:
        devices, hosts = mesh.shape[sharding.DATA_AXIS], jax.process_count()
        raise ValueError(
            f"train.batch_size must be a multiple of {multiple}, for {devices} devices along the mesh axis "
            f"{sharding.DATA_AXIS!r} and {hosts} hosts, received train.batch_size={size}."
        )


def _quarantine(config: Config, folder: Path) -> Quarantine:
    """The list of bad videos that this host keeps in a run's folder; training and evaluation share it."""
    return Quarantine(folder / "quarantine.jsonl", config.data.max_bad_fraction, shard=sharding.host_shard())


def _open_splits(config: Config, progress: Progress) -> tuple[VideoDataset, VideoDataset]:
    train_set = assemble.open_dataset(config, config.data.train_split, progress)
    eval_set = assemble.open_dataset(config, config.data.eval_split, progress)
    if train_set.class_names != eval_set.class_names:
        differ = sorted(set(train_set.class_names) ^ set(eval_set.class_names)) or "their order"
        raise ValueError(
            f"splits {config.data.train_split!r} and {config.data.eval_split!r} must have the same classes, "
            f"received {len(train_set.class_names)} and {len(eval_set.class_names)} that differ in {differ}."
        )
    return train_set, eval_set


_FREE_TO_CHANGE = (
    "checkpoint.",
    "eval.",
    "data.num_workers",
    "data.cache_gib",
    "data.root",
    "data.max_bad_fraction",
    "train.cpu_devices",
    "train.mesh",
    "train.tensorboard",
)


def _check_same_run(config: Config, class_names: tuple[str, ...], meta: dict[str, Any]) -> None:
    """A run that goes on with another recipe would be a third run that no config describes."""
    if list(class_names) != meta["class_names"]:
        raise ValueError(
            f"the data set must have the classes that this run was begun with, "
            f"received {list(class_names)} instead of {meta['class_names']}."
        )
    check_same_recipe(config, meta["config"])


def check_same_recipe(config: Config, begun: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` where a config differs, in what may not be changed, from that of the run that goes on."""
    then, now = config_lib.flatten(config_lib.load(dict(begun))), config_lib.flatten(config)
    for name, value in now.items():
        if value != then[name] and not name.startswith(_FREE_TO_CHANGE):
            raise ValueError(
                f"{name} must stay {then[name]!r}, with which this run was begun, received {value!r}; "
                f"choose another --workdir for another recipe."
            )


def save_config(config: Config, workdir: Path) -> None:
    """Writes ``config.json``, once for all hosts."""
    if jax.process_index() == 0:
        write_text(workdir / "config.json", json.dumps(config_lib.to_dict(config), indent=2) + "\n")
