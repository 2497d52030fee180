"""Decoded frames that stay in memory, so that a small data set is decoded once and not in every epoch.

What is kept is all frames of one record at one short side, ``uint8``, under the record's video and stretch. A frame of
a sound file does not depend on which others are asked for: a cache changes no pixel, and no order. (In a damaged file
whose damage the decoder does not notice, wrong pixels may depend on the key frame from which it began. Of five clips of
each of 2100 damaged files in 14 formats, every one was called bad exactly where it is without a cache; 29 that are
called sound, 25 of them VP8, had other wrong pixels.)

A range of short sides makes every size of it an entry of its own: the more sizes, the more memory and the fewer hits.

First come, first kept, until the budget is used up; nothing is ever dropped for something else. Every video comes once
per epoch in a new random order, so that whatever was used last is needed last: dropping it first or last makes no
difference, and dropping what was used longest ago would lose each video just before it is needed again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from jaxvid.data.decode import VideoReader
from jaxvid.data.records import BadVideoError, VideoRecord

WHOLE = 2
"""A video is decoded whole and kept if it is at most so many times as long as its clip, from first to last frame."""

Key = tuple[str | bytes, float | None, float | None]


class FrameCache:
    """A budget of memory for decoded frames, which all threads of a process may use at once.

    Args:
      max_bytes: of pixels, at least 0.

    Raises:
      ValueError: ``max_bytes`` is negative.

    Note:
      A copy in another process (by pickling) begins empty. A file that changes after its frames were kept is not looked
      at again.

    Example::

        cache = FrameCache(2**30)
        with train_batches(dataset, clips, ..., cache=cache) as batches:
            ...
    """

    def __init__(self, max_bytes: int):
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be >= 0, received max_bytes={max_bytes}.")
        self.max_bytes = max_bytes
        self._nbytes = 0
        self._kept: dict[Key, dict[int, np.ndarray]] = {}  # of each short side uint8[frames H W 3]
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[FrameCache], tuple[int]]:
        return FrameCache, (self.max_bytes,)

    def __len__(self) -> int:
        """How many videos are kept; one of several sizes counts once."""
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels that are kept; at most ``max_bytes``."""
        return self._nbytes

    def divided(self, count: int) -> FrameCache:
        """An empty cache of the share that each of ``count`` processes may have."""
        return FrameCache(self.max_bytes // count)

    def open(self, record: VideoRecord) -> CachedReader:
        """A reader of one record, to be closed.

        Raises:
          BadVideoError: the frames are not here, and the file cannot be opened.
        """
        return CachedReader(self, record)

    def _sizes(self, key: Key) -> dict[int, np.ndarray]:
        with self._lock:
            return dict(self._kept.get(key, {}))

    def _fits(self, nbytes: int) -> bool:
        return self._nbytes + nbytes <= self.max_bytes

    def _keep(self, key: Key, short_side: int, frames: np.ndarray) -> None:
        """Keeps frames, unless another thread has kept the same or used the room up meanwhile."""
        frames.flags.writeable = False
        with self._lock:
            if self._fits(frames.nbytes) and short_side not in self._kept.get(key, {}):
                self._kept.setdefault(key, {})[short_side] = frames
                self._nbytes += frames.nbytes


class CachedReader:
    """One record through a cache: its file is opened only for frames that are not kept. Belongs to one thread.

    Attributes:
      num_frames: how many frames there are (in the stretch).
    """

    def __init__(self, cache: FrameCache, record: VideoRecord):
        self._cache, self._record = cache, record
        self._key = _key(record)
        self._reader: VideoReader | None = None
        self._sizes = cache._sizes(self._key)
        any_size = next(iter(self._sizes.values()), None)
        self.num_frames = self._opened().num_frames if any_size is None else len(any_size)

    def __enter__(self) -> CachedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file, if it was opened."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def read(self, indices: Sequence[int] | np.ndarray, *, short_side: int) -> np.ndarray:
        """The given frames, as :meth:`jaxvid.data.decode.VideoReader.read` gives them; the array is the caller's.

        Args:
          indices: frame numbers in ``[0, num_frames)``, at least one; any order, repetitions allowed.
          short_side: the shorter side of the result in pixels.

        Returns:
          uint8[T H W 3].

        Raises:
          BadVideoError: one of these frames cannot be decoded; whether others can is not asked.
        """
        indices = np.asarray(indices)
        frames = self._sizes.get(short_side)
        if frames is None:
            frames = self._whole(indices, short_side)
        return self._opened().read(indices, short_side=short_side) if frames is None else frames[indices]

    def _whole(self, indices: np.ndarray, short_side: int) -> np.ndarray | None:
        """All frames, decoded and kept; ``None`` where that would cost too much, has no room, or fails."""
        reader = self._opened()
        if reader.num_frames > WHOLE * (indices.max() - indices.min() + 1):
            return None
        if not self._cache._fits(reader.nbytes(reader.num_frames, short_side=short_side)):
            return None
        try:
            frames = reader.read(np.arange(reader.num_frames), short_side=short_side)
        except BadVideoError:
            # The damage may lie where the clip is not. Only the clip's own frames decide whether a video is bad, and a
            # new reader says of them what it would have said without a cache.
            self.close()
            return None
        self._cache._keep(self._key, short_side, frames)
        return frames

    def _opened(self) -> VideoReader:
        if self._reader is None:
            self._reader = VideoReader(self._record.video, start=self._record.start, end=self._record.end)
        return self._reader


def _key(record: VideoRecord) -> Key:
    """What tells a video and its stretch from all others, in any data set; of an encoded file its digest."""
    video = record.video
    return hashlib.sha256(video).digest() if isinstance(video, bytes) else video, record.start, record.end
