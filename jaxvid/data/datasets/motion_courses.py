"""From a table of classes to movements: the generator that `motion` and `motion_fine` share.

An object has five *dimensions*: place across, place down, size, tilt and light. In every clip all five run through the
same 16 values; only the *order* of the values differs. A class says how one of the dimensions moves, or several; every
other dimension *wanders*: a smooth random course, through the same 16 values too, that ends about where it began and
has no trend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

NUM_FRAMES = 18
"""Of a clip: 16 and one more at either end, so that a random start has something to choose."""

NUM_VALUES = 16
DIMENSIONS = ("across", "down", "size", "tilt", "light")

MAX_TREND = 0.08
"""Largest correlation between time and a wandering dimension."""

_TIME = np.arange(NUM_VALUES) - (NUM_VALUES - 1) / 2
_SLACK = 1.0  # ranks by which a dimension's values are shifted as a whole, at most
_TREMBLE = 0.4  # ranks by which each single value is shifted, at most

Course = Callable[[np.random.Generator], np.ndarray]
"""Draws which of its 16 values a dimension takes in every frame: int64[18], ranks."""


@dataclass(frozen=True)
class ClassTable:
    """The classes of one data set.

    Attributes:
      name: of the data set.
      version: raised whenever its clips change; a set that was made by another version is made again.
      movements: name of a class -> {dimension: its course}; the other dimensions wander. Sorted by name, so that a
        reader of folders gives the same labels.
      mirror: the classes that a horizontal flip exchanges, as ``config.data.mirror`` wants them.
      first_stream: number of the random stream of class 0; no two data sets share one.
    """

    name: str
    version: int
    movements: Mapping[str, Mapping[str, Course]]
    mirror: tuple[str, ...]
    first_stream: int

    def __post_init__(self):
        if list(self.movements) != sorted(self.movements):
            raise ValueError(f"movements must be sorted by name, received {', '.join(self.movements)}.")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes by label."""
        return tuple(self.movements)

    def courses(self, label: int, rng: np.random.Generator) -> np.ndarray:
        """The values of all dimensions in every frame of one clip.

        Args:
          label: the class.
          rng: source of what is random.

        Returns:
          float64[18 5], about -1.2 .. 1.2, in the order of :data:`DIMENSIONS`. Positive is right, down, large, tilted
          clockwise, light.

        >>> from jaxvid.data.datasets.motion_classes import CLASS_NAMES, MOTION
        >>> run = MOTION.courses(CLASS_NAMES.index("move_right"), np.random.default_rng(0))[:, 0]
        >>> run.shape, bool(run[0] < -0.8 and run[-1] > 0.8)
        ((18,), True)
        """
        ranks = self.orders(label, rng)
        ranks = ranks + rng.uniform(-_SLACK, _SLACK, (1, len(DIMENSIONS)))
        ranks = ranks + rng.uniform(-_TREMBLE, _TREMBLE, ranks.shape)
        return (ranks - (NUM_VALUES - 1) / 2) / ((NUM_VALUES - 1) / 2)

    def orders(self, label: int, rng: np.random.Generator) -> np.ndarray:
        """Which of its 16 values each dimension takes in every frame.

        Returns:
          int64[18 5]. Rows 1 to 16 hold every number of 0 .. 15 once in each column, for every class.
        """
        columns = [wander(rng) for _ in DIMENSIONS]
        for dimension, course in self.movements[self.class_names[label]].items():
            columns[DIMENSIONS.index(dimension)] = course(rng)
        return np.stack(columns, axis=1)


def run(direction: int) -> np.ndarray:
    """All values in ascending (1) or descending (-1) order, one more at either end: int64[18]."""
    ranks = np.arange(NUM_FRAMES) - 1
    return ranks if direction > 0 else NUM_VALUES - 1 - ranks


def wander(rng: np.random.Generator) -> np.ndarray:
    """A smooth random closed course without trend, as ranks: int64[18]."""
    phase = 2 * np.pi * np.arange(NUM_VALUES) / NUM_VALUES
    while True:
        a, b, c, d = rng.normal(size=4)
        drawn = ranks(a * np.cos(phase) + b * np.sin(phase) + 0.5 * (c * np.cos(2 * phase) + d * np.sin(2 * phase)))
        if abs(drawn @ _TIME) <= MAX_TREND * (_TIME @ _TIME):  # the correlation: ranks and time have one variance
            return repeated(drawn)


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value among all: the smallest has 0."""
    return np.argsort(np.argsort(values))


def repeated(ranks: np.ndarray) -> np.ndarray:
    """16 ranks, with the last one before them and the first one after them."""
    return ranks[(np.arange(NUM_FRAMES) - 1) % NUM_VALUES]
