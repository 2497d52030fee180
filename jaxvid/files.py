"""Files that are complete or absent, and folders that can be written to, by one process at a time."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

NPZ_ERRORS = (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
"""What a damaged or foreign file may raise, from NumPy's reader of npz files down to the decompression."""


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8; see :func:`replacing`."""
    # File names that are not UTF-8 reach us as lone surrogates (os.fsdecode); this writes their own bytes back.
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes the whole content of a file; see :func:`replacing`."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears at its place when it is complete; after an error nothing is left of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def only_one(lock: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file, which the kernel frees on any death; ``ValueError(refusal)`` where another process does."""
    import fcntl

    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(refusal) from error
        yield


def make_output_folder(option: str, folder: str | Path) -> Path:
    """Makes a folder where there is none and proves that files can be written to it.

    Args:
      option: what a person set it with, ``--workdir`` or ``--output``; for the message.
      folder: the folder.

    Raises:
      ValueError: it is an empty text or a file, or it cannot be made or written to.

    >>> make_output_folder("--workdir", "")
    Traceback (most recent call last):
        ...
    ValueError: --workdir must be a folder, received an empty text.
    """
    if not str(folder):
        raise ValueError(f"{option} must be a folder, received an empty text.")
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{option} must be a folder, received {path}, which is a file.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # permission bits do not tell of read-only and full file systems
            pass
    except OSError as error:
        raise ValueError(
            f"{option} must be a folder that can be made and written to, received {path} ({error.strerror or error})."
        ) from error
    return path
