"""`motion`: an embedded data set whose classes differ in motion only; made by our own code at its first use.

Twelve classes (:mod:`jaxvid.data.datasets.motion_classes`) over random appearance
(:mod:`jaxvid.data.datasets.motion_scene`), as real H.264 files, together with the true region of the action::

    ROOT/motion.json                  what it was made from
    ROOT/train/CLASS/0000.mp4 ...     also readable by the source `folder`
    ROOT/train/regions.npz            see jaxvid.data.datasets.motion_regions
    ROOT/val/...
    ROOT/tfds/motion/1.0.0/...        after make_tfds

It is complete or absent (:mod:`jaxvid.data.datasets.embedded`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxvid.data.datasets.embedded import (
    Recipe,
    folder_of,
    make_once,
    missing_files,
    recipe_of,
    refuse_options,
)
from jaxvid.data.datasets.motion_classes import CLASS_NAMES
from jaxvid.data.datasets.motion_files import ClipJob, file_name, make_clip
from jaxvid.data.datasets.motion_regions import Regions, write_regions
from jaxvid.data.parallel import WorkerDiedError, map_unordered
from jaxvid.data.records import DatasetError, VideoDataset, VideoRecord

VERSION = 1
"""Raised whenever the clips change; a set that was made by another version is made again."""

SPLITS = ("train", "val")
DEFAULT_TRAIN, DEFAULT_VAL = 96, 24
"""Clips of each class."""

_NAME = "motion"
_KEYS = {"version", "num_per_class", "seed", "class_names"}


def make_motion(
    root: str | Path = "",
    *,
    num_train_per_class: int = DEFAULT_TRAIN,
    num_val_per_class: int = DEFAULT_VAL,
    seed: int = 0,
    num_workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Makes the data set, or finds that it is there already.

    The files follow from the arguments alone, not from the number of processes. Another process that makes the same
    set meanwhile is waited for.

    Args:
      root: its folder; empty: ``motion`` in the default folder of data (``$JAXVID_DATA``).
      num_train_per_class: clips of each class in ``train``, at least 1.
      num_val_per_class: clips of each class in ``val``, at least 1.
      seed: of everything that is random, at least 0.
      num_workers: processes; ``None``: one for each core; 0: none, it is done here.
      progress: called with (clips that are done, all clips).

    Returns:
      The folder.

    Raises:
      ValueError: a number is out of its range, or ``root`` holds something else than a `motion`.
    """
    sizes = {"train": num_train_per_class, "val": num_val_per_class}
    for split, size in sizes.items():
        if size < 1:
            raise ValueError(f"num_{split}_per_class must be >= 1, received num_{split}_per_class={size}.")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, received seed={seed}.")
    return make_once(
        _NAME,
        folder_of(_NAME, root),
        _recipe(sizes, seed),
        lambda folder: _write(folder, sizes, seed, num_workers, progress),
    )


def motion(
    root: str,
    split: str,
    *,
    annotations: str = "",
    val_fraction: float = 0.0,
    make: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> VideoDataset:
    """One split of the data set, which is made if it is not there.

    Args:
      root: its folder; empty: the default one.
      split: ``"train"`` or ``"val"``.
      annotations: must be empty.
      val_fraction: must be 0; the splits are fixed, because they share no appearance.
      make: whether to make it when it is absent, or when it was made by another version of this code.
      progress: called with (clips that are done, all clips) while it is made.

    Raises:
      ValueError: an option makes no sense here.
      DatasetError: with ``make=False`` it is not there; or files of it are missing.
    """
    refuse_options(_NAME, split, SPLITS, annotations, val_fraction)
    folder = folder_of(_NAME, root)
    found = recipe_of(_NAME, folder, _KEYS)
    recipe = found or _recipe({"train": DEFAULT_TRAIN, "val": DEFAULT_VAL}, seed=0)
    sizes = recipe["num_per_class"]
    if found is None or not _is_current(found):
        if not make:
            raise DatasetError(f"{folder}: must hold version {VERSION} of motion, received {found}")
        make_motion(folder, num_train_per_class=sizes["train"], num_val_per_class=sizes["val"], seed=recipe["seed"])
    return _read(folder, split, sizes[split])


def make_tfds(root: str | Path = "") -> Path:
    """Writes a made data set as a TFDS data set (ArrayRecord, no TensorFlow) too, to ``ROOT/tfds``.

    Returns:
      The folder of the TFDS data set, which the reader `tfds` takes.
    """
    from jaxvid.data.datasets.motion_tfds import build  # brings tensorflow-datasets

    folder = folder_of(_NAME, root)
    return build(folder, folder / "tfds")


def _recipe(sizes: dict[str, int], seed: int) -> Recipe:
    return {"version": VERSION, "num_per_class": sizes, "seed": seed, "class_names": list(CLASS_NAMES)}


def _is_current(recipe: Recipe) -> bool:
    """Whether this version of the code made it; its sizes and its seed are its maker's choice."""
    return recipe["version"] == VERSION and recipe["class_names"] == list(CLASS_NAMES)


def _write(
    folder: Path,
    sizes: dict[str, int],
    seed: int,
    num_workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    jobs = [
        ClipJob(str(folder / split / file_name(label, number)), split, label, number, seed)
        for split in SPLITS
        for label in range(len(CLASS_NAMES))
        for number in range(sizes[split])
    ]
    made: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for index, result in map_unordered(make_clip, jobs, num_workers=num_workers):
        if isinstance(result, WorkerDiedError):
            raise result
        made[jobs[index].path] = result
        if progress is not None:
            progress(len(made), len(jobs))
    for split in SPLITS:
        own = [job for job in jobs if job.split == split]
        boxes, masks = (np.stack([made[job.path][part] for job in own]) for part in (0, 1))
        names = tuple(file_name(job.label, job.number) for job in own)
        write_regions(folder / split, Regions(names, boxes, masks))


def _read(folder: Path, split: str, num_per_class: int) -> VideoDataset:
    names = [(label, file_name(label, number)) for label in range(len(CLASS_NAMES)) for number in range(num_per_class)]
    present = {f"{path.parent.name}/{path.name}" for path in (folder / split).glob("*/*.mp4")}
    missing = missing_files(folder, split, [name for _, name in names], present)
    if missing:
        raise DatasetError(missing)
    records = tuple(
        VideoRecord(id=position, label=label, video=str(folder / split / name), name=f"{split}/{name}")
        for position, (label, name) in enumerate(names)
    )
    return VideoDataset("motion", split, CLASS_NAMES, records)
