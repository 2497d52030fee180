"""Is a data set whole? Decodes all of every video, counts, and looks for videos that are there twice."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxvid.data.decode import VideoReader
from jaxvid.data.frame_hash import NUM_HASHED, near_pairs, video_hash
from jaxvid.data.parallel import map_unordered
from jaxvid.data.records import BadVideoError, VideoDataset, VideoRecord
from jaxvid.data.workers import WorkerDiedError

_CHUNK = 2048  # frames that are in memory at once, at the size below
_SHORT_SIDE = 32  # pixels, at which frames are looked at
_SHOWN = 20  # lines of each list in the text


@dataclass(frozen=True)
class VideoCheck:
    """What was found in one video.

    Attributes:
      sha256: of the file's bytes; empty where it cannot be read.
      error: why it cannot be decoded; empty where it can. Then the rest is 0.
      frame: at which frame it was noticed, where that is known.
      num_frames, duration, fps, height, width: of the stretch that the record names; seconds and pixels.
      hashes: uint64 of a few frames, see :mod:`jaxvid.data.frame_hash`; empty where the frames are too plain or
        smaller than 32 pixels.
    """

    sha256: str
    error: str = ""
    frame: int | None = None
    num_frames: int = 0
    duration: float = 0.0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    hashes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some numbers; zeros where there are none."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of the values."""
        return cls(float(min(values)), float(np.median(values)), float(max(values))) if len(values) else cls(0, 0, 0)


@dataclass(frozen=True)
class SplitReport:
    """One split.

    Attributes:
      dataset, split: names.
      num_videos: records; ``num_broken`` of them cannot be decoded and are in none of the spreads.
      class_counts: class name -> records, classes without any among them.
      num_frames, duration, fps, height, width: over the videos that can be decoded; seconds and pixels.
    """

    dataset: str
    split: str
    num_videos: int
    num_broken: int
    class_counts: dict[str, int]
    num_frames: Spread
    duration: Spread
    fps: Spread
    height: Spread
    width: Spread


