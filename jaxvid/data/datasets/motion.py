"""`motion` and `motion_fine`: embedded data sets whose classes differ in motion only; made at their first use.

Twelve classes (:mod:`jaxvid.data.datasets.motion_classes`), or six pairs of classes that differ in a detail
(:mod:`jaxvid.data.datasets.motion_fine_classes`), over random appearance (:mod:`jaxvid.data.datasets.motion_scene`), as
real H.264 files, together with the true region of the action. `motion_fine` has its own name in place of `motion`::

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
from jaxvid.data.datasets.motion_courses import ClassTable
from jaxvid.data.datasets.motion_files import CLASS_TABLES, ClipJob, file_name, make_clip
from jaxvid.data.datasets.motion_regions import Regions, write_regions
from jaxvid.data.parallel import WorkerDiedError, map_unordered
from jaxvid.data.records import DatasetError, VideoDataset, VideoRecord

SPLITS = ("train", "val")
DEFAULT_TRAIN, DEFAULT_VAL = 96, 24
"""Clips of each class."""

_KEYS = {"version", "num_per_class", "seed", "class_names"}


def make_motion(
    root: str | Path = "",
    *,
    name: str = "motion",
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
      root: its folder; empty: ``name`` in the default folder of data (``$JAXVID_DATA``).
      name: ``"motion"`` or ``"motion_fine"``.
      num_train_per_class: clips of each class in ``train``, at least 1.
      num_val_per_class: clips of each class in ``val``, at least 1.
      seed: of everything that is random, at least 0.
      num_workers: processes; ``None``: one for each core; 0: none, it is done here.
      progress: called with (clips that are done, all clips).

    Returns:
      The folder.

    Raises:
      ValueError: a number is out of its range, or ``root`` holds something else than this data set.
    """
    table = _table(name)
    sizes = {"train": num_train_per_class, "val": num_val_per_class}
    for split, size in sizes.items():
        if size < 1:
            raise ValueError(f"num_{split}_per_class must be >= 1, received num_{split}_per_class={size}.")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, received seed={seed}.")
    return make_once(
        name,
        folder_of(name, root),
        _recipe(table, sizes, seed),
        lambda folder: _write(table, folder, sizes, seed, num_workers, progress),
    )


def motion(
    root: str,
    split: str,
    *,
    name: str = "motion",
    annotations: str = "",
    val_fraction: float = 0.0,
    make: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> VideoDataset:
    """One split of the data set, which is made if it is not there.

    Args:
      root: its folder; empty: the default one.
      split: ``"train"`` or ``"val"``.
      name: ``"motion"`` or ``"motion_fine"``.
      annotations: must be empty.
      val_fraction: must be 0; the splits are fixed, because they share no appearance.
      make: whether to make it when it is absent, or when it was made by another version of this code.
      progress: called with (clips that are done, all clips) while it is made.

    Raises:
      ValueError: an option makes no sense here.
      DatasetError: with ``make=False`` it is not there; or files of it are missing.
    """
    table = _table(name)
    refuse_options(name, split, SPLITS, annotations, val_fraction)
    folder = folder_of(name, root)
    found = recipe_of(name, folder, _KEYS)
    recipe = found or _recipe(table, {"train": DEFAULT_TRAIN, "val": DEFAULT_VAL}, seed=0)
    sizes = recipe["num_per_class"]
    if found is None or not _is_current(table, found):
        if not make:
            raise DatasetError(f"{folder}: must hold version {table.version} of {name}, received {found}")
        make_motion(
            folder,
            name=name,
            num_train_per_class=sizes["train"],
            num_val_per_class=sizes["val"],
            seed=recipe["seed"],
            progress=progress,
        )
    return _read(table, folder, split, sizes[split])


def make_tfds(root: str | Path = "", *, name: str = "motion") -> Path:
    """Writes a made data set as a TFDS data set (ArrayRecord, no TensorFlow) too, to ``ROOT/tfds``.

    Returns:
      The folder of the TFDS data set, which the reader `tfds` takes.
    """
    from jaxvid.data.datasets.motion_tfds import build  # brings tensorflow-datasets

    folder = folder_of(_table(name).name, root)
    return build(name, folder, folder / "tfds")


def _table(name: str) -> ClassTable:
    if name not in CLASS_TABLES:
        raise ValueError(f"name must be one of {', '.join(CLASS_TABLES)}, received name={name!r}.")
    return CLASS_TABLES[name]


def _recipe(table: ClassTable, sizes: dict[str, int], seed: int) -> Recipe:
    return {"version": table.version, "num_per_class": sizes, "seed": seed, "class_names": list(table.class_names)}


def _is_current(table: ClassTable, recipe: Recipe) -> bool:
    """Whether this version of the code made it; its sizes and its seed are its maker's choice."""
    return recipe["version"] == table.version and recipe["class_names"] == list(table.class_names)


def _write(
    table: ClassTable,
    folder: Path,
    sizes: dict[str, int],
    seed: int,
    num_workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    jobs = [
        ClipJob(str(folder / split / file_name(class_name, number)), split, label, number, seed, table.name)
        for split in SPLITS
        for label, class_name in enumerate(table.class_names)
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
        names = tuple(file_name(table.class_names[job.label], job.number) for job in own)
        write_regions(folder / split, Regions(names, boxes, masks))


def _read(table: ClassTable, folder: Path, split: str, num_per_class: int) -> VideoDataset:
    classes = enumerate(table.class_names)
    names = [(label, file_name(name, number)) for label, name in classes for number in range(num_per_class)]
    present = {f"{path.parent.name}/{path.name}" for path in (folder / split).glob("*/*.mp4")}
    missing = missing_files(folder, split, [name for _, name in names], present)
    if missing:
        raise DatasetError(missing)
    records = tuple(
        VideoRecord(id=position, label=label, video=str(folder / split / name), name=f"{split}/{name}")
        for position, (label, name) in enumerate(names)
    )
    return VideoDataset(table.name, split, table.class_names, records)
