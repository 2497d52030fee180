"""Streams of batches: from a data set to arrays in host memory, by threads or by processes.

A stream is *random access*: batch ``b`` is a function of the arguments and of ``b`` alone. Therefore its order does not
depend on the number of workers, going on after ``n`` clips is a slice, and a host's share is a range of rows. Grain
computes the batches ahead of time; it never decides which.

A video that cannot be decoded keeps its row, its id and its label; its pixels are zero, its mask is ``False`` and
its name goes into the quarantine. Any other exception is a bug and ends the stream.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import hashlib
import logging
import weakref
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from absl import flags
from grain.python import SharedMemoryArray

from jaxvid.data.batch_source import BatchSource
from jaxvid.data.clips import EvalClips, TrainClips, epoch_order, load_clip, load_views
from jaxvid.data.frame_cache import FrameCache
from jaxvid.data.quarantine import Quarantine
from jaxvid.data.records import VideoDataset, VideoRecord
from jaxvid.data.workers import WorkerDiedError, num_threads, prepare_worker, start_workers, worker_died
from jaxvid.types import Batch

__all__ = [
    "Batches",
    "EvalClips",
    "FrameCache",
    "TrainClips",
    "WorkerDiedError",
    "draw_batches",
    "eval_batches",
    "load_clip",
    "load_views",
    "train_batches",
]

_DELETIONS_S = 5.0  # seconds; each takes microseconds

log = logging.getLogger(__name__)


def train_batches(
    dataset: VideoDataset,
    clips: TrainClips,
    *,
    batch_size: int,
    seed: int,
    num_clips_total: int,
    position: int = 0,
    num_workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    quarantine: Quarantine | None = None,
    cache: FrameCache | None = None,
) -> Batches:
    """The training stream: one permutation of the records after the other, cut into batches.

    Epochs are not aligned with batches: every batch but the last one of the whole run is full.

    Args:
      dataset: the training split.
      clips: how a clip is cut out of each video.
      batch_size: clips over all hosts; each yields ``batch_size / count`` of them.
      seed: of order and clips, ``0 <= seed < 2**64``.
      num_clips_total: length of the run in clips, counted from its very beginning.
      position: clips that have been consumed already, over all hosts.
      num_workers: decoding processes; 0 decodes in threads of this one.
      shard: ``(index, count)`` of this host, which yields the contiguous rows that belong to it in every batch.
      quarantine: is told of bad videos and may end the run; ``None``: they are only logged.
      cache: keeps decoded frames for later epochs, and changes nothing else; ``None``: every epoch decodes. Of ``w``
        processes each has its own, of ``1 / w`` of the budget. Batches go to them in turn, so that each must meet a
        video itself: after ``e`` epochs ``1 - (1 - 1 / w)**e`` of the clips are found, if the budget is ``w`` times
        what the videos take, and fewer if it is smaller.

    Returns:
      An iterator of :class:`jaxvid.types.Batch` with ``video`` ``uint8[N T H W 3]``; the last batch may hold padding
      rows, whose ``id`` is -1. Close it, or leave its ``with`` block, to end its threads and processes.

    Raises:
      ValueError: an argument is out of its range, the data set is empty, or ``clips.mirror`` does not fit its classes.
      TooManyBadVideosError, WorkerDiedError: from the iterator.
    """
    _check_not_negative(seed=seed, num_clips_total=num_clips_total, position=position, num_workers=num_workers)
    if not len(dataset):
        raise ValueError(f"dataset must hold at least 1 record, received 0 in the split {dataset.split!r}.")
    if clips.mirror is not None and len(clips.mirror) != len(dataset.class_names):
        raise ValueError(
            f"clips.mirror must hold one label for each of the {len(dataset.class_names)} classes, "
            f"received {len(clips.mirror)}."
        )
    if cache is not None and num_workers:
        cache = cache.divided(num_workers)
    source = BatchSource(
        dataset,
        functools.partial(_shuffled, seed=seed, num_records=len(dataset)),
        functools.partial(_load_clip, clips=clips, seed=seed, cache=cache),
        clips.shape,
        batch_size=batch_size,
        span=(position, num_clips_total),
        shard=shard,
        num_threads=num_threads(num_workers),
    )
    return Batches(source, dataset, num_workers=num_workers, quarantine=quarantine)


def eval_batches(
    dataset: VideoDataset,
    clips: EvalClips,
    *,
    batch_size: int,
    num_workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    quarantine: Quarantine | None = None,
    seed: int = 0,
    cache: FrameCache | None = None,
) -> Batches:
    """Every record once, in order. All hosts yield the same number of batches; rows that are left over are padding.

    Args:
      dataset: the split.
      clips: the views of each video.
      batch_size: videos over all hosts.
      num_workers: decoding processes; 0 decodes in threads of this one.
      shard: ``(index, count)`` of this host.
      quarantine: is told of bad videos and may end the run; ``None``: they are only logged.
      seed: of ``frame_order="shuffled"``.
      cache: finds frames that an evaluation before, or the training, has kept, and keeps more. Processes have none:
        they end with the stream, in which every video comes once.

    Returns:
      An iterator of :class:`jaxvid.types.Batch` with ``video`` ``uint8[N V T H W 3]``; padding rows have ``id`` -1.

    Raises:
      ValueError: an argument is out of its range.
      TooManyBadVideosError, WorkerDiedError: from the iterator.
    """
    _check_not_negative(seed=seed, num_workers=num_workers)
    source = BatchSource(
        dataset,
        _in_order,
        functools.partial(_load_views, clips=clips, seed=seed, cache=None if num_workers else cache),
        clips.shape,
        batch_size=batch_size,
        span=(0, len(dataset)),
        shard=shard,
        num_threads=num_threads(num_workers),
    )
    return Batches(source, dataset, num_workers=num_workers, quarantine=quarantine)


def draw_batches(
    dataset: VideoDataset,
    ids: Sequence[int],
    clips: TrainClips,
    *,
    draws: int,
    batch_size: int,
    seed: int,
    num_workers: int = 0,
    quarantine: Quarantine | None = None,
) -> Batches:
    """Training clips for keeping: of each video so many draws, one behind the other.

    A draw depends on ``(seed, draw, the record's name and stretch)`` and not on its id: the video has the same clips in
    every split that it is in, so that folds of one data set share what is made of them.

    Args:
      dataset: the training split.
      ids: of the records whose clips are wanted, in their order.
      clips: how a clip is cut out of each video.
      draws: clips of each video, at least 1.
      batch_size: clips; it may hold those of several videos, or a part of one's.
      seed: of the clips, ``0 <= seed < 2**64``.
      num_workers: decoding processes; 0 decodes in threads of this one.
      quarantine: is told of bad videos and may end the run; ``None``: they are only logged.

    Returns:
      An iterator as that of :func:`train_batches`.

    Raises:
      ValueError: an argument is out of its range.
      TooManyBadVideosError, WorkerDiedError: from the iterator.
    """
    _check_not_negative(seed=seed, num_workers=num_workers)
    if draws < 1:
        raise ValueError(f"draws must be >= 1, received draws={draws}.")
    source = BatchSource(
        dataset,
        functools.partial(_record_by_record, ids=tuple(ids), draws=draws),
        functools.partial(_load_draw, clips=clips, seed=seed),
        clips.shape,
        batch_size=batch_size,
        span=(0, len(ids) * draws),
        shard=(0, 1),
        num_threads=num_threads(num_workers),
    )
    return Batches(source, dataset, num_workers=num_workers, quarantine=quarantine)


def record_key(record: VideoRecord) -> str:
    """What a record is in every split that it is in: 32 hexadecimal digits of its name and stretch."""
    text = repr((record.name, record.start, record.end))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class Batches(Iterator[Batch]):
    """Batches that are computed ahead of time. An iterator that owns threads or processes: close it.

    The arrays of a batch belong to whoever receives it; no memory is used twice.
    """

    def __init__(self, source: BatchSource, dataset: VideoDataset, *, num_workers: int, quarantine: Quarantine | None):
        # Not the source itself: with it, the frames that its cache keeps would outlive the stream.
        self._description, self._dataset = str(source), dataset
        self._quarantine = Quarantine(None, max_bad_fraction=1.0) if quarantine is None else quarantine
        self._num_workers = min(num_workers, len(source))  # a process without a batch would only cost its start
        self._started = not self._num_workers  # with the first batch
        self._left = len(source)
        self._iterator = _read_ahead(source, self._num_workers)
        # Also when nobody closes: with the last reference, or at the interpreter's exit while its modules still work.
        self._end = weakref.finalize(self, _end, source, self._iterator, self._num_workers)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        if not self._left:
            self.close()  # before Grain raises its StopIteration, whose traceback would keep the last batch alive
        if not self._end.alive:
            raise StopIteration
        try:
            video, rows = self._receive()
            self._report_bad_videos(rows)
        except BaseException:
            self.close()
            raise
        self._left -= 1
        return Batch(video=video, label=rows["label"].copy(), id=rows["id"].copy(), mask=rows["mask"].copy())

    def _receive(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            batch = next(self._iterator) if self._started else start_workers(next, self._iterator)
        except StopIteration as end:
            raise RuntimeError(f"{self._description} must all arrive, received all but {self._left}.") from end
        except RuntimeError as error:
            if died := worker_died(error):
                raise died from error
            raise
        self._started = True
        if not self._num_workers:
            return batch["video"], batch["rows"]
        return np.array(batch["video"]), np.array(batch["rows"])  # out of the shared memory, which ends here

    def _report_bad_videos(self, rows: np.ndarray) -> None:
        bad = rows[(rows["id"] >= 0) & ~rows["mask"]]
        split = self._dataset.split
        for row in bad:
            record = self._dataset[int(row["id"])]
            path = record.name if isinstance(record.video, bytes) else str(record.video)
            error, frame = row["error"].decode(errors="ignore"), int(row["frame"])
            if self._quarantine.add(path, error, split, record.id, None if frame < 0 else frame):
                log.warning("A video of the split %r cannot be decoded: %s", split, error)
        if bad.size:
            self._quarantine.check(len(self._dataset), split)

    def close(self) -> None:
        """Ends all threads and processes. Batches that nobody took are dropped; a later ``next`` finds the end."""
        self._end()  # runs once
        self._iterator = iter(())  # the queues of the processes go with it

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(source: BatchSource, iterator: grain.DatasetIterator, num_workers: int) -> None:
    source.close()
    iterator.close()
    if num_workers:
        # Grain's reading threads end by an exception in a cycle of frames that hold each worker's last batch. Only the
        # collector frees them, and until it comes round they fill shared memory.
        gc.collect()
        _await_deletions()


def _await_deletions() -> None:
    """Waits until Grain has given back the shared memory of batches that are gone.

    A thread of Grain does that in its own time. At the interpreter's exit it is ended before it comes round, and Python
    then reports leaked shared memory. It does one thing after the other, so one more waits for all before.
    """
    pool = SharedMemoryArray._del_thread_pool
    if pool is not None:
        with contextlib.suppress(ValueError):  # it was ended already
            pool.apply_async(int).wait(timeout=_DELETIONS_S)


def _read_ahead(source: BatchSource, num_workers: int) -> grain.DatasetIterator:
    """Grain's iterator over a source; its order is that of the source for any number of workers."""
    if not flags.FLAGS.is_parsed():  # Grain looks at its own flags, and outside of absl's app.run nobody parses any
        flags.FLAGS.mark_as_parsed()
    # Two batches at a time share the source's threads, so that none is idle when a batch ends. A worker needs no
    # threads of Grain: it makes one batch while up to three others wait, in its queue and on the way here.
    ahead = 0 if num_workers else 2
    batches = grain.MapDataset.source(source).to_iter_dataset(
        grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
    )
    if num_workers:
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=1)
        batches = batches.mp_prefetch(options, worker_init_fn=prepare_worker)
    return iter(batches)


