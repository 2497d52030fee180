"""The list of videos that could not be decoded: ``quarantine.jsonl``, one JSON object per file.

A broken video is never replaced by another one. Its clip stays in its batch, masked; the video is named here once, in
this run and in every run that goes on from it; and a run that meets too many of them ends.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)

SHOWN_VIDEOS = 5
"""So many bad videos are named in the message that ends a run."""


class TooManyBadVideosError(RuntimeError):
    """More videos could not be decoded than ``max_bad_fraction`` allows. The message is one sentence."""


class Quarantine:
    """Names bad videos in a file, once each, and counts them against a limit.

    Lines are appended whole and are on the disk when :meth:`add` returns. A line that a killed process left unfinished
    is removed before the next one is written. Several objects may share one file, in one process or in several.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, max_bad_fraction: float, *, shard: tuple[int, int] = (0, 1)
    ):
        """Reads what earlier runs noted.

        Args:
          path: the file, made with the first bad video; ``None`` counts in memory only.
          max_bad_fraction: the share of a split's records, in ``[0, 1]``, that may be bad.
          shard: ``(index, count)`` of this host; with several hosts each writes its own file, ``NAME-0-of-2.jsonl``.

        Raises:
          ValueError: the fraction is not in ``[0, 1]``.
        """
        if not 0 <= max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction must be in [0, 1], received max_bad_fraction={max_bad_fraction}.")
        self.max_bad_fraction = max_bad_fraction
        self.path = None if path is None else _of_shard(Path(path), shard)
        self._named: set[str] = set()  # paths that have their line
        self._bad: dict[str, dict[int, str]] = defaultdict(dict)  # split -> record id -> "path (error)"
        self._read_to = 0  # bytes of the file that are known
        if self.path is not None and self.path.exists():
            with self.path.open("rb") as file:
                self._read_on(file)

    def __len__(self) -> int:
        """Number of bad files, whatever their split."""
        return len(self._named)

    def count(self, split: str) -> int:
        """Number of bad records of one split."""
        return len(self._bad[split])

    def add(self, path: str, error: str, split: str, id: int, frame: int | None = None) -> bool:
        """Notes a bad video.

        Args:
          path: of the file, or the record's name where it has none.
          error: what the decoder said, one sentence.
          split: of the record.
          id: of the record, its position in the split.
          frame: index of the frame at which it was noticed; ``None``: the whole file.

        Returns:
          Whether this was news: ``False`` when the file had been named before.
        """
        entry = {"path": path, "error": error, "split": split, "id": int(id), "frame": frame}
        if self.path is None:
            return self._know(entry)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            self._read_on(file)
            file.truncate(self._read_to)  # half a line is what a killed process was writing
            new = self._know(entry)
            if new:
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
                self._read_to = file.tell()
        return new

    def check(self, num_records: int, split: str | None = None) -> None:
        """Ends a run whose data are worse than allowed.

        Args:
          num_records: size of the split.
          split: whose bad records are counted; ``None`` counts those of all splits.

        Raises:
          TooManyBadVideosError: more than ``max_bad_fraction`` of ``num_records`` are bad.
        """
        splits = list(self._bad) if split is None else [split]
        bad = [text for name in splits for _, text in sorted(self._bad[name].items())]
        if len(bad) <= self.max_bad_fraction * num_records:
            return
        whose = "" if split is None else f" of the split {split!r}"
        listed = "" if self.path is None else f"; all are listed in {self.path}"
        raise TooManyBadVideosError(
            f"{len(bad)} of {num_records} videos{whose} ({len(bad) / max(1, num_records):.1%}) could not be decoded, "
            f"more than max_bad_fraction={self.max_bad_fraction} allows: {'; '.join(bad[:SHOWN_VIDEOS])}"
            f"{'; ...' if len(bad) > SHOWN_VIDEOS else ''}{listed}."
        )

    def _know(self, entry: dict[str, Any]) -> bool:
        path, split, id = entry["path"], entry.get("split") or "", entry.get("id")
        new = path not in self._named
        self._named.add(path)
        if id is not None:
            self._bad[split].setdefault(id, f"{path} ({str(entry.get('error', '')).rstrip('.')})")
        return new

    def _read_on(self, file: IO[bytes]) -> None:
        """Takes in the whole lines that were written since the last look, by this object or by another one."""
        file.seek(self._read_to)
        for line in file:
            if not line.endswith(b"\n"):
                break
            self._read_to += len(line)
            try:
                entry = json.loads(line)
                entry["path"]
            except (ValueError, TypeError, KeyError):
                log.warning("%s holds a line that is not an entry of a bad video: %r", self.path, line[:80])
                continue
            self._know(entry)


def _of_shard(path: Path, shard: tuple[int, int]) -> Path:
    index, count = shard
    return path if count == 1 else path.with_name(f"{path.stem}-{index}-of-{count}{path.suffix}")
