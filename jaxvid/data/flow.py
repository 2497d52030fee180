"""Dense optical flow of a video, kept as a video: where each pixel goes until the next frame, as ``uint8``.

The flow is that of TV-L1 (C. Zach, T. Pock and H. Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow",
DAGM 2007) in scikit-image's implementation. Its three channels are ``u`` (pixels to the right), ``v`` (pixels down) and
the magnitude ``sqrt(u^2 + v^2)``, which fills the third place of networks that were made for RGB (as in G. Gkioxari
and J. Malik, "Finding Action Tubes", CVPR 2015) and, unlike a copy of ``u`` or ``v``, says something new and does not
change when the video is mirrored. Each is clipped to ``[-bound, bound]`` and stored as ``128 + round(127 x / bound)``:
0 is 128 exactly, and ``-x`` is ``256`` less the value of ``x``. The value 0 is not used.

Pixels are those of the flow video, whose frames are as large as those that the flow was computed on. Frame ``t`` says
what happens between the frames ``t`` and ``t + 1``; the last frame, which has no next one, repeats the one before it.
So a flow video has as many frames as its RGB video, shown at the same times: an index means the same moment in both.

The files are QuickTime with a PNG picture for each frame: no value changes, no channel is stored at half size, every
frame can be decoded alone, and PNG's checksums tell of every damage. Lossless H.264 (RGB, ``veryfast``) would be
smaller by 7 to 14 % (a clip of HMDB-51 at 64 to 224 pixels) and take twice the time to decode; FFV1 decodes flipped
bits without a word.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import IO, Any

import av
import numpy as np

from jaxvid.data.augment import resized_size
from jaxvid.data.container import bad
from jaxvid.data.decode import VideoReader
from jaxvid.data.records import BadVideoError

VERSION = 1
"""Raised whenever the files would change."""

NEUTRAL = 128
"""The value that stands for 0."""

_STEPS = 127  # on either side of it
_PARAMETERS = {"attachment": 15, "tightness": 0.3, "num_warp": 5, "num_iter": 10, "tol": 1e-4, "prefilter": False}
_LUMA = np.array([0.299, 0.587, 0.114], np.float32) / 255  # ITU-R BT.601
_MICROSECONDS = 10**6
_TIME_TOLERANCE = 1e-4  # seconds; far less than a frame, and far more than what is rounded
_CHUNK_BYTES = 64 * 2**20  # of decoded frames that are in memory at once


@dataclass(frozen=True)
class FlowSettings:
    """What the values of a flow video follow from, beside its RGB video.

    Attributes:
      bound: displacements are clipped to ``[-bound, bound]`` pixels, above 0.
      short_side: frames whose shorter side is larger are shrunk to it before, at least 2 pixels; none is enlarged.

    Raises:
      ValueError: a value is out of its range.
    """

    bound: float = 20.0
    short_side: int = 256

    def __post_init__(self):
        if not 0 < self.bound < math.inf:
            raise ValueError(f"bound must be > 0 and finite, received bound={self.bound}.")
        if self.short_side < 2:
            raise ValueError(f"short_side must be >= 2, received short_side={self.short_side}.")

    def to_json(self) -> dict[str, Any]:
        """Everything, with the method and its parameters, as JSON-able values."""
        fixed = {"version": VERSION, "method": "tvl1", "parameters": _PARAMETERS, "channels": ["u", "v", "magnitude"]}
        return fixed | asdict(self)


def require_package() -> str:
    """The version of scikit-image, which computes the flow.

    Raises:
      ImportError: it is not installed.
    """
    try:
        import skimage  # noqa: F401
    except ImportError as error:
        raise ImportError('optical flow needs scikit-image: pip install "jaxvid[flow]"') from error
    return importlib.metadata.version("scikit-image")


def optical_flow(frame: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Where each pixel of a frame is in the following one.

    Args:
      frame: ``uint8[H W 3]``, RGB; H and W at least 2.
      following: ``uint8[H W 3]``.

    Returns:
      ``float32[H W 2]``: ``u``, pixels to the right, and ``v``, pixels down.

    Raises:
      ImportError: scikit-image is not installed.
    """
    require_package()
    from skimage.registration import optical_flow_tvl1

    v, u = optical_flow_tvl1(frame @ _LUMA, following @ _LUMA, dtype=np.float32, **_PARAMETERS)
    return np.stack([u, v], axis=-1)


def quantise(flow: np.ndarray, bound: float) -> np.ndarray:
    """Displacements as pixels of a video.

    Args:
      flow: ``float[... 2]``, ``u`` and ``v`` in pixels.
      bound: above 0; what lies beyond is clipped.

    Returns:
      ``uint8[... 3]``: ``u``, ``v`` and the magnitude.

    >>> quantise(np.array([[0.0, 0.0], [3.0, -4.0], [-99.0, 0.1]]), bound=20).tolist()
    [[128, 128, 128], [147, 103, 160], [1, 129, 255]]
    """
    three = np.concatenate([flow, np.hypot(flow[..., :1], flow[..., 1:])], axis=-1)
    return (NEUTRAL + np.rint(np.clip(three, -bound, bound) * (_STEPS / bound))).astype(np.uint8)


