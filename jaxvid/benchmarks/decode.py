"""Decoding: one clip out of a video, against reading all of its frames."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvid.benchmarks.clips import write_clip
from jaxvid.benchmarks.timing import Timing, describe_machine, measure
from jaxvid.data.decode import VideoReader


def bench_decode(
    *,
    runs: int = 5,
    height: int = 240,
    width: int = 320,
    video_frames: int = 300,
    num_frames: int = 16,
    frame_stride: int = 4,
    gops: Sequence[int] = (12, 250),
    clips_per_run: int = 10,
) -> Iterator[dict[str, Any]]:
    """Decodes clips at random places of a generated H.264 video, opening the file for each clip as training does.

    Two lines for each distance of keyframes: ``read`` is ``clip`` (only what the clip needs) or ``all frames`` (the
    whole video, of which the clip's frames are kept). ``clips_per_second_per_core`` counts processor time, so it
    does not depend on how many threads the decoder uses.

    Args:
      runs: counted runs, after one that is not counted.
      height: of the video, pixels.
      width: of the video, pixels.
      video_frames: length of the video.
      num_frames: frames of a clip.
      frame_stride: frames of the video from one frame of a clip to the next.
      gops: frames from one keyframe to the next, one video each.
      clips_per_run: clips in a run; the same places in every run.

    Raises:
      ValueError: a clip is longer than the video, or a number is not positive.
    """
    span = (num_frames - 1) * frame_stride + 1
    if min(num_frames, frame_stride, clips_per_run) < 1 or span > video_frames:
        raise ValueError(
            f"a clip must fit into the video, with num_frames, frame_stride and clips_per_run >= 1, received "
            f"num_frames={num_frames}, frame_stride={frame_stride}, clips_per_run={clips_per_run}, "
            f"video_frames={video_frames}."
        )
    starts = np.random.default_rng(0).integers(0, video_frames - span + 1, clips_per_run)
    clips = [start + np.arange(num_frames) * frame_stride for start in starts]
    with tempfile.TemporaryDirectory() as folder:
        for gop in gops:
            size = {"num_frames": video_frames, "height": height, "width": width}
            path = write_clip(Path(folder) / f"gop{gop}.mp4", gop=gop, **size)
            everything = measure(_reading(path, clips, whole=True), runs=runs)
            clip = measure(_reading(path, clips, whole=False), runs=runs)
            video = size | {"gop": gop, "codec": "h264", "bytes": path.stat().st_size}
            recipe = {"num_frames": num_frames, "frame_stride": frame_stride, "clips_per_run": clips_per_run}
            for read, timing in (("all frames", everything), ("clip", clip)):
                yield _line(read, timing, clips_per_run) | {
                    "times_as_fast_as_all_frames": everything.median / timing.median,
                    "video": video,
                    "clip": recipe,
                    **timing.summary(),
                    **describe_machine(),
                }


def _line(read: str, timing: Timing, clips_per_run: int) -> dict[str, Any]:
    return {
        "benchmark": "decode",
        "read": read,
        "ms_per_clip": 1000 * timing.median / clips_per_run,
        "clips_per_second": clips_per_run / timing.median,
        "clips_per_second_per_core": clips_per_run / timing.cpu_median,
    }


def _reading(path: Path, clips: Sequence[np.ndarray], *, whole: bool) -> Callable[[], None]:
    """One run: every clip, each from a newly opened file."""

    def read_clips() -> None:
        for indices in clips:
            with VideoReader(path) as reader:
                frames = reader.read(np.arange(reader.num_frames))[indices] if whole else reader.read(indices)
            if len(frames) != len(indices):
                raise RuntimeError(f"a clip must have {len(indices)} frames, received {len(frames)}.")

    return read_clips
