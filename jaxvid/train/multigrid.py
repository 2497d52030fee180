"""The grids of multigrid training: which batch size, clip length and crop a step has, and with which learning rate.

C.-Y. Wu et al., "A Multigrid Method for Efficiently Training Video Models", CVPR 2020: coarse clips in large batches
for most of the training, fine ones in small batches for the rest, at about the same work per step. A *long cycle*
changes batch, frames and crop now and then; a *short cycle* changes batch and crop from step to step, three grids in
turn.

Two definitions are in use, and both are here, by their public code:

* ``slowfast_*``: that of the paper. The long cycle runs once through its four grids between two drops of the learning
  rate, in epochs; the short cycle's crops belong to the *default* crop.
* ``srtg_*``: that of the SRTG repository. The long cycle runs through its four grids in the four quarters of every
  epoch; the short cycle's crops belong to the long cycle's, so that both reductions are compounded.

These are the schedules alone: the trainer has one grid for a whole run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

LONG_CYCLE = ((0.25, math.sqrt(0.5)), (0.5, math.sqrt(0.5)), (0.5, 1.0), (1.0, 1.0))
"""(frames, crop) of the paper's long cycle, as shares of the default's (Wu et al., section 3.3)."""

SHORT_CYCLE = (0.5, math.sqrt(0.5))
"""The first two crops of the paper's short cycle, as shares of the default's; the third is the long cycle's."""

_SRTG_LONG = ((8, 4, True), (4, 2, True), (2, 2, False), (1, 1, False))  # batch times, frames over, crop over sqrt 2?
_SRTG_BATCHES = (8, 4, 2, 1)


@dataclass(frozen=True)
class Grid:
    """One shape of a training batch.

    Attributes:
      batch_size: clips.
      num_frames: ``T``.
      crop_size: ``H = W``, pixels.

    Raises:
      ValueError: one of them is below 1.
    """

    batch_size: int
    num_frames: int
    crop_size: int

    def __post_init__(self):
        for name in ("batch_size", "num_frames", "crop_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of a grid must be >= 1, received {self}.")


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one grid of the long cycle.

    Attributes:
      stage: how often the learning rate has dropped.
      grid: its batch size is a factor of the default one.
      end: the epoch with which the next phase begins.
    """

    stage: int
    grid: Grid
    end: int


@dataclass(frozen=True)
class Schedule:
    """The long cycles of a whole training.

    Attributes:
      phases: in their order; the last one, at the finest grid and the last rate, is for fine-tuning.
      steps: epochs at which the learning rate becomes that of :attr:`rates` at the same place.
      rates: factors of the base rate, which belongs to the default batch size.
      num_epochs: of the training.
    """

    phases: tuple[Phase, ...]
    steps: tuple[int, ...]
    rates: tuple[float, ...]
    num_epochs: int

    def grid_of(self, epoch: int) -> Grid:
        """The long cycle's grid in an epoch; after the last one, that of the last phase."""
        return next((phase.grid for phase in self.phases if epoch < phase.end), self.phases[-1].grid)

    def rate_of(self, epoch: int) -> float:
        """The factor of the learning rate in an epoch."""
        return self.rates[sum(step <= epoch for step in self.steps) - 1]


