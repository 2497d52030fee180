"""The input pipeline: clips per second that reach the training loop, with decoding threads and decoding processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxvid.benchmarks.clips import write_clip
from jaxvid.benchmarks.timing import Timing, describe_machine
from jaxvid.data.pipeline import TrainClips, train_batches
from jaxvid.data.records import VideoDataset, VideoRecord


def bench_pipeline(
    *,
    runs: int = 5,
    workers: Sequence[int] = (0, 1, 2),
    height: int = 240,
    width: int = 320,
    video_frames: int = 120,
    num_videos: int = 8,
    batch_size: int = 8,
    batches_per_run: int = 6,
    clips: TrainClips | None = None,
) -> Iterator[dict[str, Any]]:
    """Draws training batches from generated H.264 videos as fast as they come.

    One line for each number of worker processes (0: threads of this process). ``first_batch_seconds`` is what a run
    waits for the first batch, start of the workers included. The counted runs begin ``batches_per_run`` batches
    later, when the buffers that the workers filled in the meantime are empty.

    Args:
      runs: counted runs.
      workers: numbers of worker processes.
      height: of the videos, pixels.
      width: of the videos, pixels.
      video_frames: length of each video.
      num_videos: different videos; the data set names each of them several times.
      batch_size: clips in a batch.
      batches_per_run: batches in a run.
      clips: how a clip is cut out; by default 16 frames with stride 2, short side 128-160, a crop of 112.

    Raises:
      ValueError: a number is not positive.
    """
    if min(runs, num_videos, batch_size, batches_per_run) < 1:
        raise ValueError(
            f"runs, num_videos, batch_size and batches_per_run must be >= 1, received runs={runs}, "
            f"num_videos={num_videos}, batch_size={batch_size}, batches_per_run={batches_per_run}."
        )
    clips = clips or TrainClips(16, 2, "random", short_side=(128, 160), crop_size=112, flip=True, mirror=None)
    size = {"num_frames": video_frames, "height": height, "width": width, "gop": 12}
    with tempfile.TemporaryDirectory() as folder:
        dataset = _dataset(Path(folder), num_videos, num_records=max(num_videos, batch_size), size=size)
        for num_workers in workers:
            first, timing = _draw(dataset, clips, num_workers, batch_size, batches_per_run, runs)
            yield {
                "benchmark": "pipeline",
                "num_workers": num_workers,
                "clips_per_second": batch_size * batches_per_run / timing.median,
                "first_batch_seconds": first,
                "batch_size": batch_size,
                "batches_per_run": batches_per_run,
                "video": size,
                "clip": {name: getattr(clips, name) for name in ("num_frames", "frame_stride", "crop_size")},
                **timing.summary(),
                **describe_machine(),
            }


def _dataset(folder: Path, num_videos: int, *, num_records: int, size: dict[str, int]) -> VideoDataset:
    paths = [write_clip(folder / f"{i}.mp4", seed=i, **size) for i in range(num_videos)]
    chosen = [paths[i % num_videos] for i in range(num_records)]
    records = [VideoRecord(id=i, label=0, video=str(path), name=path.name) for i, path in enumerate(chosen)]
    return VideoDataset("bench", "train", ("only",), records)


def _draw(
    dataset: VideoDataset, clips: TrainClips, num_workers: int, batch_size: int, batches_per_run: int, runs: int
) -> tuple[float, Timing]:
    """Seconds until the first batch, and the time of each run of batches."""
    total = 1 + batches_per_run * (1 + runs)  # the first batch, a run that is not counted, the runs
    seconds, cpu_seconds = [], []
    started = time.perf_counter()
    with train_batches(
        dataset, clips, batch_size=batch_size, seed=0, num_clips_total=total * batch_size, num_workers=num_workers
    ) as batches:
        _take(batches, 1, batch_size)
        first = time.perf_counter() - started
        _take(batches, batches_per_run, batch_size)
        for _ in range(runs):
            started, cpu_started = time.perf_counter(), time.process_time()
            _take(batches, batches_per_run, batch_size)
            seconds.append(time.perf_counter() - started)
            cpu_seconds.append(time.process_time() - cpu_started)
        if next(batches, None) is not None:
            raise RuntimeError(f"the pipeline must end after {total} batches, received one more.")
    return first, Timing(tuple(seconds), tuple(cpu_seconds), warmup=1)


def _take(batches: Iterator[Any], count: int, batch_size: int) -> None:
    for _ in range(count):
        batch = next(batches)
        if not batch["mask"].all() or len(batch["mask"]) != batch_size:
            raise RuntimeError(f"every one of the {batch_size} clips must be decoded, received {batch['mask'].sum()}.")
