"""Your own videos or images: one folder per class.

``ROOT/SPLIT/CLASS/FILE`` with splits ``train`` and ``val`` (and any other), or ``ROOT/CLASS/FILE``, of which a fixed
share of every class is held out for ``val``. An image is a video of one frame. A data set is of one kind: where the
training split holds a video, images are what lies beside the videos, such as previews.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxvid.data.records import DatasetError, VideoDataset, VideoRecord
from jaxvid.data.sources.listing import (
    FLOW_RECORD,
    IMAGE_SUFFIXES,
    QUARANTINE,
    VIDEO_SUFFIXES,
    existing_folder,
    is_image,
    is_video,
    refuse_options,
)

_LOG = logging.getLogger(__name__)
_OWN = (FLOW_RECORD, QUARANTINE)


@dataclass(frozen=True)
class _Kind:
    """Which files a data set is made of, and what they are called."""

    noun: str
    one: str
    suffixes: tuple[str, ...]
    takes: Callable[[str], bool]


_VIDEOS, _IMAGES = (
    _Kind("video", "a video", VIDEO_SUFFIXES, is_video),
    _Kind("image", "an image", IMAGE_SUFFIXES, is_image),
)


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
      DatasetError: a training class without a file, a class that training lacks, a file outside a class folder, or no
        file at all; all such problems at once. Other stray files are logged as a warning.
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
    found = _scan(source)
    kind = _IMAGES if found.any(_IMAGES) and not found.any(_VIDEOS) else _VIDEOS
    training = _classes(found, kind, problems)
    problems += [
        f"{source / name}: a class must hold at least 1 {kind.noun}, received 0"
        for name in training
        if not training[name]
    ]
    held_out = {name: _held_out(name, files, val_fraction, seed) for name, files in training.items()}
    if split == train_split:
        chosen = {name: sorted({*files} - held_out[name]) for name, files in training.items()}
    elif has_splits and (base / split).is_dir():
        source = base / split
        chosen = _classes(_scan(source), kind, problems)
        problems += [
            f"{source / name}: a class of split {split!r} must also be one of {train_split!r}, received {name!r}"
            for name in sorted(chosen.keys() - training.keys())
        ]
    elif split == "val" and val_fraction:
        chosen = {name: sorted(files) for name, files in held_out.items()}
    else:
        raise DatasetError(
            f"split {split!r} must be a folder of {base}, or 'val' with val_fraction > 0, received neither."
        )
    if not any(chosen.values()):
        problems.append(f"{source}: split {split!r} must hold at least 1 {kind.noun} as CLASS/FILE, received 0")
    if problems:
        raise DatasetError(problems)
    return _dataset(base, source, split, tuple(sorted(training)), chosen)


def _dataset(
    base: Path, source: Path, split: str, class_names: tuple[str, ...], chosen: dict[str, list[str]]
) -> VideoDataset:
    """Records in the order of class names and file names."""
    records: list[VideoRecord] = []
    for label, class_name in enumerate(class_names):
        folder = source / class_name
        name = folder.relative_to(base).as_posix()
        for file in chosen.get(class_name, ()):  # there may be millions
            records.append(VideoRecord(len(records), label, f"{folder}{os.sep}{file}", f"{name}/{file}"))
    return VideoDataset("folder", split, class_names, tuple(records))


@dataclass(frozen=True)
class _Found:
    """The visible names in a folder of classes: those beside the classes, and the files and folders of each class."""

    folder: Path
    beside: list[str]
    files: dict[str, list[str]]
    folders: dict[str, list[str]]

    def any(self, kind: _Kind) -> bool:
        """Whether a class holds a file of that kind."""
        return any(kind.takes(name) for names in self.files.values() for name in names)


def _scan(folder: Path) -> _Found:
    classes, beside = _listed(folder)
    inside = {name: _listed(folder / name) for name in classes}
    files, folders = ({name: found[part] for name, found in inside.items()} for part in (1, 0))
    return _Found(folder, beside, files, folders)


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """The sorted names of the folders and of the other entries; hidden ones are left out."""
    folders: list[str] = []
    others: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if entry.is_dir() else others).append(entry.name)
    return sorted(folders), sorted(others)


def _classes(found: _Found, kind: _Kind, problems: list[str]) -> dict[str, list[str]]:
    """The files of each class. What would be lost in silence becomes a problem, the rest is logged."""
    folder, noun = found.folder, kind.noun
    strays = [str(folder / name) for name in found.beside if not kind.takes(name) and name not in _OWN]
    strays += [str(folder / c / name) for c, names in found.files.items() for name in names if not kind.takes(name)]
    problems += [
        f"{folder / name}: {kind.one} must lie in its class's folder, received it beside them"
        for name in found.beside
        if kind.takes(name)
    ]
    problems += [
        f"{folder / c / name}: a class's folder must hold its {noun}s directly, received a folder"
        for c, names in found.folders.items()
        for name in names
    ]
    if strays:
        _warn_of_strays(len(strays), min(strays), kind)
    return {c: [name for name in names if kind.takes(name)] for c, names in found.files.items()}


@functools.lru_cache(maxsize=1024)
def _warn_of_strays(count: int, first: str, kind: _Kind) -> None:
    """Once for each folder: every split of a data set reads the training folder, which names the classes."""
    if multiprocessing.parent_process() is None:  # a process that decodes has nobody to tell
        endings = " ".join(kind.suffixes)
        _LOG.warning("%d files are no %ss (%s) and are left out, first %s", count, kind.noun, endings, first)


def _held_out(class_name: str, files: list[str], fraction: float, seed: int) -> set[str]:
    """The files whose hashes come first: at least one, but not all."""
    if not fraction or len(files) < 2:
        return set()
    count = min(max(round(fraction * len(files)), 1), len(files) - 1)

    def place(file: str) -> bytes:
        name = os.fsencode(f"{seed}/{class_name}/{file}")  # file names need not be valid UTF-8
        return hashlib.sha256(name).digest()

    return {*sorted(files, key=place)[:count]}


def _has_folders(folder: Path) -> bool:
    """Whether it is the folder of a split rather than a class that happens to have the split's name."""
    return folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())