def slowfast_schedule(
    num_frames: int,
    crop_size: int,
    drops: Sequence[int],
    num_epochs: int,
    *,
    short_cycle: bool = True,
    epoch_factor: float = 1.5,
    decay: float = 0.1,
) -> Schedule:
    """The paper's long cycles in place of a step-wise schedule, as the authors' code plans them.

    Between two drops each grid gets a share of the epochs in proportion to its mean batch size over the short cycle, so
    that all get equally many steps. The last rate's phase is shortened by as much as the steps before it are, and all
    of it is stretched to ``epoch_factor`` times the epochs.

    Args:
      num_frames: of the default grid, at least 4.
      crop_size: of the default grid, pixels.
      drops: epochs of the step-wise schedule at which the rate falls, increasing; the first one is 0.
      num_epochs: of the step-wise schedule.
      short_cycle: whether the short cycle is used inside of the long one.
      epoch_factor: epochs with multigrid over those without, the paper's 1.5.
      decay: what every drop multiplies the rate by.

    Raises:
      ValueError: a number is out of its range.

    Example:
      SlowFast 8x8 R50 (``SLOWFAST_8x8_R50_stepwise_multigrid``):

      >>> schedule = slowfast_schedule(32, 224, (0, 94, 154, 196), 239)
      >>> schedule.phases[0], schedule.num_epochs
      (Phase(stage=0, grid=Grid(batch_size=8, num_frames=8, crop_size=158), end=73), 358)
    """
    drops = tuple(drops)
    if num_frames < 4 or crop_size < 2:
        raise ValueError(
            f"num_frames must be >= 4 and crop_size >= 2, received num_frames={num_frames}, crop_size={crop_size}."
        )
    if len(drops) < 2 or drops[0] != 0 or list(drops) != sorted(set(drops)) or not drops[-1] < num_epochs:
        raise ValueError(
            f"drops must be 0 and at least one more epoch below num_epochs={num_epochs}, increasing, "
            f"received drops={drops}."
        )
    if epoch_factor <= 0 or decay <= 0:
        raise ValueError(f"epoch_factor and decay must be > 0, received epoch_factor={epoch_factor}, decay={decay}.")
    grids, mean_batches = _long_grids(num_frames, crop_size, short_cycle)
    shares: list[tuple[int, Grid, float]] = []
    num_steps = 0.0  # in units of an epoch's steps at the default grid
    for stage, (begin, end) in enumerate(itertools.pairwise(drops)):
        for grid, mean_batch in zip(grids, mean_batches, strict=True):
            epochs = (end - begin) * mean_batch / sum(mean_batches)
            num_steps += epochs / mean_batch
            shares.append((stage, grid, epochs))
    saving = drops[-1] / num_steps
    shares.append((len(drops) - 1, grids[-1], (num_epochs - drops[-1]) / saving * mean_batches[-1]))
    stretch = num_epochs * epoch_factor / sum(epochs for *_, epochs in shares)
    total, phases = 0.0, []
    for stage, grid, epochs in shares:
        total += epochs * stretch
        phases.append(Phase(stage, grid, round(total)))
    ends = [phase.end for phase in phases]
    rates = [decay**phase.stage * phase.grid.batch_size for phase in phases]
    # The last phase's first half keeps the rate before it.
    steps = (0, *ends[:-1], (ends[-2] + ends[-1]) // 2)
    return Schedule(tuple(phases), steps, (*rates[:-1], rates[-2], rates[-1]), ends[-1])


def slowfast_short_cycle(long: Grid, default_crop_size: int) -> tuple[Grid, Grid, Grid]:
    """The three grids that the steps of a long cycle's phase take in turn.

    Args:
      long: the phase's grid, its batch size in clips.
      default_crop_size: of the training without multigrid, pixels.

    >>> slowfast_short_cycle(Grid(64, 32, 224), 224)[0]
    Grid(batch_size=256, num_frames=32, crop_size=112)

    Note:
      At the long cycle's smaller crop the factors are 2, 1, 1 and not 4, 2, 1, because both belong to the default crop.
    """
    factors = [round((long.crop_size / (share * default_crop_size)) ** 2) for share in SHORT_CYCLE]
    crops = [round(share * default_crop_size) for share in SHORT_CYCLE]
    first, second = (
        Grid(long.batch_size * factor, long.num_frames, crop) for factor, crop in zip(factors, crops, strict=True)
    )
    return first, second, long


def srtg_grids(base: Grid) -> tuple[tuple[Grid, Grid, Grid], ...]:
    """The twelve grids of the SRTG repository: ``grids[long][short]``.

    Long cycle: ``(8B, T/4, H/sqrt 2)``, ``(4B, T/2, H/sqrt 2)``, ``(2B, T/2, H)``, ``(B, T, H)``. On each of them the
    short one: as it is, ``(2b, h/sqrt 2)``, ``(4b, h/2)``. Sizes are rounded down at every division; an odd crop is
    made even by one more pixel at the end.

    Args:
      base: the finest grid; at least 4 frames.

    Raises:
      ValueError: the base is too short or too small.

    >>> srtg_grids(Grid(32, 16, 224))[0]  # doctest: +ELLIPSIS
    (Grid(batch_size=256, num_frames=4, crop_size=158), Grid(batch_size=512, num_frames=4, crop_size=112), ...)
    """
    if base.num_frames < 4 or base.crop_size < 4:
        raise ValueError(f"base must have at least 4 frames and 4 pixels, received {base}.")
    return tuple(_srtg_short(base, *row) for row in _SRTG_LONG)


def srtg_grid_of(step: int, steps_per_epoch: int) -> tuple[int, int]:
    """``(long, short)`` of a step, counted from the beginning of its epoch: quarters, and every third step.

    >>> [srtg_grid_of(step, 12) for step in (0, 2, 3, 11)]
    [(0, 0), (0, 2), (1, 0), (3, 2)]

    Raises:
      ValueError: the step is not in the epoch.
    """
    if not 0 <= step < steps_per_epoch:
        raise ValueError(f"step must be in [0, {steps_per_epoch}), the epoch's steps, received step={step}.")
    long = sum(step >= quarter * steps_per_epoch // 4 for quarter in (1, 2, 3))
    return long, step % 3


def srtg_rate(long: int) -> float:
    """The factor of the learning rate in a quarter of the epoch; the base rate belongs to ``8B``.

    >>> [srtg_rate(long) for long in range(4)]
    [1.0, 0.5, 0.25, 0.125]

    Raises:
      ValueError: there is no such quarter.
    """
    if not 0 <= long < len(_SRTG_BATCHES):
        raise ValueError(f"long must be in [0, 4), received long={long}.")
    return _SRTG_BATCHES[long] / _SRTG_BATCHES[0]


def srtg_steps_per_epoch(num_videos: int, batch_size: int) -> int:
    """Steps of an epoch, as the SRTG repository counts them.

    Long cycles take 15 batches of the base in 4 steps. Its count of the short ones takes 5, 2 and 4 batches in turn: an
    ``if`` that should be an ``elif`` takes 4 more where 1 was meant; and what does not fill four quarters is dropped.

    Args:
      num_videos: of the training split.
      batch_size: ``B``.

    Raises:
      ValueError: fewer batches than the count needs for its four quarters.

    >>> srtg_steps_per_epoch(240_000, 32)
    428
    """
    left, place, long_steps = num_videos // batch_size, 0, 0
    while sum(_SRTG_BATCHES[place:]) <= left:
        left -= _SRTG_BATCHES[place]
        place = (place + 1) % 4
        long_steps += 1
    left, steps = long_steps, 0
    while steps <= left:
        left -= (5, 2, 4)[steps % 3]
        steps += 1
    if steps < 4:
        raise ValueError(
            f"num_videos must fill at least four steps, received num_videos={num_videos}, batch_size={batch_size}."
        )
    return (steps - 1) // (steps // 4) * (steps // 4)


def _long_grids(num_frames: int, crop_size: int, short_cycle: bool) -> tuple[list[Grid], list[float]]:
    """The long cycle's grids, their batches as factors of the default's, and the mean factor over the short cycle."""
    volume = float(num_frames * crop_size**2)
    grids, means = [], []
    for frames_share, crop_share in LONG_CYCLE:
        frames, crop = round(num_frames * frames_share), round(crop_size * crop_share)
        crops = [*(crop_size * share for share in SHORT_CYCLE), crop] if short_cycle else [crop]
        factors = [round(volume / (frames * size * size)) for size in crops]
        grids.append(Grid(factors[-1], frames, crop))
        means.append(sum(factors) / len(factors))
    return grids, means


def _srtg_short(base: Grid, batches: int, frames: int, smaller: bool) -> tuple[Grid, Grid, Grid]:
    b, t = base.batch_size * batches, base.num_frames // frames
    h = _over_sqrt2(base.crop_size) if smaller else base.crop_size
    first, second, third = (Grid(b * times, t, size + size % 2) for times, size in
                            ((1, h), (2, _over_sqrt2(h)), (4, h // 2)))  # fmt: skip
    return first, second, third


def _over_sqrt2(size: int) -> int:
    return int(size // math.sqrt(2))
