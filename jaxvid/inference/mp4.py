"""An MP4 file of drawn frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import IO

import av
import numpy as np

_TIME_BASE = Fraction(1, 90_000)  # seconds; the clock of MPEG, which all usual frame rates divide
_X264 = {"crf": "20", "preset": "veryfast"}


def write_mp4(file: IO[bytes], frames: Iterable[np.ndarray], times: Iterable[float]) -> None:
    """Writes H.264 in MP4.

    Args:
      file: open for writing.
      frames: ``uint8[H W 3]`` of one size with even sides, at least 1.
      times: when each is shown, seconds from the first one's, rising.
    """
    frames = iter(frames)
    first = next(frames)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", options=_X264)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        for time, picture in zip(times, _again(first, frames), strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(float(time) / _TIME_BASE), _TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _again(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest
