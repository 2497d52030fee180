"""The plan of a run in whole steps: how many there are, and after which ones to evaluate and to save."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxvid.config import Config


@dataclass(frozen=True)
class Plan:
    """Counts of one run. The stream of clips runs through epoch boundaries: every batch but the last is full.

    >>> plan = Plan(num_clips=100, batch_size=8, num_epochs=2.0, eval_every_epochs=1.0)
    >>> plan.total_steps, plan.evaluates_after(13), plan.evaluates_after(25), plan.epoch(26)
    (25, True, True, 2.0)
    """

    num_clips: int  # in the training split
    batch_size: int
    num_epochs: float
    eval_every_epochs: float = 1.0
    max_steps: int = 0
    save_every_steps: int = 0

    @classmethod
    def of(cls, config: Config, num_clips: int) -> Plan:
        """The plan that a config makes for a training split of ``num_clips`` videos."""
        return cls(
            num_clips=num_clips,
            batch_size=config.train.batch_size,
            num_epochs=config.train.num_epochs,
            eval_every_epochs=config.eval.every_epochs,
            max_steps=config.train.max_steps,
            save_every_steps=config.checkpoint.every_steps,
        )

    @property
    def total_clips(self) -> int:
        """Clips that the whole run trains on, counted with repetition."""
        clips = max(1, round(self.num_epochs * self.num_clips))
        return min(clips, self.max_steps * self.batch_size) if self.max_steps else clips

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return math.ceil(self.total_clips / self.batch_size)

    @property
    def steps_per_epoch(self) -> float:
        """Steps per pass over the data; seldom a whole number."""
        return self.num_clips / self.batch_size

    def epoch(self, step: int) -> float:
        """Passes over the data that are complete after ``step`` steps, as a fraction."""
        return min(step * self.batch_size, self.total_clips) / self.num_clips

    def evaluates_after(self, step: int) -> bool:
        """Whether ``step`` is the one that completes another ``eval_every_epochs`` epochs, or the last one."""
        every = self.eval_every_epochs
        return step == self.total_steps or _count(self.epoch(step), every) > _count(self.epoch(step - 1), every)

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is written after ``step``; one is always written after an evaluation."""
        return self.evaluates_after(step) or (self.save_every_steps > 0 and step % self.save_every_steps == 0)


def _count(epoch: float, every: float) -> int:
    """Whole multiples of ``every`` in ``epoch``; a tiny tolerance keeps 3 * (1/3) from counting as 2."""
    return math.floor(epoch / every + 1e-9)
