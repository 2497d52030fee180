"""Which videos a person means: files by their names, and all videos, or else all images, under a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from jaxvid.data.sources.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_image, is_video


def find_videos(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """The files that the paths name, in their order; one that is named twice comes twice.

    Args:
      paths: one or more. A file is taken whatever its suffix: decoding it says whether it is a video. Under a folder,
        at any depth, every file counts that has the suffix of a video, in the order of the names; what is hidden does
        not, and links are followed. Where there is no video, images, which are videos of one frame, count instead.

    Raises:
      FileNotFoundError: a path leads to nothing.
      ValueError: there is no path, or a folder holds neither video nor image.
      OSError: a folder cannot be read.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not paths:
        raise ValueError("at least 1 video must be given, received none.")
    return tuple(video for path in paths for video in _videos_at(os.path.expanduser(os.fspath(path))))


def _videos_at(path: str) -> list[str]:
    if not os.path.exists(path):
        hint = "; standard input is not read" if path == "-" else ""
        raise FileNotFoundError(f"a video must be a file or a folder, received {path!r}, which does not exist{hint}.")
    if not os.path.isdir(path):
        return [path]
    files = list(_under(path))
    found = [file for file in files if is_video(os.path.basename(file))]
    found = found or [file for file in files if is_image(os.path.basename(file))]
    if not found:
        raise ValueError(
            f"a folder must hold at least 1 video ({' '.join(VIDEO_SUFFIXES)}) or image ({' '.join(IMAGE_SUFFIXES)}), "
            f"received {path!r}, which holds none."
        )
    return found


def _under(folder: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """The visible files under a folder; ``above``: the folders on the way, into which a link must not lead back."""
    status = os.stat(folder)
    here = status.st_dev, status.st_ino
    if here in above:
        return
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir():
            yield from _under(entry.path, (*above, here))
        else:
            yield entry.path
