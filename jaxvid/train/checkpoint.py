"""Checkpoints: one atomic folder per step that holds all of a run, proven when it is read.

``RUN/checkpoints/STEP`` holds the items ``params``, ``batch_stats``, ``opt_state``, ``ema`` and ``rest`` (step counter
and PRNG key), written by Orbax as plain arrays, so that nothing in it depends on the devices that wrote it; and the
item ``jaxvid``, a JSON record of the caller's meta (config, class names, data position, ...), the metrics, the versions
and the sha256 of every leaf, sealed by a sha256 of its own. Orbax renames the folder into place when it is complete.

A process that dies during a save leaves ``STEP.orbax-checkpoint-tmp`` behind, which is never read. This guards against
the death of a process and against damaged files, not against a computer that loses power before its disk has written.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import jax
import orbax.checkpoint as ocp

import jaxvid
from jaxvid.train import checksums, leaves, step_folder
from jaxvid.train.leaves import ITEMS, State
from jaxvid.train.preservation import BEST_METRIC, KeepLastAndBest
from jaxvid.train.stage_folders import newest_stage
from jaxvid.train.step_folder import FORMAT, RECORD, RECORD_FILE, UnusableError, short
from jaxvid.types import Variables

log = logging.getLogger(__name__)

_LEAN_FILE_BYTES = 1 << 24
_VERSIONS_OF = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "av")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none could be read."""


@dataclass(frozen=True)
class Restored(Generic[State]):
    """What :meth:`Checkpointer.restore` found: a state, the meta that was saved with it, and its step."""

    state: State
    meta: dict[str, Any]
    step: int