@dataclass(frozen=True)
class BrokenVideo:
    """A video that cannot be decoded, and why."""

    split: str
    name: str
    error: str
    frame: int | None


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_dataset` found.

    Attributes:
      splits: one report each.
      broken: videos that cannot be decoded.
      duplicates: groups of records with the same bytes (and the same stretch of them), as ``"split: name"``.
      near_duplicates: pairs of records of different splits whose frames look alike, though their bytes differ.
    """

    splits: tuple[SplitReport, ...]
    broken: tuple[BrokenVideo, ...]
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, str], ...]

    @property
    def leaks(self) -> tuple[tuple[str, ...], ...]:
        """The duplicates that lie in more than one split."""
        return tuple(group for group in self.duplicates if len({name.partition(": ")[0] for name in group}) > 1)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-able values."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """The report for people: a paragraph for each split, then what is wrong."""
        broken = [f"{b.split}: {b.name}: {b.error}" for b in self.broken]
        others = [group for group in self.duplicates if group not in self.leaks]
        lines = itertools.chain(
            *(_split_lines(report) for report in self.splits),
            _list_lines("broken videos", broken),
            _list_lines("identical videos in different splits", map(" = ".join, self.leaks)),
            _list_lines("identical videos in one split", map(" = ".join, others)),
            _list_lines("videos of different splits that look alike", map(" ~ ".join, self.near_duplicates)),
        )
        return "\n".join(lines)


def check_dataset(
    datasets: VideoDataset | Sequence[VideoDataset],
    *,
    num_workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Decodes every frame of every video and compares the files with each other.

    Args:
      datasets: the splits of one data set, or one of them.
      num_workers: decoding processes; ``None``: one for each core; 0: none, all is decoded here.
      progress: called with (videos that are done, all videos).

    Returns:
      The report. Broken videos are part of it, never an exception; so is a video that brings the decoder's process
      down, unless ``num_workers`` is 0.

    Raises:
      ValueError: two of the data sets have the same split.
    """
    splits = (datasets,) if isinstance(datasets, VideoDataset) else tuple(datasets)
    if len({dataset.split for dataset in splits}) < len(splits):
        raise ValueError(f"splits must differ from each other, received {[dataset.split for dataset in splits]}.")
    records = _Records(splits)
    checks: list[VideoCheck] = [VideoCheck("")] * len(records)
    results = map_unordered(check_video, records, num_workers=num_workers)
    for done, (position, result) in enumerate(results, start=1):
        checks[position] = VideoCheck("", str(result)) if isinstance(result, WorkerDiedError) else result
        if progress is not None:
            progress(done, len(records))
    found = [(split, record, check) for (split, record), check in zip(records.seen(), checks, strict=True)]
    return CheckReport(
        splits=tuple(_split_report(dataset, [f[1:] for f in found if f[0] == dataset.split]) for dataset in splits),
        broken=tuple(BrokenVideo(split, r.name, c.error, c.frame) for split, r, c in found if c.error),
        duplicates=_duplicates(found),
        near_duplicates=_near_duplicates(found, [dataset.split for dataset in splits]),
    )


def check_video(record: VideoRecord) -> VideoCheck:
    """Hashes a file and decodes all frames of the record's stretch."""
    sha256 = ""
    try:
        sha256 = _sha256(record.video)
        with VideoReader(record.video, start=record.start, end=record.end) as reader:
            hashes = video_hash(_frames(reader), reader.num_frames)
            large = min(reader.height, reader.width) >= _SHORT_SIDE  # tiny pictures have too few pixels to differ in
            return VideoCheck(
                sha256=sha256,
                num_frames=reader.num_frames,
                duration=reader.duration,
                fps=reader.fps,
                height=reader.height,
                width=reader.width,
                hashes=hashes if large else (),
            )
    except BadVideoError as error:
        return VideoCheck(sha256, str(error), error.frame)
    except OSError as error:
        return VideoCheck(sha256, f"{record.name} cannot be read: {error.strerror or error}.")


class _Records(Sequence[VideoRecord]):
    """The records of several data sets, one after the other. Remembers them when they are read, without pixels."""

    def __init__(self, datasets: Sequence[VideoDataset]):
        self._datasets = datasets
        self._seen: dict[int, tuple[str, VideoRecord]] = {}
        self._ends = list(itertools.accumulate(len(dataset) for dataset in datasets))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> VideoRecord:
        dataset = bisect.bisect_right(self._ends, index)
        record = self._datasets[dataset][index - (self._ends[dataset - 1] if dataset else 0)]
        self._seen[index] = self._datasets[dataset].split, dataclasses.replace(record, video="")
        return record

    def seen(self) -> list[tuple[str, VideoRecord]]:
        """Every record with its split, once each has been read."""
        return [self._seen[index] for index in range(len(self))]


def _frames(reader: VideoReader) -> Iterator[np.ndarray]:
    for first in range(0, reader.num_frames, _CHUNK):
        yield from reader.read(range(first, min(first + _CHUNK, reader.num_frames)), short_side=_SHORT_SIDE)


def _sha256(video: str | bytes) -> str:
    if isinstance(video, bytes):
        return hashlib.sha256(video).hexdigest()
    with open(video, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_Found = tuple[str, VideoRecord, VideoCheck]


def _split_report(dataset: VideoDataset, found: Sequence[tuple[VideoRecord, VideoCheck]]) -> SplitReport:
    counts = dict.fromkeys(dataset.class_names, 0)
    for record, _ in found:
        counts[dataset.class_names[record.label]] += 1
    sound = [check for _, check in found if not check.error]
    names = ("num_frames", "duration", "fps", "height", "width")
    return SplitReport(
        dataset=dataset.name,
        split=dataset.split,
        num_videos=len(found),
        num_broken=len(found) - len(sound),
        class_counts=counts,
        **{name: Spread.of([getattr(check, name) for check in sound]) for name in names},
    )


def _duplicates(found: Sequence[_Found]) -> tuple[tuple[str, ...], ...]:
    groups = defaultdict(list)
    for split, record, check in found:
        if check.sha256:
            groups[check.sha256, record.start, record.end].append(f"{split}: {record.name}")
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _near_duplicates(found: Sequence[_Found], splits: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    hashed = {split: [f for f in found if f[0] == split and len(f[2].hashes) == NUM_HASHED] for split in splits}
    for one, other in itertools.combinations(splits, 2):
        arrays = (np.array([f[2].hashes for f in hashed[s]], np.uint64).reshape(-1, NUM_HASHED) for s in (one, other))
        for i, j in near_pairs(*arrays):
            a, b = hashed[one][i], hashed[other][j]
            if a[2].sha256 != b[2].sha256:
                pairs.append((f"{one}: {a[1].name}", f"{other}: {b[1].name}"))
    return tuple(pairs)


def _split_lines(report: SplitReport) -> Iterator[str]:
    counts = list(report.class_counts.values())
    spread = Spread.of(counts)
    yield f"{report.dataset}, split {report.split!r}: {report.num_videos} videos, {report.num_broken} of them broken"
    yield f"  {'':14}{'min':>9}{'median':>9}{'max':>9}"
    for label, value in (
        ("per class", spread),
        ("frames", report.num_frames),
        ("seconds", report.duration),
        ("fps", report.fps),
        ("height", report.height),
        ("width", report.width),
    ):
        yield f"  {label:14}{_number(value.min):>9}{_number(value.median):>9}{_number(value.max):>9}"
    yield f"  {len(counts)} classes: " + ", ".join(f"{name} {count}" for name, count in report.class_counts.items())
    yield ""


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _list_lines(what: str, entries: Any) -> Iterator[str]:
    entries = list(entries)
    yield f"{len(entries)} {what}" + (":" if entries else "")
    yield from (f"  {entry}" for entry in entries[:_SHOWN])
    if len(entries) > _SHOWN:
        yield f"  ... and {len(entries) - _SHOWN} more"
