"""What a data set is: an ordered list of labelled videos, and the two ways in which it can be wrong.

A :class:`VideoDataset` knows nothing about pixels. It is what every reader of a file layout returns, what the samplers
and the pipeline index, and it crosses process borders by pickling. Pixels are read by :mod:`jaxvid.data.decode`.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

SHOWN_PROBLEMS = 20
"""So many problems of a data set are printed; the total is always stated."""


class BadVideoError(ValueError):
    """A video that cannot be decoded. The message is one sentence that names the video.

    Attributes:
      path: the file, or ``"<N bytes>"`` for a video that was given as bytes.
      frame: index (in presentation order) of the frame at which it was noticed; ``None`` when it is the whole file.
    """

    def __init__(self, message: str, *, path: str = "", frame: int | None = None):
        super().__init__(message)
        self.path = path
        self.frame = frame


class DatasetError(ValueError):
    """An annotation file or a folder that does not say what it should.

    The message lists the first problems, each as ``file:line: rule, value``, and states how many there are in all.

    Attributes:
      problems: every problem, as a tuple of strings.

    >>> raise DatasetError(["train.csv:3: label must not be empty, received ''", "train.csv:9: ..."])
    Traceback (most recent call last):
    jaxvid.data.records.DatasetError: 2 problems:
      train.csv:3: label must not be empty, received ''
      train.csv:9: ...
    """

    def __init__(self, problems: str | Sequence[str]):
        problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__(_listed(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One labelled video, or one labelled stretch of a video.

    Attributes:
      id: position in the split, 0 .. n-1.
      label: index into the data set's class names.
      video: path of the file, or the encoded file itself.
      name: what a person calls it: the path relative to the data set's root, or a key.
      start: beginning of the stretch in seconds from the first frame; ``None``: the first frame.
      end: end of the stretch in seconds, exclusive; ``None``: after the last frame.
    """

    id: int
    label: int
    video: str | bytes = field(repr=False)
    name: str
    start: float | None = None
    end: float | None = None

    def __post_init__(self):
        if self.id < 0 or self.label < 0:
            raise ValueError(f"id and label must be >= 0, received id={self.id}, label={self.label}.")
        start = 0.0 if self.start is None else self.start
        end = math.inf if self.end is None else self.end
        if not 0 <= start < end or math.isinf(start):
            raise ValueError(f"start and end must hold 0 <= start < end, received start={self.start}, end={self.end}.")


@dataclass(frozen=True)
class VideoDataset:
    """One split of a data set: class names and records, in a stable order. Random access, picklable.

    Attributes:
      name: the reader's name, e.g. ``"folder"``.
      split: e.g. ``"train"``.
      class_names: class ``i``'s name at position ``i``; the same for all splits of one data set.
      records: record ``i`` has ``id == i``. Any sequence with random access; a list is kept as a tuple.

    Raises:
      ValueError: class names repeat, or (lists and tuples) a record's id is not its position or its label has no class.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    records: Sequence[VideoRecord]

    def __post_init__(self):
        object.__setattr__(self, "class_names", tuple(self.class_names))
        repeated = [name for name, count in Counter(self.class_names).items() if count > 1]
        if repeated:
            raise ValueError(f"class_names must differ from each other, received {repeated[0]!r} more than once.")
        if isinstance(self.records, (list, tuple)):
            object.__setattr__(self, "records", tuple(self.records))
            for position, record in enumerate(self.records):
                self._check(position, record)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> VideoRecord:
        return self.records[index]

    def __iter__(self) -> Iterator[VideoRecord]:
        return (self.records[index] for index in range(len(self.records)))

    def relabelled(self, class_names: Sequence[str]) -> VideoDataset:
        """The same videos, their labels those of other class names, among which all of this data set's must be.

        >>> dataset = VideoDataset("folder", "val", ("walk",), [VideoRecord(0, 0, "a.mp4", "a.mp4")])
        >>> dataset.relabelled(("run", "walk"))[0].label
        1

        Raises:
          ValueError: a class of this data set is not among the names.
        """
        places = {name: label for label, name in enumerate(class_names)}
        unknown = [name for name in self.class_names if name not in places]
        if unknown:
            raise ValueError(
                f"the classes of the data set must be among {len(places)} given names, received {unknown[0]!r}, which "
                f"is not, and {len(unknown) - 1} others."
            )
        labels = tuple(places[name] for name in self.class_names)
        return replace(self, class_names=tuple(class_names), records=_Relabelled(self.records, labels))

    def _check(self, position: int, record: VideoRecord) -> None:
        if record.id != position:
            raise ValueError(f"a record's id must be its position {position}, received id={record.id} ({record.name}).")
        if record.label >= len(self.class_names):
            raise ValueError(
                f"label must be < {len(self.class_names)}, the number of classes, received label={record.label} "
                f"({record.name})."
            )


@dataclass(frozen=True)
class _Relabelled(Sequence[VideoRecord]):
    """Records whose label ``i`` became ``labels[i]``."""

    records: Sequence[VideoRecord]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        record = self.records[index]
        return replace(record, label=self.labels[record.label])


def describe(video: str | os.PathLike | bytes) -> str:
    """What messages call a video: its path, or the size of one that was given as bytes.

    >>> describe(b"1234")
    '<4 bytes>'
    """
    return f"<{len(video)} bytes>" if isinstance(video, bytes) else os.fspath(video)


def _listed(problems: tuple[str, ...]) -> str:
    if len(problems) == 1:
        return problems[0]
    lines = [f"{len(problems)} problems:", *(f"  {problem}" for problem in problems[:SHOWN_PROBLEMS])]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"  ... and {len(problems) - SHOWN_PROBLEMS} more")
    return "\n".join(lines)