def dequantise(pixels: np.ndarray, bound: float) -> np.ndarray:
    """Displacements from pixels of a flow video.

    Args:
      pixels: ``uint8[... 3]``.
      bound: with which they were quantised.

    Returns:
      ``float32[... 2]``: ``u`` and ``v`` in pixels, to ``bound / 254`` where nothing was clipped.

    >>> dequantise(np.array([[128, 255, 0]], np.uint8), bound=20).tolist()
    [[0.0, 20.0]]
    """
    return (pixels[..., :2].astype(np.float32) - NEUTRAL) * np.float32(bound / _STEPS)


def write_flow(video: str | bytes, settings: FlowSettings, file: IO[bytes]) -> None:
    """Computes the flow of a whole video and writes it.

    Args:
      video: path of the RGB video, or the encoded file itself.
      settings: of the flow.
      file: where to; its position can be changed.

    Raises:
      BadVideoError: a frame cannot be decoded, there is only one (as of an image), or frames have one row or column.
      ImportError: scikit-image is not installed.
    """
    with VideoReader(video) as reader:
        if reader.num_frames < 2:
            raise bad(video, "has 1 frame, as an image has, and flow is what happens between 2")
        if min(reader.height, reader.width) < 2:
            raise bad(video, f"must have frames of at least 2 x 2 pixels, received {reader.height} x {reader.width}")
        encode(_flow_frames(reader, settings), reader.times, reader.fps, file)


def is_flow_of(path: str, video: str, settings: FlowSettings) -> bool:
    """Whether a file is a whole flow video of an RGB video: its length, times and size, looked at without decoding all.

    Raises:
      BadVideoError: the RGB video cannot be opened.
    """
    with VideoReader(video) as rgb:
        size = rgb.height, rgb.width
        shrunk = resized_size(*size, settings.short_side) if min(size) > settings.short_side else size
        try:
            with VideoReader(path) as flow:
                return (
                    (flow.height, flow.width) == shrunk
                    and flow.num_frames == rgb.num_frames
                    and np.abs(flow.times - rgb.times).max() < _TIME_TOLERANCE
                )
        except BadVideoError:
            return False


def encode(frames: Iterable[np.ndarray], times: np.ndarray, fps: float, file: IO[bytes]) -> None:
    """Writes a QuickTime file of PNG pictures; the same bytes for the same arguments.

    Args:
      frames: as many ``uint8[H W 3]`` of one size as there are times.
      times: when each frame is shown, seconds, ascending; kept to a microsecond.
      fps: frames per second; 0 where that is not known.
      file: where to; its position can be changed.
    """
    rate = Fraction(fps or 25).limit_denominator(60060)  # thousandth parts of NTSC's rates too
    unit, ticks = _ticks(np.asarray(times), rate)
    with av.open(file, "w", format="mov", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("png", rate=rate, options={"pred": "paeth"})
        stream.pix_fmt = "rgb24"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = stream.time_base = unit
        for k, (tick, picture) in enumerate(zip(ticks.tolist(), frames, strict=True)):
            if not k:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = tick, unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _ticks(times: np.ndarray, rate: Fraction) -> tuple[Fraction, np.ndarray]:
    """A unit of seconds, and in it the times, ``int64[T]``, ascending: exact where frames come at a fixed rate."""
    order = np.arange(len(times))
    if np.abs(times - order / float(rate)).max() < 1 / _MICROSECONDS:
        return Fraction(1, rate.numerator), order * rate.denominator
    ticks = np.rint(times * _MICROSECONDS).astype(np.int64)
    # A file's times must differ from each other, by one microsecond at least.
    return Fraction(1, _MICROSECONDS), np.maximum.accumulate(ticks - order) + order


def _flow_frames(reader: VideoReader, settings: FlowSettings) -> Iterator[np.ndarray]:
    """``uint8[H W 3]`` for each frame of the video."""
    before = pixels = None
    small = min(reader.height, reader.width) <= settings.short_side
    for frame in _rgb_frames(reader, None if small else settings.short_side):
        if before is not None:
            pixels = quantise(optical_flow(before, frame), settings.bound)
            yield pixels
        before = frame
    if pixels is not None:
        yield pixels


def _rgb_frames(reader: VideoReader, short_side: int | None) -> Iterator[np.ndarray]:
    chunk = max(1, _CHUNK_BYTES // reader.nbytes(1, short_side=short_side))
    for first in range(0, reader.num_frames, chunk):
        yield from reader.read(range(first, min(first + chunk, reader.num_frames)), short_side=short_side)
