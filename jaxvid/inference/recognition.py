"""What a network says about one video."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from jaxvid.evaluation import mean_scores

INTERVAL = 0.95
"""The share of the views whose probabilities lie within :attr:`Guess.interval`."""


@dataclass(frozen=True)
class Guess:
    """One class of one video.

    Attributes:
      name: of the class.
      label: its index among the network's classes.
      probability: the mean over the views of the softmax, in [0, 1].
      interval: lowest and highest probability of the middle 95 % of the views (:func:`spread`); ``None`` of one view.
    """

    name: str
    label: int
    probability: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Recognition:
    """One video: what the network says, of which part of it, or why it could not be decoded.

    Attributes:
      path: of the file, as it was found.
      class_names: the ``K`` classes.
      logits: ``float32[V K]``, a row for each view; no row (``V = 0``) where the video could not be decoded.
      scores: ``float32[K]``, the mean over the views of the softmax; ``float32[0]`` where there is no view.
      num_frames: of the video.
      duration: of the video, seconds.
      num_seen: frames of the video that the views show, each counted once.
      seen: when the first and the last of these are shown, seconds from the video's first frame.
      error: one sentence that says why it could not be decoded; empty where it could.
    """

    path: str
    class_names: tuple[str, ...] = field(repr=False)
    logits: np.ndarray = field(repr=False)
    scores: np.ndarray = field(repr=False)
    num_frames: int = 0
    duration: float = 0.0
    num_seen: int = 0
    seen: tuple[float, float] = (0.0, 0.0)
    error: str = ""

    @classmethod
    def failed(cls, path: str, class_names: tuple[str, ...], error: str) -> Recognition:
        """A video of which nothing is known but why."""
        nothing = np.zeros((0, len(class_names)), np.float32)
        return cls(path, class_names, nothing, np.zeros(0, np.float32), error=error)

    @property
    def num_views(self) -> int:
        """``V``: 0 where the video could not be decoded."""
        return len(self.logits)

    @property
    def view_scores(self) -> np.ndarray:
        """``softmax`` of each view's logits, ``float32[V K]``."""
        return mean_scores(self.logits[:, None])

    def top(self, k: int = 5) -> tuple[Guess, ...]:
        """The ``min(k, K)`` most probable classes, the most probable first; of equal ones, the lower label.

        There are none where the video could not be decoded.

        Raises:
          ValueError: ``k`` is smaller than 1.
        """
        if k < 1:
            raise ValueError(f"k must be >= 1, received k={k}.")
        order, views = np.argsort(-self.scores, kind="stable")[:k].tolist(), self.view_scores
        return tuple(
            Guess(self.class_names[label], label, float(self.scores[label]), spread(views[:, label])) for label in order
        )


def spread(probabilities: np.ndarray) -> tuple[float, float] | None:
    """The interval that the middle 95 % of the views' probabilities span: their quantiles 0.025 and 0.975.

    Args:
      probabilities: ``float[V]``, of one class.

    Returns:
      Both ends, interpolated between neighbouring values; ``None`` where ``V < 2``.

    Note:
      It describes the views of this video. It is no confidence interval of their mean: views overlap, and an interval
      that takes them for independent samples would be too narrow.

    >>> spread(np.array([0.5, 0.7]))
    (0.505, 0.695)
    """
    if len(probabilities) < 2:
        return None
    low, high = np.quantile(probabilities.astype(np.float64), [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return float(low), float(high)
