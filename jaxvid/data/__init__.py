"""Data: from files of video to batches of frames. NumPy, Grain and PyAV; jax is never imported here.

``DATASETS`` maps a name to a reader ``(root, split, *, annotations="", val_fraction=0.0) -> VideoDataset``::

    dataset = open_dataset("folder", "~/videos", "train", val_fraction=0.2)

Every reader accepts those two options and refuses a given one that means nothing to it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jaxvid.data.records import BadVideoError, DatasetError, VideoDataset, VideoRecord
from jaxvid.data.sources.folder import read_folder
from jaxvid.data.sources.hmdb51 import read_hmdb51
from jaxvid.data.sources.kinetics import read_kinetics
from jaxvid.data.sources.srtg_csv import read_srtg_csv
from jaxvid.data.sources.ucf101 import read_ucf101
from jaxvid.data.sources.ut_interaction import read_ut_interaction

__all__ = ["DATASETS", "BadVideoError", "DatasetError", "VideoDataset", "VideoRecord", "open_dataset"]


def _digits(root: str, split: str, **options: Any) -> VideoDataset:
    from jaxvid.data.datasets.digits import digits  # brings the encoder

    return digits(root, split, **options)


def _motion(root: str, split: str, **options: Any) -> VideoDataset:
    from jaxvid.data.datasets.motion import motion  # brings the renderer and the encoder

    return motion(root, split, **options)


def _motion_fine(root: str, split: str, **options: Any) -> VideoDataset:
    return _motion(root, split, name="motion_fine", **options)


def _tfds(root: str, split: str, **options: Any) -> VideoDataset:
    from jaxvid.data.sources.tfds import read_tfds  # brings tensorflow-datasets

    return read_tfds(root, split, **options)


DATASETS: Mapping[str, Callable[..., VideoDataset]] = MappingProxyType(
    {
        "digits": _digits,
        "folder": read_folder,
        "hmdb51": read_hmdb51,
        "kinetics": read_kinetics,
        "motion": _motion,
        "motion_fine": _motion_fine,
        "srtg_csv": read_srtg_csv,
        "tfds": _tfds,
        "ucf101": read_ucf101,
        "ut_interaction": read_ut_interaction,
    }
)
"""Name -> reader. Read-only; a new data set is one file in ``sources/`` or ``datasets/`` and one line here."""


def open_dataset(name: str, root: str, split: str, **options: Any) -> VideoDataset:
    """Reads one split of a data set by the reader's name.

    Args:
      name: a name of :data:`DATASETS`.
      root: the data set's folder.
      split: e.g. ``"train"``.
      **options: the reader's own, e.g. ``annotations`` and ``val_fraction``.

    Raises:
      ValueError: the name is unknown; the nearest names are listed.
      DatasetError: the folder or its annotation file is not what the reader expects.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, close))}" if close else f"the names are {', '.join(DATASETS)}"
        raise ValueError(f"the data set's name must be one of jaxvid.data.DATASETS, received {name!r}; {hint}.")
    return DATASETS[name](root, split, **options)
