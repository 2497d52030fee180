"""Batches by random access: batch ``b`` of a stream is a function of the stream's arguments and ``b`` alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxvid.data.records import BadVideoError, VideoDataset, VideoRecord
from jaxvid.data.workers import portable

ROW = np.dtype([("label", np.int32), ("id", np.int32), ("mask", bool), ("frame", np.int32), ("error", "S500")])
"""What a batch says of each clip besides its pixels: the fields of :class:`jaxvid.types.Batch`, and for one that could
not be decoded the frame (-1: the whole file) and the decoder's message, cut off after 500 bytes of UTF-8. Records of a
fixed size cross process borders as pixels do, in the order of the batches."""


class BatchSource:
    """Batch ``b`` of this host at index ``b``: a sequence for Grain to read ahead in.

    A batch is ``{"video": uint8[N ...], "rows": ROW[N]}``, two arrays, because each one of them is a segment of shared
    memory when it comes from another process. The source can be pickled, and any thread or process may ask for any
    batch at any time.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        order: Callable[[int], tuple[int, int]],
        load: Callable[[VideoRecord, int], tuple[np.ndarray, int]],
        shape: tuple[int, ...],
        *,
        batch_size: int,
        span: tuple[int, int],
        shard: tuple[int, int],
        num_threads: int,
    ):
        """Describes a stream.

        Args:
          dataset: the records.
          order: place in the stream -> ``(epoch, record id)``.
          load: ``(record, epoch)`` -> ``(uint8[shape], label)``; raises ``BadVideoError`` for a video that is broken.
          shape: of one clip.
          batch_size: clips over all hosts.
          span: first place of this stream, and the place after its last one.
          shard: ``(index, count)`` of this host; its rows of each batch are contiguous.
          num_threads: clips that are decoded at once, whatever the number of batches that are asked for at once.

        Raises:
          ValueError: the shard or the batch size is out of its range.
        """
        index, count = shard
        if not 0 <= index < count:
            raise ValueError(f"shard must be (index, count) with 0 <= index < count, received shard={shard}.")
        if batch_size < 1 or batch_size % count:
            raise ValueError(
                f"batch_size must be >= 1 and divisible by the number of hosts, "
                f"received batch_size={batch_size} and {count} hosts."
            )
        self._dataset, self._order, self._load, self._shape = dataset, order, load, shape
        self._batch_size, self._rows = batch_size, batch_size // count
        (self._first, self._last), self._offset = span, index * self._rows
        self._num_threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads, "jaxvid-decode")  # its threads begin with its first task

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_pool"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pool = ThreadPoolExecutor(self._num_threads, "jaxvid-decode")

    def __repr__(self) -> str:
        return f"{len(self)} batches of {self._dataset.name}"  # Grain prints it; all records would fill the screen

    def __len__(self) -> int:
        return max(0, math.ceil((self._last - self._first) / self._batch_size))

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        video = np.zeros((self._rows, *self._shape), np.uint8)
        rows = np.zeros(self._rows, ROW)
        rows["id"] = rows["frame"] = -1
        begin = self._first + index * self._batch_size + self._offset
        places = range(begin, min(begin + self._rows, self._last))
        for _ in self._pool.map(self._fill, video, rows, places):
            pass  # the first exception, in the order of the rows, is raised here
        return {"video": video, "rows": rows}

    def _fill(self, video: np.ndarray, row: np.void, place: int) -> None:
        epoch, id = self._order(place)
        record = self._dataset[id]
        row["id"], row["label"] = record.id, record.label
        try:
            pixels, label = self._load(record, epoch)
        except BadVideoError as error:
            row["error"] = str(error).encode(errors="replace")
            row["frame"] = -1 if error.frame is None else error.frame
        except Exception as error:
            raise portable(error, f"while loading {record.name} (id {record.id}, epoch {epoch})") from None
        else:
            video[...] = pixels
            row["label"], row["mask"] = label, True

    def close(self) -> None:
        """Drops the clips that nobody began to decode, and waits for the others."""
        self._pool.shutdown(wait=True, cancel_futures=True)
