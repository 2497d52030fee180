"""Files that are complete or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8; see :func:`replacing`."""
    # File names that are not UTF-8 reach us as lone surrogates (os.fsdecode); this writes their own bytes back.
    with replacing(path) as file:
        file.write(text.encode("utf-8", errors="surrogateescape"))


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


def text_array(names: Sequence[str]) -> np.ndarray:
    """Names as an array for an npz file; a NUL character, which such arrays would lose, becomes U+2400."""
    return np.array([name.replace("\0", "\u2400") for name in names], dtype=np.str_)
