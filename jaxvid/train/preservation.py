"""Which checkpoints stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BEST_METRIC = "eval/top1"
"""The metric that "best" means; larger is better."""


@dataclass
class KeepLastAndBest:
    """Orbax's preservation policy; ``max_to_keep`` with ``best_fn`` would delete the newest step.

    Attributes:
      keep_last: how many of the newest steps stay.
      keep_best: how many of those with the highest score stay besides.
      scores: step -> :data:`BEST_METRIC`, of the steps that have one.
    """

    keep_last: int
    keep_best: int
    scores: dict[int, float] = field(default_factory=dict)

    def note(self, step: int, metrics: Mapping[str, Any] | None) -> None:
        """Remembers the score among a step's metrics, if one is there."""
        score = (metrics or {}).get(BEST_METRIC)
        if isinstance(score, (int, float)) and score == score:  # a NaN ranks nowhere
            self.scores[step] = score

    def ranked(self, steps: Sequence[int]) -> list[int]:
        """Those steps that have a score, the best last."""
        return sorted((step for step in steps if step in self.scores), key=lambda step: (self.scores[step], step))

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """What Orbax asks: for each checkpoint whether it stays."""
        del context
        keep = self.kept([info.step for info in checkpoints])
        return [info.step in keep for info in checkpoints]

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Those steps that stay."""
        steps = sorted(steps)
        return {*steps[-self.keep_last :], *(self.ranked(steps)[-self.keep_best :] if self.keep_best else ())}
