"""``train(config, workdir)``: one run, or one in stages (U2S), each of them an ordinary run in ``RUN/STAGE``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from jaxvid import evaluation
from jaxvid.config import Config
from jaxvid.config.schema import U2SConfig
from jaxvid.data.quarantine import Quarantine
from jaxvid.files import make_output_folder
from jaxvid.models.cost import variable_shapes
from jaxvid.models.universal_to_specific import VARIANTS
from jaxvid.train import assemble, sharding, similarity
from jaxvid.train.confusing import confusing_matrix
from jaxvid.train.loop import TrainResult, check_same_recipe, predict, save_config, train_run
from jaxvid.train.process import only_one_process
from jaxvid.train.run import load_run
from jaxvid.train.stage_folders import holds_stages, newest_stage, write_stages
from jaxvid.train.writers import LoggingProgress, Progress

SIMILARITY = "similarity"
"""The folder of the classes' similarity, beside those of the stages."""


def stage_config(config: Config, index: int) -> Config:
    """The config of one of ``train.stages``, as that of an ordinary run.

    * ``universal`` trains the network without U2S: it is the one-pass twin that U2S is compared with.
    * ``specific`` begins with its weights and trains what U2S adds, the rest frozen.
    * ``joint`` goes on with everything.

    What comes from an earlier stage is found by ``{run}``, the folder of the whole run, which may be moved.
    """
    name, num_epochs, factor = config.train.stages[index]
    rate = config.optimizer.learning_rate * factor
    u2s, finetune = config.model.u2s, config.finetune
    if name == "universal":
        u2s = U2SConfig()
    elif name == "specific":
        needs = VARIANTS[u2s.variant].masks
        u2s = dataclasses.replace(u2s, similarity=u2s.similarity or f"{{run}}/{SIMILARITY}/similarity.npz" * needs)
        finetune = dataclasses.replace(finetune, weights="{run}/universal", trainable=("u2s",))
    else:
        finetune = dataclasses.replace(finetune, weights="{run}/specific")
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, u2s=u2s),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=rate),
        train=dataclasses.replace(config.train, stages=(), num_epochs=num_epochs),
        finetune=finetune,
    )


def train(
    config: Config, workdir: str | Path, *, progress: Progress | None = None, features: Path | None = None
) -> TrainResult:
    """Trains, or goes on training, one network, in the stages of ``config.train.stages`` where there are some.

    Args:
      config: the checked configuration.
      workdir: the run folder; made when absent, resumed when it holds checkpoints.
      progress: told of every step, epoch and message; logs by default.
      features: see :func:`jaxvid.train.loop.train_run`.

    Returns:
      The :class:`TrainResult`, of the last stage; ``finished`` is False when SIGTERM or Ctrl-C ended the run early (its
      state is saved, and the same call goes on).

    Raises:
      ValueError: the config does not fit the data, the devices or the run that the folder holds.
      NonFiniteLossError: the loss was not finite; the message and ``nonfinite.json`` name the batch's clips.
      TooManyBadVideosError: more videos than ``data.max_bad_fraction`` could not be decoded.
    """
    if config.train.stages and not config.data.folds:  # which the call below refuses
        return _train_stages(config, workdir, progress or LoggingProgress())
    if holds_stages(Path(workdir)):
        raise ValueError(f"--workdir must not be a run in stages where train.stages is empty, received {workdir}.")
    return train_run(config, workdir, progress=progress, features=features)


def _train_stages(config: Config, workdir: str | Path, progress: Progress) -> TrainResult:
    """Trains the stages one after the other; the same call goes on where it was stopped.

    A stage begins with the last weights of the one before it, with an EMA their average. Between ``universal`` and
    ``specific`` the classes' similarity is measured on the training videos and kept in ``workdir/similarity``, unless
    ``model.u2s.similarity`` names a file.
    """
    assemble.check_names(config)
    if notice := sharding.split_cpu(config.train.cpu_devices):
        progress.message(notice)
    _check_before_hours(config, progress)
    workdir, stages = make_output_folder("--workdir", workdir), config.train.stages
    predictions: evaluation.Predictions | None = None  # of the stage before, where it was evaluated here
    with only_one_process(workdir):
        if newest_stage(workdir) != workdir:
            _check_same_run(config, workdir / "config.json")
        if jax.process_index() == 0:
            write_stages(workdir, [name for name, _, _ in stages])
        save_config(config, workdir)
        for index, (name, _, _) in enumerate(stages):
            progress.message(f"Stage {name}, {index + 1} of {len(stages)}.")
            own = stage_config(config, index)
            if own.model.u2s.similarity and not config.model.u2s.similarity:
                _measure_similarity(config, workdir, progress, predictions)
            result = train_run(own, workdir / name, progress=progress)
            predictions = result.predictions
            if not result.finished or result.stopped:
                break
    complete = result.finished and index == len(stages) - 1
    if result.finished and not complete:
        progress.message(f"Stopped by a signal behind the stage {name}; the same command goes on.")
    return dataclasses.replace(result, workdir=workdir, finished=complete)


def _check_same_run(config: Config, begun: Path) -> None:
    try:
        stored = json.loads(begun.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # each stage has its own config, and compares it
    check_same_recipe(config, stored)


def _check_before_hours(config: Config, progress: Progress) -> None:
    """Raises now what would be found when the first stage is done: networks that U2S cannot go around, wrong files."""
    clip = (config.data.num_frames, config.data.crop_size, config.data.crop_size)
    variable_shapes(assemble.build_model(config, num_classes=2), clip)
    if given := config.model.u2s.similarity:
        class_names = assemble.open_dataset(config, config.data.train_split, progress).class_names
        confusing_matrix(given, config.model.u2s.variant, class_names)


def _measure_similarity(
    config: Config, workdir: Path, progress: Progress, predictions: evaluation.Predictions | None
) -> None:
    """Writes ``workdir/similarity``, unless it is there: it follows from the finished universal stage alone.

    ``predictions`` are that stage's, where this process has evaluated its last step.
    """
    folder = workdir / SIMILARITY
    if (folder / "similarity.npz").exists():
        return
    # Where the data and the devices are now, which may have changed since the stage was trained.
    run = dataclasses.replace(load_run(workdir / "universal"), config=stage_config(config, 0))
    train_set = assemble.open_dataset(run.config, config.data.train_split, progress)
    quarantine = Quarantine(workdir / "quarantine.jsonl", config.data.max_bad_fraction, shard=sharding.host_shard())
    sparsity = similarity.class_sparsity(run, train_set, quarantine, progress.evaluating(len(train_set)))
    if predictions is None:
        mesh = sharding.make_mesh(run.config.train.mesh)
        variables = sharding.replicate(run.variables, mesh)
        eval_set = assemble.open_dataset(run.config, config.data.eval_split, progress)
        predictions = predict(run.config, eval_set, run.apply, variables, mesh, workdir, progress)
    if jax.process_index() == 0:
        told = similarity.write_similarity(folder, sparsity, predictions, config.model.u2s, run.class_names)
        progress.message(
            f"A class is confused with {told['mean_confusing']:.1f} others on average "
            f"(similarity above {told['threshold']:.3f}, see {folder / 'similarity.png'})."
        )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("jaxvid similarity")  # the others read what the first one wrote