def _shuffled(place: int, *, seed: int, num_records: int) -> tuple[int, int]:
    epoch, offset = divmod(place, num_records)
    return epoch, int(_cached_order(seed, epoch, num_records)[offset])


_cached_order = functools.lru_cache(maxsize=4)(epoch_order)  # batches that are made at once may lie in two epochs


def _in_order(place: int) -> tuple[int, int]:
    return 0, place


def _record_by_record(place: int, *, ids: tuple[int, ...], draws: int) -> tuple[int, int]:
    position, draw = divmod(place, draws)
    return draw, ids[position]


def _load_draw(record: VideoRecord, draw: int, *, clips: TrainClips, seed: int) -> tuple[np.ndarray, int]:
    same_everywhere = dataclasses.replace(record, id=int(record_key(record)[:7], 16))
    return load_clip(same_everywhere, clips, seed=seed, epoch=draw)


def _load_clip(
    record: VideoRecord, epoch: int, *, clips: TrainClips, seed: int, cache: FrameCache | None
) -> tuple[np.ndarray, int]:
    return load_clip(record, clips, seed=seed, epoch=epoch, cache=cache)


def _load_views(
    record: VideoRecord, epoch: int, *, clips: EvalClips, seed: int, cache: FrameCache | None
) -> tuple[np.ndarray, int]:
    return load_views(record, clips, seed=seed, cache=cache), record.label


def _check_not_negative(**values: int) -> None:
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must be >= 0, received {name}={value}.")
