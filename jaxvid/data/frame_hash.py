"""Fingerprints of videos that survive another encoding: bits that say where a small grey frame gets brighter.

The difference hash: a frame is reduced to 8 rows of 9 grey values, and each of the 64 bits says whether a value is
smaller than its right neighbour. Equal pictures in another size or of another quality differ in few bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

NUM_HASHED = 3
"""Frames of a video that are hashed: at 1/4, 1/2 and 3/4 of it."""

MAX_BITS = 3
"""In each of the frames of two videos that look alike, at most so many bits differ."""

_MIN_CONTRAST = 4.0  # standard deviation of the grey values, of 255: of plainer frames the bits are noise
_ROWS_AT_ONCE = 256


def frame_hash(frame: np.ndarray) -> int | None:
    """The 64 bits of one frame, or ``None`` if it is too plain.

    Args:
      frame: uint8[H W 3], at least 8 x 9 pixels.

    >>> ramp = np.broadcast_to(np.arange(0, 180, 10, dtype=np.uint8)[:, None], (16, 18, 3))
    >>> frame_hash(ramp) == 2**64 - 1, frame_hash(ramp[:, ::-1]), frame_hash(ramp[:, :1].repeat(18, 1))
    (True, 0, None)
    """
    grey = frame.mean(axis=2)
    for axis, count in ((0, 8), (1, 9)):
        edges = np.linspace(0, grey.shape[axis], count + 1).round().astype(int)
        sums = np.add.reduceat(grey, edges[:-1], axis=axis)
        grey = sums / np.expand_dims(np.diff(edges), 1 - axis)
    if grey.std() < _MIN_CONTRAST:
        return None
    return int.from_bytes(np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes(), "big")


def video_hash(frames: Iterable[np.ndarray], num_frames: int) -> tuple[int, ...]:
    """The hashes of a video's :data:`NUM_HASHED` frames; none at all if one of them is too plain.

    Args:
      frames: all of them; every one is taken.
      num_frames: how many there are.
    """
    places = {(k + 1) * num_frames // (NUM_HASHED + 1) for k in range(NUM_HASHED)}
    chosen = [frame for place, frame in enumerate(frames) if place in places]
    # A video of one or two frames: the same one stands for several.
    hashes = [frame_hash(chosen[min(k, len(chosen) - 1)]) for k in range(NUM_HASHED)]
    sound = tuple(found for found in hashes if found is not None)
    return sound if len(sound) == NUM_HASHED else ()


def near_pairs(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[int, int]]:
    """Which videos of two lists look alike.

    Args:
      one: uint64[n 3], hashes of the first list's videos.
      other: uint64[m 3], of the second's.

    Yields:
      Row in ``one`` and row in ``other``.
    """
    for first in range(0, len(one), _ROWS_AT_ONCE):
        bits = np.bitwise_count(one[first : first + _ROWS_AT_ONCE, None] ^ other[None])
        for i, j in np.argwhere((bits <= MAX_BITS).all(axis=2)):
            yield first + int(i), int(j)
