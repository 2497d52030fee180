"""What the readers of annotation files share: the video files under a folder, and records for the listed ones."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from jaxvid.data.records import DatasetError, VideoDataset, VideoRecord

VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
FLOW_RECORD, QUARANTINE = "flow.json", "quarantine.jsonl"
"""What lies beside the videos in a folder of optical flow: how it was computed, and of which videos there is none."""
Missing = Literal["keep", "error"]

_MAX_DEPTH = 3  # folders below the root: SPLIT/CLASS/ID is the deepest known layout
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """One line of an annotation file, after its video was looked up.

    Attributes:
      place: ``file:line``.
      path: relative to the root, with forward slashes; where the file is, or should be.
      label: class name.
      exists: whether the file is there.
      start: seconds, when only a stretch of the file is meant.
      end: seconds, exclusive.
    """

    place: str
    path: str
    label: str
    exists: bool
    start: float | None = None
    end: float | None = None


def is_video(name: str) -> bool:
    """Whether a file name looks like a video's; hidden files do not count.

    >>> is_video("a.MP4"), is_video("._a.mp4"), is_video("notes.txt")
    (True, False, False)
    """
    return not name.startswith(".") and name.lower().endswith(VIDEO_SUFFIXES)


def is_image(name: str) -> bool:
    """Whether a file name looks like that of an image; hidden files do not count.

    >>> is_image("a.JPG"), is_image("._a.jpg"), is_image("a.gif")
    (True, False, False)
    """
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def holds_flow(root: str | os.PathLike) -> bool:
    """Whether a data set's folder holds optical flow that ``jaxvid data flow`` made, instead of RGB videos."""
    return bool(os.fspath(root)) and (Path(root).expanduser() / FLOW_RECORD).is_file()


def existing_folder(root: str | os.PathLike) -> Path:
    """The root with ``~`` expanded.

    Raises:
      DatasetError: it is empty or not a folder.
    """
    if not os.fspath(root):
        raise DatasetError("data.root must be the data set's folder, received ''.")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise DatasetError(f"data.root must be a folder, received {os.fspath(root)!r}, which is none.")
    return path


def refuse_options(name: str, **options: object) -> None:
    """Raises ``ValueError`` when an option is given that the named reader has no use for."""
    for option, value in options.items():
        if value:
            raise ValueError(f"{option} must not be given for {name!r} data, received {option}={value!r}.")


def stray_path(path: str) -> str | None:
    """Why a path from an annotation file may not be joined to the root; ``None`` when it may.

    >>> stray_path("run/a.mp4")
    >>> stray_path("../../etc/passwd")
    'a path must stay inside the root'
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0] == "/" or parts[0][1:2] == ":" or "\0" in path:
        return "a path must stay inside the root"
    return None


def videos_by_stem(root: Path) -> dict[str, list[str]]:
    """Video files at most three folders below the root: name without suffix -> paths relative to the root, sorted."""
    found: dict[str, list[str]] = {}
    folders = [("", 0)]
    while folders:
        relative, depth = folders.pop()
        with os.scandir(root / relative) as entries:
            for entry in entries:
                path = f"{relative}/{entry.name}" if relative else entry.name
                if entry.is_dir():
                    if depth < _MAX_DEPTH and not entry.name.startswith("."):
                        folders.append((path, depth + 1))
                elif is_video(entry.name):
                    found.setdefault(os.path.splitext(entry.name)[0], []).append(path)
    return {stem: sorted(paths) for stem, paths in found.items()}


def dataset_of(
    name: str,
    split: str,
    root: Path,
    class_names: Iterable[str],
    listed: Iterable[Listed],
    problems: list[str],
    missing: Missing,
) -> VideoDataset:
    """Turns looked-up lines into a data set whose records are sorted by path and time, or reports what is wrong.

    Listed videos that are not there are never dropped. With ``missing="keep"`` their records stay: they fail when they
    are decoded, are counted and named, and an evaluation counts them as wrong, so that it never changes size. With
    ``missing="error"``, and always when not a single listed video is there, they are problems.

    Raises:
      DatasetError: there are problems, or nothing is listed.
      ValueError: ``missing`` is not one of its two values.
    """
    if missing not in ("keep", "error"):
        raise ValueError(f"missing must be 'keep' or 'error', received missing={missing!r}.")
    listed = sorted(listed, key=lambda entry: (entry.path, entry.start or 0.0, entry.end or 0.0))
    problems = [*problems, *_duplicates(listed)]
    absent = [entry for entry in listed if not entry.exists]
    if absent and (missing == "error" or len(absent) == len(listed)):
        problems += [f"{e.place}: a listed video must exist under {root}, received {e.path!r}" for e in absent]
    if problems:
        raise DatasetError(problems)
    if not listed:
        raise DatasetError(f"split {split!r} of {name!r} data under {root} must list at least 1 video, received 0.")
    if absent:
        _LOG.warning(
            "%d of %d videos of split %s are missing, first %s", len(absent), len(listed), split, absent[0].path
        )
    labels = {label: index for index, label in enumerate(class_names)}
    records = [
        VideoRecord(index, labels[entry.label], str(root / entry.path), entry.path, entry.start, entry.end)
        for index, entry in enumerate(listed)
    ]
    return VideoDataset(name, split, tuple(labels), tuple(records))


def _duplicates(listed: list[Listed]) -> list[str]:
    """A problem for each entry (they are sorted) that names the same stretch of the same file as the one before."""
    return [
        f"{entry.place}: a video must be listed once, received {entry.path!r} again (first at {before.place})"
        for before, entry in itertools.pairwise(listed)
        if (entry.path, entry.start, entry.end) == (before.path, before.start, before.end)
    ]
