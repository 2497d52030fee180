"""The folder that a command writes to, made and tried before anything else is done."""

from __future__ import annotations

import tempfile
from pathlib import Path


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