class Checkpointer:
    """Saves the states of one run without stopping it, and restores the newest usable one.

    Args:
      directory: ``RUN/checkpoints``; made when absent.
      keep_last: how many of the newest checkpoints stay, at least 1.
      keep_best: how many of those with the highest ``eval/top1`` stay besides; of equal ones the newest.

    Raises:
      ValueError: a count is out of its range.
      CheckpointError: the folder cannot be made or read.
    """

    def __init__(self, directory: str | Path, *, keep_last: int = 2, keep_best: int = 1):
        if keep_last < 1:
            raise ValueError(f"keep_last must be >= 1, received keep_last={keep_last}.")
        if keep_best < 0:
            raise ValueError(f"keep_best must be >= 0, received keep_best={keep_best}.")
        self.directory = Path(directory).absolute()
        self._policy = KeepLastAndBest(keep_last, keep_best)
        self._quiet = _RaisedAnyway()
        self._saving: int | None = None
        self._closed = False
        try:
            for path in step_folder.half_written(self.directory):
                log.warning("%s is what an interrupted save left; it is not used, and removed.", path)
            # Records, not Orbax's metrics files, say what is best: it cannot even start on a damaged one of those.
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self._policy,
                cleanup_tmp_directories=True,
                lightweight_initialize=True,
                # A folder that cannot be made in the background keeps Orbax's threads, and the process, for minutes.
                async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
            )
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"checkpoints cannot be kept in {self.directory}: {short(error)}.") from error
        logging.getLogger("absl").addFilter(self._quiet)
        for path in step_folder.newest_first(self.directory):
            with suppress(UnusableError):
                self._policy.note(int(path.name), step_folder.read_record(path)["metrics"])

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self.close()
        except CheckpointError as error:
            if kind is None:
                raise
            log.error("%s", error)  # the exception under way came first and must stay the one that is seen

    def save(
        self,
        step: int,
        state: Any,
        meta: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        *,
        lean: bool = False,
    ) -> None:
        """Begins to write a step; returns as soon as the state's buffers may be donated.

        A save under way is waited for. The host copy and the hashing (about 1.5 GB/s) happen before this returns;
        compressing and writing go on in a thread, whose failure raises at the next call of any method.

        Args:
          step: training steps that are complete; larger than any that was saved.
          state: a flax.struct dataclass such as ``TrainState``, its leaves whole on every process.
          meta: JSON-able values that come back with the state; ``step`` and ``versions`` are added.
          metrics: scalars of this step's evaluation, if one was made; ``eval/top1`` ranks the step. Those of one that
            is made later come by :meth:`add_metrics`.
          lean: the state will not change before :meth:`wait` has returned, so it is not copied, and it is written in
            small files, which takes less memory.

        Raises:
          ValueError: the step is not larger than the newest one, or meta is not JSON-able.
          CheckpointError: this save cannot begin, or the previous one failed.
        """
        self.wait()
        newest = max(step_folder.steps(self.directory), default=-1)
        if step <= newest:
            raise ValueError(
                f"step must be > {newest}, the newest checkpoint in {self.directory}, received step={step}."
            )
        items = {item: leaves.to_host(found) for item, found in leaves.split(state).items()}
        record = {
            "format": FORMAT,
            "meta": {**meta, "step": int(step), "versions": versions()},
            "metrics": None if metrics is None else {name: float(value) for name, value in metrics.items()},
            "items": {item: checksums.describe(found) for item, found in items.items()},
        }
        try:
            sealed = checksums.seal(record)
        except TypeError as error:
            raise ValueError(f"meta must hold only what JSON knows, received something else: {error}.") from error
        # Orbax copies host arrays before save returns, so nothing refers to the state's buffers afterwards.
        if lean:
            items = {item: leaves.unchanging(found) for item, found in items.items()}
        file_size = _LEAN_FILE_BYTES if lean else None
        arguments: dict[str, ocp.args.CheckpointArgs] = {
            item: ocp.args.PyTreeSave(leaves.nest(found), ocdbt_target_data_file_size=file_size)
            for item, found in items.items()
            if found
        }
        arguments[RECORD] = ocp.args.JsonSave(sealed)
        self._policy.note(step, record["metrics"])
        self._saving = step
        self._guard(lambda: self._manager.save(step, args=ocp.args.Composite(**arguments), force=True))

    def add_metrics(self, step: int, metrics: Mapping[str, float], meta: Mapping[str, Any]) -> None:
        """Adds the evaluation of a step that was saved before it was made, then drops what is no longer kept.

        The record is replaced in one rename, so that a process that dies here leaves the step with or without it.

        Args:
          step: a complete step; one under way is waited for.
          metrics: as in :meth:`save`.
          meta: fields of the meta to replace.

        Raises:
          CheckpointError: the step is missing or damaged, or its record cannot be written.
        """
        self.wait()
        path = self.directory / str(step)
        try:
            record = step_folder.read_record(path)
            record["meta"] |= meta
            record["metrics"] = {name: float(value) for name, value in metrics.items()}
            if jax.process_index() == 0:
                step_folder.replace_record(path, checksums.seal(record))
        except (UnusableError, OSError) as error:
            raise CheckpointError(f"checkpoint {path} cannot take its evaluation: {short(error)}.") from error
        self._policy.note(step, record["metrics"])
        steps = self._manager.all_steps()  # from memory, so that all processes see the same
        for old in sorted(set(steps) - self._policy.kept(steps)):
            self._guard(functools.partial(self._manager.delete, old))

    def restore(
        self, template: State, *, check: Callable[[dict[str, Any]], None] | None = None
    ) -> Restored[State] | None:
        """The newest usable step, or None when there is none at all.

        A step that is damaged is named in a warning and the one before it is used. The damaged folder is then renamed
        to ``STEP.damaged``, because the run will write that step again.

        Args:
          template: a state of the wanted structure. Its tree says which containers the leaves get, the shardings of
            its leaves where they go (any number of devices); leaves without a sharding come back as NumPy arrays.
          check: is called with a step's meta before anything else of it is used; what it raises goes through.

        Raises:
          ValueError: the newest usable checkpoint is of another network, optimizer or key than the template.
          CheckpointError: there are checkpoints and none is usable; the message names each with its reason.
        """
        self.wait()
        reasons: dict[Path, str] = {}
        for path in step_folder.newest_first(self.directory):
            try:
                record = step_folder.read_record(path)
                meta = _meta_of(record)
                if meta["step"] != int(path.name):
                    raise UnusableError(f"it was saved as step {meta['step']}")
                if check is not None:
                    check(meta)
                leaves.check_fits(template, record["items"], path)
                items = {item: step_folder.read_item(path, item, record["items"][item]) for item in ITEMS}
            except UnusableError as why:
                reasons[path] = str(why)
                log.warning("%s cannot be used, because %s; the checkpoint before it is tried.", path, why)
                continue
            self._set_aside(reasons)
            return Restored(leaves.join(template, items), meta, meta["step"])
        if reasons:
            raise CheckpointError(_none_usable(self.directory, reasons))
        return None

    def steps(self) -> list[int]:
        """The steps that are completely on disk, oldest first; waits for a save under way."""
        self.wait()
        return step_folder.steps(self.directory)

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          CheckpointError: the last save failed.
        """
        if not self._closed:
            self._guard(self._manager.wait_until_finished)
            self._saving = None

    def close(self) -> None:
        """Waits, then frees the threads; may be called twice.

        Raises:
          CheckpointError: the last save failed.
        """
        if self._closed:
            return
        try:
            self.wait()
        finally:
            self._closed = True
            with suppress(Exception):  # of a save that failed, wait has told; Orbax would raise it again
                self._manager.close()
            logging.getLogger("absl").removeFilter(self._quiet)

    def _guard(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            path, self._saving = self.directory / str(self._saving), None
            raise CheckpointError(f"checkpoint {path} could not be written: {short(error)}.") from error

    def _set_aside(self, reasons: Mapping[Path, str]) -> None:
        if not reasons:
            return
        if jax.process_index() == 0:
            for path in reasons:
                aside = _free_name(path)
                path.rename(aside)
                log.warning("%s was renamed to %s and may be deleted.", path, aside.name)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("jaxvid.train.checkpoint: damaged steps set aside")
        self._manager.reload()


def load_for_evaluation(path: str | Path, *, best: bool = False) -> tuple[Variables, dict[str, Any]]:
    """The weights and the meta of a checkpoint, from its folder alone.

    Args:
      path: a run folder (of a run in stages its newest one counts), its ``checkpoints`` folder, or one step. Of the
        first two, a damaged step is named in a warning and the next in line is used; nothing is renamed or removed, so
        a run may be writing there.
      best: of several steps the one with the highest ``eval/top1``, instead of the newest.

    Returns:
      ``{"params", "batch_stats"}`` of NumPy arrays, the parameters being the moving average where one was kept; and the
      saved meta with ``step``, ``versions``, ``metrics`` and ``weights`` (``"ema"`` or ``"params"``).

    Raises:
      FileNotFoundError: there is no checkpoint.
      CheckpointError: there are, and none is usable; the message names each with its reason.
    """
    folder = newest_stage(Path(path).absolute())
    if (folder / "checkpoints").is_dir():
        folder = folder / "checkpoints"
    candidates = step_folder.newest_first(folder)
    reasons: dict[Path, str] = {}
    if (folder / RECORD_FILE).exists() or (folder.name.isdecimal() and folder.is_dir() and not candidates):
        candidates = [folder]
    elif best:
        candidates = _best_first(candidates, reasons)
    if not candidates and not reasons:
        raise FileNotFoundError(
            f"checkpoint must be a run folder with a saved step, received {path}, which holds none."
        )
    for candidate in candidates:
        try:
            return _read_weights(candidate)
        except UnusableError as why:
            reasons[candidate] = str(why)
            log.warning("%s cannot be used, because %s.", candidate, why)
    raise CheckpointError(_none_usable(folder, reasons))


def versions() -> dict[str, str]:
    """Versions of jaxvid, Python and the packages that a result depends on."""
    found = {"jaxvid": jaxvid.__version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in _VERSIONS_OF}


class _RaisedAnyway(logging.Filter):
    """Keeps Orbax from logging, with pages of traceback from each of its threads, the failure that we raise."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _best_first(paths: Sequence[Path], reasons: dict[Path, str]) -> list[Path]:
    """Evaluated steps, the best first; ``reasons`` gets the others."""
    policy = KeepLastAndBest(1, 1)
    for path in paths:
        try:
            policy.note(int(path.name), step_folder.read_record(path)["metrics"])
        except UnusableError as why:
            reasons[path] = str(why)
            log.warning("%s cannot be used, because %s.", path, why)
        else:
            if int(path.name) not in policy.scores:
                reasons[path] = f"it was saved without {BEST_METRIC}"
    by_step = {int(path.name): path for path in paths}
    return [by_step[step] for step in reversed(policy.ranked(list(by_step)))]


def _read_weights(path: Path) -> tuple[Variables, dict[str, Any]]:
    record = step_folder.read_record(path)
    items = record["items"]
    weights = "ema" if items["ema"] else "params"
    variables = {
        "params": leaves.nest(step_folder.read_item(path, weights, items[weights])),
        "batch_stats": leaves.nest(step_folder.read_item(path, "batch_stats", items["batch_stats"])),
    }
    return variables, _meta_of(record) | {"weights": weights}


def _meta_of(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record["meta"], "metrics": record["metrics"]}


def _none_usable(directory: Path, reasons: Mapping[Path, str]) -> str:
    listed = "; ".join(f"{path.name}: {reason}" for path, reason in reasons.items())
    return f"{directory} holds no usable checkpoint ({listed})."


def _free_name(path: Path) -> Path:
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    return aside
