"""Sizes, crops and flips: what happens to the pixels of a clip, the same for every frame of it.

The functions that need a random number say *where* to cut, so that it is known before a frame is decoded; the
functions that cut are deterministic. Videos are ``uint8[T H W 3]``; cutting and flipping return views, not copies.
"""

from __future__ import annotations

import numpy as np


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """The size of a frame after resizing its shorter side to ``short_side`` and keeping its shape.

    Args:
      height: pixels, at least 1.
      width: pixels, at least 1.
      short_side: pixels, at least 1.

    Returns:
      ``(height, width)``; the longer side is rounded to the nearest pixel.

    Raises:
      ValueError: a size is smaller than 1.

    >>> resized_size(240, 320, 128), resized_size(320, 240, 128), resized_size(5, 5, 8)
    ((128, 171), (171, 128), (8, 8))
    """
    for name, value in (("height", height), ("width", width), ("short_side", short_side)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, received {name}={value}.")
    short, long = sorted((height, width))
    resized = (2 * long * short_side + short) // (2 * short)
    return (short_side, resized) if height <= width else (resized, short_side)


def random_corner(height: int, width: int, crop_size: int, rng: np.random.Generator) -> tuple[int, int]:
    """The top left corner of a square crop, uniform over all places where it lies inside the frame.

    Args:
      height: of the frame, pixels.
      width: of the frame, pixels.
      crop_size: side of the crop, pixels.
      rng: source of the corner.

    Returns:
      ``(top, left)`` in pixels.

    Raises:
      ValueError: the crop is larger than the frame.
    """
    _check(height, width, crop_size)
    return int(rng.integers(height - crop_size + 1)), int(rng.integers(width - crop_size + 1))


def eval_corners(height: int, width: int, crop_size: int, num_crops: int) -> tuple[tuple[int, int], ...]:
    """The top left corners of the square crops of an evaluation.

    Args:
      height: of the frame, pixels.
      width: of the frame, pixels.
      crop_size: side of the crops, pixels.
      num_crops: 1, the centre; or 3, which lie at both ends and in the middle of the longer side (left, centre, right
        of a landscape; top, centre, bottom of a portrait) and in the middle of the shorter one.

    Returns:
      ``num_crops`` pairs ``(top, left)``.

    Raises:
      ValueError: the crop is larger than the frame, or ``num_crops`` is neither 1 nor 3.

    >>> eval_corners(128, 171, 112, num_crops=1)
    ((8, 29),)
    >>> eval_corners(128, 171, 112, num_crops=3)
    ((8, 0), (8, 29), (8, 59))
    >>> eval_corners(171, 128, 112, num_crops=3)
    ((0, 8), (29, 8), (59, 8))
    """
    _check(height, width, crop_size)
    top, left = (height - crop_size) // 2, (width - crop_size) // 2
    if num_crops == 1:
        return ((top, left),)
    if num_crops != 3:
        raise ValueError(f"num_crops must be 1 or 3, received num_crops={num_crops}.")
    if height > width:
        return (0, left), (top, left), (height - crop_size, left)
    return (top, 0), (top, left), (top, width - crop_size)


def crop(video: np.ndarray, corner: tuple[int, int], crop_size: int) -> np.ndarray:
    """A square cut out of every frame at the same place.

    Args:
      video: ``[T H W C]``.
      corner: ``(top, left)`` in pixels.
      crop_size: side of the square, pixels.

    Returns:
      ``[T crop_size crop_size C]``, a view.

    Raises:
      ValueError: the square does not lie inside the frame.

    >>> crop(np.zeros((16, 128, 171, 3), np.uint8), (8, 59), 112).shape
    (16, 112, 112, 3)
    """
    (top, left), (height, width) = corner, video.shape[1:3]
    _check(height, width, crop_size)
    if not (0 <= top <= height - crop_size and 0 <= left <= width - crop_size):
        raise ValueError(
            f"the crop must lie inside the frame, received corner={corner} and crop_size={crop_size} "
            f"in a frame of {height} x {width} pixels."
        )
    return video[:, top : top + crop_size, left : left + crop_size]


def flip(video: np.ndarray) -> np.ndarray:
    """Mirrors every frame of ``[T H W C]``: left becomes right. A view."""
    return video[:, :, ::-1]


def flip_flow(video: np.ndarray) -> np.ndarray:
    """Mirrors every frame of optical flow: what went to the right goes to the left, so ``u`` changes its sign too.

    Args:
      video: ``uint8[T H W 3]`` of :mod:`jaxvid.data.flow`: ``u`` is the first channel, and 128 is 0.

    Returns:
      ``uint8[T H W 3]``; no view. The value 0, which no flow has, becomes 255, as 1 does.

    >>> flip_flow(np.array([[[[128, 7, 9], [131, 8, 10]]]], np.uint8)).tolist()
    [[[[125, 8, 10], [128, 7, 9]]]]
    """
    mirrored = np.array(flip(video))
    u = mirrored[..., 0]
    mirrored[..., 0] = (255 - u) + (u > 0)  # 256 - u, which uint8 does not hold for 0
    return mirrored


def _check(height: int, width: int, crop_size: int) -> None:
    if not 1 <= crop_size <= min(height, width):
        raise ValueError(
            f"crop_size must be >= 1 and <= the frame's shorter side, "
            f"received crop_size={crop_size} for a frame of {height} x {width} pixels."
        )
