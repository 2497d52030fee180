"""The classes of `motion`, as movements: what an object does over time, and what it does beside that.

An object has five *dimensions*: place across, place down, size, tilt and light. In every clip all five run through the
same 16 values; only the *order* of the values differs.

* In ten classes one dimension runs through its values in ascending or in descending order: left or right, up or down,
  approach or recede, clockwise or counterclockwise, and for the light, whose lowest values are a dark moment and
  whose highest are a flash, dark before flash or flash before dark: the order of two events.
* In two classes the light blinks, with a long or with a short period.
* Every other dimension *wanders*: a smooth random course, through the same 16 values too, that ends about where it
  began and has no trend.

In the 16 frames in the middle of a clip, each dimension by itself therefore has the same values in every class, and so
has each dimension of one frame at an unknown time: that is an identity, not a matter of statistics. (A course repeats
after 16 frames where it wanders and goes on where it does not, so that a stretch that begins one frame earlier or later
differs by one value.)

It is not an identity, and is measured instead by evaluating with shuffled frames, that the dimensions *together* say
nothing. Who knows all states exactly can sort the frames by each dimension and see by which one the others become
smooth: that names the pair of classes, though never the direction. And a frame that is known to be from the middle of
a clip shows the dimension that runs near its middle value.
"""

from __future__ import annotations

import numpy as np

NUM_FRAMES = 18
"""Of a clip: 16 and one more at either end, so that a random start has something to choose."""

NUM_VALUES = 16
DIMENSIONS = ("across", "down", "size", "tilt", "light")

# (dimension, direction) of the classes in which one dimension runs in order.
_RUNS = {
    "approach": ("size", 1),
    "dark_then_flash": ("light", 1),
    "flash_then_dark": ("light", -1),
    "move_down": ("down", 1),
    "move_left": ("across", -1),
    "move_right": ("across", 1),
    "move_up": ("down", -1),
    "recede": ("size", -1),
    "turn_clockwise": ("tilt", 1),
    "turn_counterclockwise": ("tilt", -1),
}
# Times in 16 frames that the light goes dark and flashes.
_BLINKS = {"blink_fast": 6, "blink_slowly": 3}

CLASS_NAMES: tuple[str, ...] = tuple(sorted([*_RUNS, *_BLINKS]))
"""Sorted, so that a reader of folders gives the same labels."""

MIRROR: tuple[str, ...] = ("move_left=move_right", "turn_clockwise=turn_counterclockwise")
"""The classes that a horizontal flip exchanges, as ``config.data.mirror`` wants them."""

MAX_TREND = 0.08
"""Largest correlation between time and a wandering dimension."""

_TIME = np.arange(NUM_VALUES) - (NUM_VALUES - 1) / 2
_SLACK = 1.0  # ranks by which a dimension's values are shifted as a whole, at most
_TREMBLE = 0.4  # ranks by which each single value is shifted, at most


def courses(label: int, rng: np.random.Generator) -> np.ndarray:
    """The values of all dimensions in every frame of one clip.

    Args:
      label: the class.
      rng: source of what is random.

    Returns:
      float64[18 5], about -1.2 .. 1.2, in the order of :data:`DIMENSIONS`. Positive is right, down, large, tilted
      clockwise, light.

    >>> run = courses(CLASS_NAMES.index("move_right"), np.random.default_rng(0))[:, 0]
    >>> run.shape, bool(run[0] < -0.8 and run[-1] > 0.8)
    ((18,), True)
    """
    ranks = orders(label, rng)
    ranks = ranks + rng.uniform(-_SLACK, _SLACK, (1, len(DIMENSIONS))) + rng.uniform(-_TREMBLE, _TREMBLE, ranks.shape)
    return (ranks - (NUM_VALUES - 1) / 2) / ((NUM_VALUES - 1) / 2)


def orders(label: int, rng: np.random.Generator) -> np.ndarray:
    """Which of its 16 values each dimension takes in every frame.

    Returns:
      int64[18 5]. Rows 1 to 16 hold every number of 0 .. 15 once in each column, for every class.
    """
    name = CLASS_NAMES[label]
    columns = [_wander(rng) for _ in DIMENSIONS]
    if name in _RUNS:
        dimension, direction = _RUNS[name]
        run = np.arange(NUM_FRAMES) - 1
        columns[DIMENSIONS.index(dimension)] = run if direction > 0 else NUM_VALUES - 1 - run
    else:
        columns[DIMENSIONS.index("light")] = _blink(_BLINKS[name], rng)
    return np.stack(columns, axis=1)


def _wander(rng: np.random.Generator) -> np.ndarray:
    """A smooth random closed course without trend, as ranks: int64[18]."""
    phase = 2 * np.pi * np.arange(NUM_VALUES) / NUM_VALUES
    while True:
        a, b, c, d = rng.normal(size=4)
        ranks = _ranks(a * np.cos(phase) + b * np.sin(phase) + 0.5 * (c * np.cos(2 * phase) + d * np.sin(2 * phase)))
        if abs(ranks @ _TIME) <= MAX_TREND * (_TIME @ _TIME):  # the correlation: ranks and time have one variance
            return _repeated(ranks)


def _blink(periods: int, rng: np.random.Generator) -> np.ndarray:
    """A sine with a random phase, as ranks: int64[18]."""
    phase = 2 * np.pi * (periods * np.arange(NUM_VALUES) / NUM_VALUES + rng.random())
    return _repeated(_ranks(np.sin(phase)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value among all: the smallest has 0."""
    return np.argsort(np.argsort(values))


def _repeated(ranks: np.ndarray) -> np.ndarray:
    """16 ranks, with the last one before them and the first one after them."""
    return ranks[(np.arange(NUM_FRAMES) - 1) % NUM_VALUES]
