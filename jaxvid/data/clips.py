"""From one record to the pixels of its clip: the only place where a video becomes a network's input.

Training, evaluation, the contact sheet and a prediction of one file all come through :func:`load_clip` or
:func:`load_views`, so that they cannot differ. Every random choice is a function of ``(seed, epoch, record id)``.
Frames and size are chosen before anything is decoded, so that the reader decodes no more and resizes each frame as it
comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxvid.data.augment import crop, eval_corners, flip, flip_flow, random_corner
from jaxvid.data.decode import VideoReader
from jaxvid.data.frame_cache import CachedReader, FrameCache
from jaxvid.data.records import VideoRecord
from jaxvid.data.sampling import FRAME_ORDERS, SAMPLERS, reorder, test_clips

_FLIPS = {"rgb": flip, "flow": flip_flow}
_ORDER, _CLIP = 0, 1  # what random numbers are for: the order of an epoch, the choices of one clip


@dataclass(frozen=True)
class TrainClips:
    """How a training clip is cut out of a video.

    Attributes:
      num_frames: ``T``, at least 1.
      frame_stride: distance of consecutive frames, in frames of the video, at least 1.
      sampler: a name of :data:`jaxvid.data.sampling.SAMPLERS`.
      short_side: the shorter side of the frames is drawn from this closed range, pixels.
      crop_size: side of the square crop, pixels; at most ``short_side[0]``.
      flip: mirror half of the clips horizontally.
      mirror: class ``i`` is class ``mirror[i]`` after a flip; ``None``: a flip changes no label.
      modality: ``"rgb"``, or ``"flow"``, whose direction a flip mirrors too.

    Raises:
      ValueError: a value is out of its range or ``mirror`` does not undo itself.
    """

    num_frames: int
    frame_stride: int
    sampler: str
    short_side: tuple[int, int]
    crop_size: int
    flip: bool = False
    mirror: tuple[int, ...] | None = None
    modality: str = "rgb"

    def __post_init__(self):
        _check(self, "num_frames", "frame_stride", "crop_size")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, received sampler={self.sampler!r}.")
        if self.modality not in _FLIPS:
            raise ValueError(f"modality must be one of {', '.join(_FLIPS)}, received modality={self.modality!r}.")
        low, high = self.short_side
        if not self.crop_size <= low <= high:
            raise ValueError(
                f"short_side must be (low, high) with crop_size <= low <= high, "
                f"received short_side={self.short_side} and crop_size={self.crop_size}."
            )
        mirror = self.mirror
        if mirror is not None and [mirror[i] if 0 <= i < len(mirror) else None for i in mirror] != [
            *range(len(mirror))
        ]:
            raise ValueError(f"mirror must exchange pairs of classes, so that two flips undo it, received {mirror}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """``(T, H, W, 3)`` of a clip."""
        return (self.num_frames, self.crop_size, self.crop_size, 3)


@dataclass(frozen=True)
class EvalClips:
    """The views of a video that an evaluation averages over: ``num_clips`` stretches times ``num_crops`` crops.

    Attributes:
      num_frames: ``T``, at least 1.
      frame_stride: distance of consecutive frames, in frames of the video, at least 1.
      num_clips: stretches, spread evenly over the video; 1 is the centre.
      num_crops: 1, the centre; or 3 along the longer side.
      short_side: of the resized frames, pixels.
      crop_size: side of the square crops, pixels; at most ``short_side``.
      frame_order: ``"natural"``, or ``"shuffled" | "reversed" | "frozen"`` to see whether motion matters.
      sampler: the training's, for which the stretches are chosen (:func:`jaxvid.data.sampling.test_clips`).

    Raises:
      ValueError: a value is out of its range.
    """

    num_frames: int
    frame_stride: int
    num_clips: int
    num_crops: int
    short_side: int
    crop_size: int
    frame_order: str = "natural"
    sampler: str = "random"

    def __post_init__(self):
        _check(self, "num_frames", "frame_stride", "num_clips", "crop_size")
        for name, names in (("num_crops", (1, 3)), ("frame_order", FRAME_ORDERS), ("sampler", tuple(SAMPLERS))):
            if getattr(self, name) not in names:
                listed = ", ".join(map(str, names))
                raise ValueError(f"{name} must be one of {listed}, received {name}={getattr(self, name)!r}.")
        if self.crop_size > self.short_side:
            raise ValueError(
                f"crop_size must be <= short_side, received crop_size={self.crop_size} "
                f"and short_side={self.short_side}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """``(V, T, H, W, 3)`` of the views of a video."""
        return (self.num_clips * self.num_crops, self.num_frames, self.crop_size, self.crop_size, 3)


def load_clip(
    record: VideoRecord, clips: TrainClips, *, seed: int, epoch: int, cache: FrameCache | None = None
) -> tuple[np.ndarray, int]:
    """One training clip and its label.

    Args:
      record: the video.
      clips: how the clip is cut out.
      seed: of the run, ``0 <= seed < 2**64``.
      epoch: pass over the data, at least 0; another epoch is another clip of the same video.
      cache: where frames may be kept and found; it changes nothing but the time.

    Returns:
      ``uint8[T H W 3]`` (a view of a larger array), and the label: that of the record, or after a flip its mirror.

    Raises:
      BadVideoError: the video cannot be decoded.
    """
    rng = clip_rng(seed, epoch, record.id)
    with _open(record, cache) as reader:
        indices = SAMPLERS[clips.sampler](clips.num_frames, clips.frame_stride, reader.num_frames, rng)
        short_side = int(rng.integers(clips.short_side[0], clips.short_side[1] + 1))
        video = reader.read(indices, short_side=short_side)
    height, width = video.shape[1:3]
    video = crop(video, random_corner(height, width, clips.crop_size, rng), clips.crop_size)
    if not clips.flip or rng.random() < 0.5:
        return video, record.label
    return _FLIPS[clips.modality](video), record.label if clips.mirror is None else clips.mirror[record.label]


def load_views(record: VideoRecord, clips: EvalClips, *, seed: int = 0, cache: FrameCache | None = None) -> np.ndarray:
    """All views of one video.

    Args:
      record: the video.
      clips: which views.
      seed: of the shuffle in ``frame_order="shuffled"``; nothing else is random.
      cache: where frames may be kept and found; it changes nothing but the time.

    Returns:
      ``uint8[V T H W 3]``, ``V = num_clips * num_crops``; the crops of one stretch follow each other.

    Raises:
      BadVideoError: the video cannot be decoded.
    """
    rng = clip_rng(seed, 0, record.id)
    with _open(record, cache) as reader:
        video = reader.read(view_frames(clips, reader.num_frames, rng), short_side=clips.short_side)
    height, width = video.shape[1:3]
    corners = eval_corners(height, width, clips.crop_size, clips.num_crops)
    stretches = np.split(video, clips.num_clips)
    return np.stack([crop(stretch, corner, clips.crop_size) for stretch in stretches for corner in corners])


def view_frames(clips: EvalClips, length: int, rng: np.random.Generator) -> np.ndarray:
    """Which frames of a video its views show: ``int64[num_clips T]``, one stretch after the other.

    Args:
      clips: which views.
      length: frames of the video, at least 1.
      rng: source of the shuffle in ``frame_order="shuffled"``, which changes the order and not the frames.
    """
    grid = test_clips(clips.num_frames, clips.frame_stride, length, clips.num_clips, clips.sampler)
    return np.concatenate([reorder(indices, clips.frame_order, rng) for indices in grid])


def clip_rng(seed: int, epoch: int, id: int) -> np.random.Generator:
    """The source of every random choice for one clip: a Philox stream of its own for each ``(seed, epoch, id)``."""
    return np.random.Generator(_philox(seed, _CLIP, epoch, id))


def epoch_order(seed: int, epoch: int, num_records: int) -> np.ndarray:
    """The order of the records in one epoch: ``int64[num_records]``, a permutation that follows from (seed, epoch).

    It sorts the generator's raw 64-bit words, because NumPy promises that those never change; its own ``permutation``
    may, and a run that is resumed after an update must go on with the same order.

    >>> epoch_order(seed=0, epoch=0, num_records=5).tolist() == epoch_order(seed=0, epoch=0, num_records=5).tolist()
    True
    """
    return np.argsort(_philox(seed, _ORDER, epoch, 0).random_raw(num_records), kind="stable")


def _open(record: VideoRecord, cache: FrameCache | None) -> VideoReader | CachedReader:
    if cache is None:
        return VideoReader(record.video, start=record.start, end=record.end)
    return cache.open(record)


def _philox(seed: int, purpose: int, epoch: int, id: int) -> np.random.Philox:
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be >= 0 and < 2**64, received seed={seed}.")
    # The low two words of the counter are left to the stream: 2**128 numbers before it could meet another one.
    return np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=np.array([0, 0, epoch, id], np.uint64))


def _check(clips: TrainClips | EvalClips, *names: str) -> None:
    for name in names:
        if getattr(clips, name) < 1:
            raise ValueError(f"{name} must be >= 1, received {name}={getattr(clips, name)}.")
