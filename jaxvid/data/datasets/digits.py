"""`digits`: the embedded set of images, scikit-learn's handwritten digits as real PNG files, made at their first use.

1797 grey pictures of 8 x 8 pixels: a copy of the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin
and C. Kaynak, 1998, UCI Machine Learning Repository). A value 0 ... 16 of the table is 15 times as much in the file.
Nothing is enlarged there: that is what ``data.short_side`` is for::

    ROOT/digits.json             what it was made from
    ROOT/train/7/0007.png ...    CLASS/ROW of scikit-learn's table; also readable by the source `folder`
    ROOT/val/...

The split is by rows and not by chance. The pictures are of 13 writers, who are not named; but the column of labels is
14 times nearly the same sequence, a form that everybody filled in, and the table is cut where the twelfth form begins.
So one writer at most, who filled in two, can be on both sides. A random split, with every writer on both, would ask an
easier question.
"""

from __future__ import annotations

import functools
import hashlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from jaxvid.data.datasets.embedded import (
    Recipe,
    folder_of,
    make_once,
    missing_files,
    recipe_of,
    refuse_options,
)
from jaxvid.data.records import DatasetError, VideoDataset, VideoRecord

VERSION = 1
"""Raised whenever the files change; a set that was made by another version is made again."""

SPLITS = ("train", "val")
CLASS_NAMES = tuple("0123456789")

NUM_TRAIN = 1415
"""Rows of ``train``; the other 382 are ``val``."""

SCALE = 15
"""Of the table's values 0 ... 16 in the files."""

_NAME = "digits"
_KEYS = {"version", "labels"}
_SHA256 = "6336d3aaac7fda2a940c70f10a61291815eeae066312786cced0c204424b2c56"  # of scikit-learn's pixels and labels


def make_digits(root: str | Path = "") -> Path:
    """Makes the data set, or finds that it is there already.

    Args:
      root: its folder; empty: ``digits`` in the default folder of data (``$JAXVID_DATA``).

    Returns:
      The folder.

    Raises:
      ValueError: ``root`` holds something else than a `digits`.
      ImportError: scikit-learn is not installed.
      DatasetError: scikit-learn's table is not the one that these files are known by.
    """
    folder = folder_of(_NAME, root)
    if _is_current(recipe_of(_NAME, folder, _KEYS)):
        return folder
    pixels, labels = _table()
    return make_once(_NAME, folder, _recipe(labels), functools.partial(_write, pixels=pixels, labels=labels))


def digits(
    root: str, split: str, *, annotations: str = "", val_fraction: float = 0.0, make: bool = True
) -> VideoDataset:
    """One split of the data set, which is made if it is not there.

    Args:
      root: its folder; empty: the default one.
      split: ``"train"`` or ``"val"``.
      annotations: must be empty.
      val_fraction: must be 0; the splits are fixed.
      make: whether to make it when it is absent, or when it was made by another version of this code.

    Raises:
      ValueError: an option makes no sense here.
      DatasetError: with ``make=False`` it is not there; or files of it are missing.
    """
    refuse_options(_NAME, split, SPLITS, annotations, val_fraction)
    folder = folder_of(_NAME, root)
    recipe = recipe_of(_NAME, folder, _KEYS)
    if not _is_current(recipe):
        if not make:
            found = recipe and f"version {recipe['version']}"
            raise DatasetError(f"{folder}: must hold version {VERSION} of digits, received {found}")
        recipe = recipe_of(_NAME, make_digits(folder), _KEYS)
    return _read(folder, split, "" if recipe is None else recipe["labels"])


def _table() -> tuple[np.ndarray, str]:
    """scikit-learn's pictures, uint8[1797 8 8] of 0 ... 16, and their labels, a character each."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the data set digits needs scikit-learn: pip install scikit-learn") from error
    values, targets = load_digits(return_X_y=True)
    pixels, labels = values.reshape(-1, 8, 8).astype(np.uint8), "".join(map(str, targets))
    found = hashlib.sha256(pixels.tobytes() + labels.encode()).hexdigest()
    if found != _SHA256:
        raise DatasetError(f"scikit-learn's digits must have the sha256 {_SHA256}, received {found}")
    return pixels, labels


def _recipe(labels: str) -> Recipe:
    return {"version": VERSION, "labels": labels}


def _is_current(recipe: Recipe | None) -> bool:
    return recipe is not None and recipe["version"] == VERSION


def _names(labels: str, split: str) -> list[tuple[int, int, str]]:
    """``(label, row, CLASS/FILE)`` of each row of a split, by class and then by row."""
    rows = range(NUM_TRAIN) if split == "train" else range(NUM_TRAIN, len(labels))
    return [(int(label), row, f"{label}/{row:04d}.png") for label, row in sorted((labels[row], row) for row in rows)]


def _write(folder: Path, pixels: np.ndarray, labels: str) -> None:
    for split in SPLITS:
        for label in CLASS_NAMES:
            (folder / split / label).mkdir(parents=True)
        for _, row, name in _names(labels, split):
            (folder / split / name).write_bytes(encode(SCALE * pixels[row]))


def encode(picture: np.ndarray) -> bytes:
    """A PNG file of a grey picture, ``uint8[H W]``."""
    codec = av.VideoCodecContext.create("png", "w")
    codec.height, codec.width = picture.shape
    codec.pix_fmt, codec.framerate = "gray", Fraction(1)
    frame = av.VideoFrame.from_ndarray(picture, format="gray")
    return b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))


def _read(folder: Path, split: str, labels: str) -> VideoDataset:
    names = _names(labels, split)
    present = {f"{path.parent.name}/{path.name}" for path in (folder / split).glob("*/*.png")}
    missing = missing_files(folder, split, [name for *_, name in names], present)
    if missing:
        raise DatasetError(missing)
    records = tuple(
        VideoRecord(id=position, label=label, video=str(folder / split / name), name=f"{split}/{name}")
        for position, (label, _, name) in enumerate(names)
    )
    return VideoDataset(_NAME, split, CLASS_NAMES, records)
