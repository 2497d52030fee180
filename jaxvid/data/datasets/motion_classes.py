"""The classes of `motion`: what an object does over time.

* In ten classes one dimension (:mod:`jaxvid.data.datasets.motion_courses`) runs through its values in ascending or in
  descending order: left or right, up or down, approach or recede, clockwise or counterclockwise, and for the light,
  whose lowest values are a dark moment and whose highest are a flash, dark before flash or flash before dark: the
  order of two events.
* In two classes the light blinks, with a long or with a short period.
* Every other dimension wanders.

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

from types import MappingProxyType

import numpy as np

from jaxvid.data.datasets.motion_courses import NUM_VALUES, ClassTable, Course, ranks, repeated, run


def _in_order(direction: int) -> Course:
    """One dimension runs through its values."""
    return lambda rng: run(direction)


def _blink(periods: int) -> Course:
    """A sine with a random phase; ``periods`` of it in 16 frames."""

    def course(rng: np.random.Generator) -> np.ndarray:
        phase = 2 * np.pi * (periods * np.arange(NUM_VALUES) / NUM_VALUES + rng.random())
        return repeated(ranks(np.sin(phase)))

    return course


MOTION = ClassTable(
    name="motion",
    version=1,
    movements=MappingProxyType(
        {
            "approach": {"size": _in_order(1)},
            "blink_fast": {"light": _blink(6)},
            "blink_slowly": {"light": _blink(3)},
            "dark_then_flash": {"light": _in_order(1)},
            "flash_then_dark": {"light": _in_order(-1)},
            "move_down": {"down": _in_order(1)},
            "move_left": {"across": _in_order(-1)},
            "move_right": {"across": _in_order(1)},
            "move_up": {"down": _in_order(-1)},
            "recede": {"size": _in_order(-1)},
            "turn_clockwise": {"tilt": _in_order(1)},
            "turn_counterclockwise": {"tilt": _in_order(-1)},
        }
    ),
    mirror=("move_left=move_right", "turn_clockwise=turn_counterclockwise"),
    first_stream=0,
)

CLASS_NAMES: tuple[str, ...] = MOTION.class_names
MIRROR: tuple[str, ...] = MOTION.mirror
