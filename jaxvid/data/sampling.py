"""Which frames of a video make a clip.

A sampler is ``(num_frames, frame_stride, length, rng) -> int64[T]``: frame numbers in ``0 .. length-1``, never
decreasing. ``length`` is the number of frames of the video, ``num_frames`` is ``T``. Every random choice comes from the
given NumPy generator.

One rule for videos that are too short: a frame number past the end becomes the last frame, which is *held*. Looping
instead would show a jump that nobody filmed, and to a network that is there to see motion a jump is motion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

DENSE_WINDOW = 64
"""Frames that a dense clip is spread over (TSM, Lin et al. 2019, ``--dense_sample``)."""

FRAME_ORDERS = ("natural", "shuffled", "reversed", "frozen")
"""Orders of :func:`reorder`; all but the first take motion away or turn it around."""


def sample_random(num_frames: int, frame_stride: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """A uniformly random start, then every ``frame_stride``-th frame: the interval selection of the thesis, 4.4.1.

    Args:
      num_frames: ``T``, at least 1.
      frame_stride: distance of consecutive frames of the clip, in frames of the video, at least 1.
      length: frames of the video, at least 1.
      rng: source of the start.

    Returns:
      ``int64[T]``.

    Raises:
      ValueError: a size is smaller than 1.

    >>> sample_random(4, 2, 9, np.random.default_rng(0)).tolist()
    [2, 4, 6, 8]
    >>> sample_random(4, 2, 5, np.random.default_rng(0)).tolist()  # too short: the last frame is held
    [0, 2, 4, 4]
    """
    _check(num_frames, frame_stride, length)
    start = int(rng.integers(_last_start(num_frames, frame_stride, length) + 1))
    return _strided(start, num_frames, frame_stride, length)


def sample_normal(num_frames: int, frame_stride: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """A start drawn from ``N(L/4, L/6)``, then every ``frame_stride``-th frame (thesis 5.4.1 and figure 5.6).

    The start favours clips that lie in the middle of the video. It is rounded down and clipped to ``0 .. L/2``, the
    range that the thesis names, and to the last start at which the clip still fits.

    Args, Returns and Raises: as :func:`sample_random`.

    Note:
      The thesis then draws frames uniformly from the rest of the video, and states a stride for each data set. The
      stride is what is done here.

    >>> sample_normal(4, 5, 120, np.random.default_rng(0)).tolist()
    [32, 37, 42, 47]
    """
    _check(num_frames, frame_stride, length)
    start = int(np.floor(rng.normal(length / 4, length / 6)))
    last = min(length // 2, _last_start(num_frames, frame_stride, length))
    return _strided(min(max(start, 0), last), num_frames, frame_stride, length)


def sample_segments(num_frames: int, frame_stride: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame of each of ``T`` equal segments of the video (TSN, Wang et al. 2016, section 3.1).

    The segments are stretches of time, ``[t L/T, (t+1) L/T)``, so that they are equal whatever ``L`` is; in a video
    with fewer than ``T`` frames neighbouring segments share a frame. ``frame_stride`` means nothing here.

    Args, Returns and Raises: as :func:`sample_random`.

    >>> sample_segments(4, 1, 40, np.random.default_rng(0)).tolist()
    [6, 12, 20, 30]
    """
    _check(num_frames, frame_stride, length)
    return _in_segments(num_frames, length, rng.random(num_frames))


