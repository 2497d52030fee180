"""Reads a TFDS data set that holds encoded videos as bytes, without TensorFlow and without loading it into memory."""

from __future__ import annotations

import operator
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvid.data.records import DatasetError, VideoDataset, VideoRecord

_NAMES = ("name", "filename", "file_name", "path", "key", "id")
"""Text features that may name a video, in the order of preference."""


def read_tfds(root: str, split: str, *, annotations: str = "", val_fraction: float = 0.0) -> VideoDataset:
    """Reads one split of a prepared TFDS data set.

    Its files must allow random access (``file_format="array_record"``). One feature holds the encoded videos as bytes
    (``Text``, or a scalar ``Tensor`` of bytes), one is a ``ClassLabel``.

    Args:
      root: the folder with ``features.json``, or one above it that has no other data set in it.
      split: in TFDS's own language: ``"train"``, ``"train[:90%]"`` ...
      annotations: ``"VIDEO,LABEL"`` or ``"VIDEO,LABEL,NAME"``: the features to read, where their types leave a choice.
      val_fraction: must be 0; write ``"train[:90%]"`` and ``"train[90%:]"``.

    Raises:
      ValueError: ``val_fraction`` is not 0, or ``annotations`` is not of this form.
      DatasetError: there is no such data set or split, or it has no such features.
    """
    if val_fraction:
        raise ValueError(
            f"val_fraction must be 0 for tfds, whose splits may be cut ('train[:90%]'), received {val_fraction}."
        )
    folder = _find(Path(root).expanduser())
    builder = _builder(folder)
    video, label, name = _features(builder, annotations, folder)
    records = TfdsRecords(str(folder), split, video, label, name)
    try:
        len(records)
    except (ValueError, KeyError) as error:
        have = ", ".join(builder.info.splits)
        raise DatasetError(f"{folder}: split must be made of {have}, received {split!r} ({error})") from error
    class_names = tuple(builder.info.features[label].names)
    return VideoDataset("tfds", split, class_names, records)


class TfdsRecords(Sequence[VideoRecord]):
    """Records that are read when they are asked for. Picklable: another process opens the files for itself.

    Args:
      folder: the data set's, with ``features.json``.
      split: in TFDS's language.
      video: feature with the encoded file; ``label``: the class; ``name``: what to call it, or ``""``.
    """

    def __init__(self, folder: str, split: str, video: str, label: str, name: str):
        self._arguments = folder, split, video, label, name
        self._source: Any = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __len__(self) -> int:
        return len(self._open())

    def __getitem__(self, index: int) -> VideoRecord:
        place = operator.index(index)
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            raise IndexError(f"index must lie in [0, {len(self)}), received {index}.")
        _, split, video, label, name = self._arguments
        example = self._open()[place]
        called = example[name] if name else f"{split}-{place:08d}"
        called = called.decode(errors="replace") if isinstance(called, bytes) else str(called)
        return VideoRecord(id=place, label=int(example[label]), video=bytes(example[video]), name=called)

    def _open(self) -> Any:
        with self._lock:
            if self._source is None:
                folder, split = self._arguments[:2]
                self._source = _builder(Path(folder)).as_data_source(split=split)
            return self._source


def _find(root: Path) -> Path:
    """The folder with ``features.json`` at or below the root."""
    if (root / "features.json").is_file():
        return root
    found = sorted(path.parent for path in root.rglob("features.json"))
    if len(found) == 1:
        return found[0]
    listed = ", ".join(str(path) for path in found) or "none"
    raise DatasetError(f"{root}: must hold one TFDS data set (a folder with features.json), received {listed}")


def _builder(folder: Path) -> Any:
    import tensorflow_datasets  # takes a second, and brings more than reading other layouts needs

    try:
        return tensorflow_datasets.builder_from_directory(str(folder))
    except Exception as error:  # whatever a damaged description raises, in any of TFDS's layers
        raise DatasetError(f"{folder}: must hold a TFDS data set, received {error}") from error


def _features(builder: Any, annotations: str, folder: Path) -> tuple[str, str, str]:
    """Names of the features with the video, the label and the name (empty: there is none)."""
    import tensorflow_datasets

    features = builder.info.features
    texts = [name for name, feature in features.items() if _holds_bytes(feature)]
    labels = [
        name for name, feature in features.items() if isinstance(feature, tensorflow_datasets.features.ClassLabel)
    ]
    given = [part.strip() for part in annotations.split(",")] if annotations else []
    if given:
        if len(given) not in (2, 3):
            raise ValueError(f"annotations must be VIDEO,LABEL or VIDEO,LABEL,NAME for tfds, received {annotations!r}.")
        texts_given = given[:1] + given[2:]
        for name, allowed in ((given[1], labels), *((text, texts) for text in texts_given)):
            if name not in allowed:
                raise DatasetError(f"{folder}: a feature of annotations must be among {allowed}, received {name!r}")
        return given[0], given[1], given[2] if len(given) == 3 else ""
    names = [name for name in _NAMES if name in texts]
    videos = ["video"] if "video" in texts else [name for name in texts if name not in names]
    for what, found in (("a feature of bytes for the video", videos), ("a ClassLabel", labels)):
        if len(found) != 1:
            raise DatasetError(
                f"{folder}: must have exactly one of: {what}, received {found}; "
                f"annotations='VIDEO,LABEL' names the features"
            )
    return videos[0], labels[0], names[0] if names else ""


def _holds_bytes(feature: Any) -> bool:
    """Text, or one value of bytes."""
    if not hasattr(feature, "np_dtype") or hasattr(feature, "names"):
        return False
    return feature.shape == () and feature.np_dtype in (object, bytes, str)
