"""Your own videos: one folder per class.

``ROOT/SPLIT/CLASS/FILE`` with splits ``train`` and ``val`` (and any other), or ``ROOT/CLASS/FILE``, of which a fixed
share of every class is held out for ``val``.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import multiprocessing
import os
from pathlib import Path

from jaxvid.data.records import DatasetError, VideoDataset, VideoRecord
from jaxvid.data.sources.listing import VIDEO_SUFFIXES, existing_folder, is_video, refuse_options

_LOG = logging.getLogger(__name__)


def read_folder(
    root: str,
    split: str,
    *,
    annotations: str = "",
    val_fraction: float = 0.0,
    seed: int = 0,
    train_split: str = "train",
) -> VideoDataset:
    """Reads one split of a folder that has a folder for each class.

    If ROOT holds a folder named ``train_split``, the splits are ROOT's folders and the class names are the sorted
    folders of the training split. Otherwise ROOT's folders are the classes. Without a folder ``val``, the option
    ``val_fraction`` holds out that share of each class of the training videos, rounded, but at least one video and not
    all of them; a class of one video is not held out. Which ones depends on ``seed`` and the files' names only: by
    ascending SHA-256 of ``SEED/CLASS/FILE``.

    Args:
      root: the folder.
      split: ``train_split``, ``val``, or another folder of ROOT.
      annotations: must be empty; the folders say everything.
      val_fraction: share of each class, in [0, 1); 0 holds out nothing.
      seed: chooses another part to hold out.
      train_split: name of the training split.

    Raises:
      DatasetError: a training class without a video, a class that training lacks, a video outside a class folder, or no
        video at all; all such problems at once. Other stray files are logged as a warning.
      ValueError: an option makes no sense for this folder.
    """
    refuse_options("folder", annotations=annotations)
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must lie in [0, 1), received val_fraction={val_fraction}.")
    base = existing_folder(root)
    has_splits = _has_folders(base / train_split)
    if has_splits and val_fraction and (base / "val").is_dir():
        raise ValueError(f"val_fraction must be 0 when {base / 'val'} exists, received val_fraction={val_fraction}.")
    if not has_splits and _has_folders(base / split):
        raise DatasetError(f"{base / train_split} must exist beside {split!r}: its folders are the class names.")
    problems: list[str] = []
    source = base / train_split if has_splits else base
    training = _read_classes(source, problems)
    problems += [
        f"{source / name}: a class must hold at least 1 video, received 0" for name in training if not training[name]
    ]
    held_out = {name: _held_out(name, files, val_fraction, seed) for name, files in training.items()}
    if split == train_split:
        chosen = {name: [file for file in files if file not in held_out[name]] for name, files in training.items()}
    elif has_splits and (base / split).is_dir():
        source = base / split
        chosen = _read_classes(source, problems)
        problems += [
            f"{source / name}: a class of split {split!r} must also be one of {train_split!r}, received {name!r}"
            for name in sorted(chosen.keys() - training.keys())
        ]
    elif split == "val" and val_fraction:
        chosen = held_out
    else:
        raise DatasetError(
            f"split {split!r} must be a folder of {base}, or 'val' with val_fraction > 0, received neither."
        )
    if not any(chosen.values()):
        problems.append(f"{source}: split {split!r} must hold at least 1 video as CLASS/FILE, received 0")
    if problems:
        raise DatasetError(problems)
    return _dataset(base, source, split, tuple(sorted(training)), chosen)


def _dataset(
    base: Path, source: Path, split: str, class_names: tuple[str, ...], chosen: dict[str, list[str]]
) -> VideoDataset:
    """Records in the order of class names and file names."""
    records: list[VideoRecord] = []
    for label, class_name in enumerate(class_names):
        for file in sorted(chosen.get(class_name, ())):
            path = source / class_name / file
            records.append(VideoRecord(len(records), label, str(path), path.relative_to(base).as_posix()))
    return VideoDataset("folder", split, class_names, tuple(records))


def _read_classes(folder: Path, problems: list[str]) -> dict[str, list[str]]:
    """The video files of each class folder. What would be lost in silence becomes a problem, the rest is logged."""
    classes: dict[str, list[str]] = {}
    strays: list[str] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            classes[entry.name] = _read_class(entry, problems, strays)
        elif is_video(entry.name):
            problems.append(f"{entry}: a video must lie in its class's folder, received it beside them")
        elif not entry.name.startswith("."):
            strays.append(str(entry))
    if strays:
        _warn_of_strays(len(strays), strays[0])
    return classes


@functools.lru_cache(maxsize=1024)
def _warn_of_strays(count: int, first: str) -> None:
    """Once for each folder: every split of a data set reads the training folder, which names the classes."""
    if multiprocessing.parent_process() is None:  # a process that decodes has nobody to tell
        endings = " ".join(VIDEO_SUFFIXES)
        _LOG.warning("%d files are no videos (%s) and are left out, first %s", count, endings, first)


def _read_class(folder: Path, problems: list[str], strays: list[str]) -> list[str]:
    files = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            problems.append(f"{entry}: a class's folder must hold its videos directly, received a folder")
        elif is_video(entry.name):
            files.append(entry.name)
        else:
            strays.append(str(entry))
    return files


def _held_out(class_name: str, files: list[str], fraction: float, seed: int) -> list[str]:
    """The files whose hashes come first: at least one, but not all."""
    if not fraction or len(files) < 2:
        return []
    count = min(max(round(fraction * len(files)), 1), len(files) - 1)

    def place(file: str) -> bytes:
        name = os.fsencode(f"{seed}/{class_name}/{file}")  # file names need not be valid UTF-8
        return hashlib.sha256(name).digest()

    return sorted(files, key=place)[:count]


def _has_folders(folder: Path) -> bool:
    """Whether it is the folder of a split rather than a class that happens to have the split's name."""
    return folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())