def sample_uniform(num_frames: int, frame_stride: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Frames ``L/T`` apart over the whole video: those at one random position of all segments.

    So U2S samples (Zhao et al. 2020, section IV.B). The segments are those of :func:`sample_segments`. The distance is
    the same between all frames, but for rounding, so that what moves moves as fast as in the video. ``frame_stride``
    means nothing here.

    Args, Returns and Raises: as :func:`sample_random`.

    >>> sample_uniform(4, 1, 40, np.random.default_rng(0)).tolist()
    [6, 16, 26, 36]
    """
    _check(num_frames, frame_stride, length)
    return _in_segments(num_frames, length, np.full(num_frames, rng.random()))


def sample_dense(num_frames: int, frame_stride: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Frames spread evenly over a window of 64 with a random start (TSM, Lin et al. 2019, ``--dense_sample``).

    ``frame_stride`` means nothing here: the distance is ``max(1, 64 // T)``. More than 64 frames make a window of
    ``T``.

    Args, Returns and Raises: as :func:`sample_random`.

    Note:
      TSM's code wraps around at the end of a short video and never draws the last start; here the last frame is held
      and every start is equally likely.

    >>> sample_dense(8, 1, 100, np.random.default_rng(0)).tolist()
    [31, 39, 47, 55, 63, 71, 79, 87]
    """
    _check(num_frames, frame_stride, length)
    start = int(rng.integers(max(0, length - max(DENSE_WINDOW, num_frames)) + 1))
    return _strided(start, num_frames, _dense_stride(num_frames), length)


SAMPLERS: Mapping[str, Callable[[int, int, int, np.random.Generator], np.ndarray]] = MappingProxyType(
    {
        "random": sample_random,
        "normal": sample_normal,
        "segments": sample_segments,
        "uniform": sample_uniform,
        "dense": sample_dense,
    }
)
"""Name -> sampler of training clips. Read-only."""


def test_clips(
    num_frames: int,
    frame_stride: int,
    length: int,
    num_clips: int,
    sampler: str = "random",  # noqa: PT028 (not a test)
) -> np.ndarray:
    """The clips of an evaluation: ``num_clips`` of them, spread evenly over the video; a single one is the centre.

    Args:
      num_frames: ``T``, at least 1.
      frame_stride: distance of consecutive frames, at least 1.
      length: frames of the video, at least 1.
      num_clips: at least 1. The first clip begins with the video and the last one ends with it.
      sampler: how the network saw videos in training. ``"random"`` and ``"normal"``: strided clips. ``"dense"``: the
        same with the stride of :func:`sample_dense`. ``"segments"`` and ``"uniform"``: clip ``c`` takes the frame at
        ``(c + 1/2) / num_clips`` of each segment.

    Returns:
      ``int64[num_clips T]``.

    Raises:
      ValueError: a size is smaller than 1 or the sampler is unknown.

    >>> test_clips(4, 2, 21, num_clips=3).tolist()
    [[0, 2, 4, 6], [7, 9, 11, 13], [14, 16, 18, 20]]
    >>> test_clips(4, 2, 21, num_clips=1).tolist()
    [[7, 9, 11, 13]]
    """
    _check(num_frames, frame_stride, length)
    if num_clips < 1:
        raise ValueError(f"num_clips must be >= 1, received num_clips={num_clips}.")
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, received sampler={sampler!r}.")
    if sampler in ("segments", "uniform"):
        inside = (np.arange(num_clips) + 0.5) / num_clips
        return np.stack([_in_segments(num_frames, length, np.full(num_frames, u)) for u in inside])
    stride = _dense_stride(num_frames) if sampler == "dense" else frame_stride
    last = _last_start(num_frames, stride, length)
    starts = [last // 2] if num_clips == 1 else [clip * last // (num_clips - 1) for clip in range(num_clips)]
    return np.stack([_strided(start, num_frames, stride, length) for start in starts])


test_clips.__test__ = False  # the field's name for it, not a test to be collected by pytest


def reorder(indices: np.ndarray, frame_order: str, rng: np.random.Generator) -> np.ndarray:
    """The same frames in another order: does a network look at motion at all?

    Args:
      indices: ``int[T]``, frame numbers of a clip.
      frame_order: ``"natural"`` leaves them; ``"reversed"`` runs backwards; ``"shuffled"`` draws one of all ``T!``
        orders uniformly; ``"frozen"`` shows the clip's middle frame, ``indices[T // 2]``, ``T`` times.
      rng: source of the shuffle; the other orders do not touch it.

    Returns:
      ``int[T]``, a new array.

    Raises:
      ValueError: the order is unknown.

    >>> reorder(np.array([3, 5, 7, 9]), "frozen", np.random.default_rng(0)).tolist()
    [7, 7, 7, 7]
    """
    if frame_order not in FRAME_ORDERS:
        raise ValueError(f"frame_order must be one of {', '.join(FRAME_ORDERS)}, received frame_order={frame_order!r}.")
    if frame_order == "shuffled":
        return rng.permutation(indices)
    if frame_order == "reversed":
        return indices[::-1].copy()
    if frame_order == "frozen":
        return np.full_like(indices, indices[len(indices) // 2])
    return indices.copy()


def _check(num_frames: int, frame_stride: int, length: int) -> None:
    for name, value in (("num_frames", num_frames), ("frame_stride", frame_stride), ("length", length)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, received {name}={value}.")


def _last_start(num_frames: int, frame_stride: int, length: int) -> int:
    """The last frame at which a clip can begin and still fit; 0 when it never fits."""
    return max(0, length - ((num_frames - 1) * frame_stride + 1))


def _strided(start: int, num_frames: int, frame_stride: int, length: int) -> np.ndarray:
    return np.minimum(start + frame_stride * np.arange(num_frames), length - 1)


def _dense_stride(num_frames: int) -> int:
    return max(1, DENSE_WINDOW // num_frames)


def _in_segments(num_frames: int, length: int, inside: np.ndarray) -> np.ndarray:
    """The frame at the share ``inside`` (in ``[0, 1)``) of each segment; the minimum is for rounding only."""
    return np.minimum(((np.arange(num_frames) + inside) * length / num_frames).astype(np.int64), length - 1)
