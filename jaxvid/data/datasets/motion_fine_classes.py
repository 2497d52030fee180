"""The classes of `motion_fine`: six movements, each in two classes that differ in a detail.

The two of a pair share the dimension that runs and its direction: that tells the pair, as it tells a class of `motion`.
What tells one from the other lasts four to six of the 18 frames, begins at a random time, and is

* *whether*: ``move_left`` or ``move_left_hop`` (and right): four values of the place across, anywhere in the run, come
  in the opposite order: a leap, three steps back, a leap;
* *how often*: ``turn_clockwise_one_flash`` or ``turn_clockwise_two_flashes`` (and counterclockwise): the light's four
  highest values come in four frames together, or in two and two with two frames between them;
* *when*: ``approach_hop_early`` or ``approach_hop_late`` (and recede): five values of the size come in the opposite
  order, in the first or in the second half.

Identities, which hold for every clip, not on average:

* Any 16 frames in a row hold the same values of each dimension in both classes of a pair, and the middle 16 hold the
  same in all classes. So no dimension by itself tells the class, in one frame at an unknown time or in all frames
  without their order.
* From the same random numbers the two of a pair get the same clip but for one dimension, and in that one but for four
  frames (*whether*), six (*how often*) or eight (*when*: the two places of the hop).
* A clip that is played backwards has the courses of one with the opposite direction, which are as likely:
  ``move_left_hop`` those of ``move_right_hop``, ``approach_hop_early`` those of ``recede_hop_late``. So the frames
  without their order never tell a direction, nor early from late: whatever else they say, they name the class of half
  of the clips at best.

The dimensions *together* say more without their order than in `motion`. Who knows all states exactly, sorts the frames
by the tilt and so has their order, forwards or backwards: one flash or two can be counted. Who sorts them by the place
across sees whether the other dimensions become quite smooth, or but for a hop. How much a network takes from that is
measured, by evaluating it with shuffled frames. A frame at a known time says what it says in `motion`.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from jaxvid.data.datasets.motion_courses import NUM_VALUES, ClassTable, Course, repeated, run, wander

# Frames in which a detail may lie, first and last: those that every stretch of 16 holds.
_ANYWHERE, _EARLY, _LATE = (2, 15), (2, 8), (9, 15)

_FLASH = (13, 15, 14, 12)  # the light's highest values, in time or against it
# Which frames of a stretch of six show the next of them; one centre, so that their mean time says nothing.
_ONE_FLASH, _TWO_FLASHES = (1, 2, 3, 4), (0, 1, 4, 5)


def _runs(direction: int, *, hop: int = 1, within: tuple[int, int] = _ANYWHERE) -> Course:
    """A dimension runs through its values, ``hop`` of which, somewhere in ``within``, in the opposite order."""

    def course(rng: np.random.Generator) -> np.ndarray:
        values, first = run(direction), _first(within, hop, rng)
        values[first : first + hop] = values[first : first + hop][::-1].copy()
        return values

    return course


def _flashes(frames: tuple[int, ...]) -> Course:
    """The light wanders below the flash, which comes in ``frames`` of six frames anywhere."""

    def course(rng: np.random.Generator) -> np.ndarray:
        wandering = wander(rng)[1:-1]
        first = _first(_ANYWHERE, 6, rng) - 1
        values = np.full(NUM_VALUES, -1)
        values[first + np.array(frames)] = _FLASH if rng.random() < 0.5 else _FLASH[::-1]
        values[values < 0] = wandering[wandering < min(_FLASH)]
        return repeated(values)

    return course


def _first(within: tuple[int, int], length: int, rng: np.random.Generator) -> int:
    """Where a stretch of ``length`` begins; one random number, whatever the length."""
    first, last = within
    return first + int(rng.random() * (last - first + 2 - length))


def _turns(direction: int, frames: tuple[int, ...]) -> dict[str, Course]:
    return {"tilt": _runs(direction), "light": _flashes(frames)}


MOTION_FINE = ClassTable(
    name="motion_fine",
    version=1,
    movements=MappingProxyType(
        {
            "approach_hop_early": {"size": _runs(1, hop=5, within=_EARLY)},
            "approach_hop_late": {"size": _runs(1, hop=5, within=_LATE)},
            "move_left": {"across": _runs(-1)},
            "move_left_hop": {"across": _runs(-1, hop=4)},
            "move_right": {"across": _runs(1)},
            "move_right_hop": {"across": _runs(1, hop=4)},
            "recede_hop_early": {"size": _runs(-1, hop=5, within=_EARLY)},
            "recede_hop_late": {"size": _runs(-1, hop=5, within=_LATE)},
            "turn_clockwise_one_flash": _turns(1, _ONE_FLASH),
            "turn_clockwise_two_flashes": _turns(1, _TWO_FLASHES),
            "turn_counterclockwise_one_flash": _turns(-1, _ONE_FLASH),
            "turn_counterclockwise_two_flashes": _turns(-1, _TWO_FLASHES),
        }
    ),
    mirror=(
        "move_left=move_right",
        "move_left_hop=move_right_hop",
        "turn_clockwise_one_flash=turn_counterclockwise_one_flash",
        "turn_clockwise_two_flashes=turn_counterclockwise_two_flashes",
    ),
    first_stream=12,
)

CLASS_NAMES: tuple[str, ...] = MOTION_FINE.class_names

PAIRS: tuple[tuple[str, str], ...] = tuple(zip(CLASS_NAMES[::2], CLASS_NAMES[1::2], strict=True))
"""The classes that differ in a detail only; each pair stands together in the table."""
