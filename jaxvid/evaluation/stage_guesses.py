"""What the stages of a class-regularised network take each clip for, beside what the network says in the end.

Every stage with Class Regularization chooses a class for each view, from its own activations and the classifier's
weights (:class:`jaxvid.nn.ClassRegularization`). How often that guess is right says how much of a class a stage knows
(Stergiou, Poppe and Veltkamp 2020, table 4 d-f, which tests each stage against the one before).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxvid.evaluation.predict import Predictions
from jaxvid.evaluation.stats import mcnemar

_NAME = re.compile(r"class_regularization/(.+)/class_index")
_NETWORK = "network"  # what the whole network says; no stage can have this name


@dataclass(frozen=True, eq=False)
class StageGuesses:
    """The guesses of all stages, and the network's prediction behind them.

    A stage's guess about a clip is the class that most of its views were taken for; of equally frequent ones the first,
    as in ``argmax``. (A stage gives a class and no scores, so there is nothing to average.)

    Attributes:
      class_names: the ``K`` names.
      labels: ``int[n]`` in ``[0, K)``.
      decoded: ``bool[n]``; a clip that could not be decoded has no guess, and counts as wrong.
      views: stage -> ``int[n V]``, its guess about every view, in the order of the stages.
      votes: stage -> ``float32[n K]``, share of the views that it took for each class; 0 where not decoded.
      predicted: ``int[n]``, the network's own prediction.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    decoded: np.ndarray
    views: Mapping[str, np.ndarray]
    votes: Mapping[str, np.ndarray]
    predicted: np.ndarray

    @property
    def guesses(self) -> dict[str, np.ndarray]:
        """Stage -> ``int[n]``; last the ``network``. Without a meaning where a clip could not be decoded."""
        return {stage: votes.argmax(axis=1) for stage, votes in self.votes.items()} | {_NETWORK: self.predicted}

    @property
    def correct(self) -> dict[str, np.ndarray]:
        """Stage -> ``bool[n]``; last the ``network``."""
        return {stage: self.decoded & (guess == self.labels) for stage, guess in self.guesses.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain values by name, which strict JSON can hold.

        ``stages`` has a row for each stage and last one for the network: ``top1``, ``view_top1`` (share of all views),
        ``num_guessed`` (classes that it took any clip for), ``agreement`` with the network, and the test against the
        row before: ``b`` clips that only the one before gets right, ``c`` that only this one does, ``chi2``, ``p`` and
        ``exact_p``. ``agreement`` is the matrix of shares of the decoded clips that two rows take for the same class.
        ``classes`` has the ``accuracy`` of each row and its ``gain`` over the row before; ``None`` without clips.
        """
        agreement = self._agreement()
        return {
            "num_clips": len(self.labels),
            "num_missing": int((~self.decoded).sum()),
            "num_views": next(iter(self.views.values())).shape[1],
            "stages": self._rows(agreement),
            "agreement": agreement,
            "classes": self._classes(),
        }

    def _rows(self, agreement: list[list[float | None]]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        guesses, before = self.guesses, None
        for (stage, right), shares in zip(self.correct.items(), agreement, strict=True):
            views = self.views.get(stage)
            row: dict[str, Any] = {"stage": stage, "top1": float(right.mean())}
            row["view_top1"] = None if views is None else _view_top1(views, self.labels, self.decoded)
            row["num_guessed"] = len(np.unique(guesses[stage][self.decoded]))
            row["agreement"] = shares[-1]
            if before is not None:
                test = mcnemar(int((before & ~right).sum()), int((right & ~before).sum()))
                row |= {"b": test.b, "c": test.c, "chi2": test.chi2, "p": test.p_value, "exact_p": test.exact_p_value}
            rows.append(row)
            before = right
        return rows

    def _agreement(self) -> list[list[float | None]]:
        guesses = [guess[self.decoded] for guess in self.guesses.values()]
        if not self.decoded.any():
            return [[None] * len(guesses) for _ in guesses]
        return [[float((one == other).mean()) for other in guesses] for one in guesses]

    def _classes(self) -> list[dict[str, Any]]:
        K = len(self.class_names)
        num_clips = np.bincount(self.labels, minlength=K).tolist()
        counts = {stage: np.bincount(self.labels[right], minlength=K).tolist() for stage, right in self.correct.items()}
        stages = list(counts)
        rows = []
        for k, (name, n) in enumerate(zip(self.class_names, num_clips, strict=True)):
            accuracy = {stage: counts[stage][k] / n if n else None for stage in stages}
            gain = {
                stage: (counts[stage][k] - counts[before][k]) / n if n else None
                for before, stage in itertools.pairwise(stages)
            }
            rows.append({"class": name, "num_clips": n, "accuracy": accuracy, "gain": gain})
        return rows


def collect_guesses(predictions: Predictions, class_names: Sequence[str]) -> StageGuesses | None:
    """The stages' guesses that an evaluation kept; ``None`` where the network has no Class Regularization.

    Args:
      predictions: at least one clip; the guesses are its ``side["class_regularization/STAGE/class_index"]``,
        ``int32[n V]`` each.
      class_names: the ``K`` names.

    Raises:
      ValueError: a guess is no class.
    """
    views = _views(predictions)
    if not views:
        return None
    K = predictions.scores.shape[-1]
    votes = {stage: _votes(guesses, predictions.decoded, K) for stage, guesses in views.items()}
    return StageGuesses(
        tuple(class_names),
        predictions.labels,
        predictions.decoded,
        views,
        votes,
        predictions.scores.argmax(axis=1),
    )


def guess_metrics(predictions: Predictions) -> dict[str, float]:
    """``guess/STAGE/top1`` of each stage, see :class:`StageGuesses`; nothing where no stage guesses.

    Raises:
      ValueError: a guess is no class.
    """
    K = predictions.scores.shape[-1]
    found = {}
    for stage, views in _views(predictions).items():
        guesses = _votes(views, predictions.decoded, K).argmax(axis=1)
        found[f"guess/{stage}/top1"] = float((predictions.decoded & (guesses == predictions.labels)).mean())
    return found


def _views(predictions: Predictions) -> dict[str, np.ndarray]:
    found = {match[1]: name for name in predictions.side if (match := _NAME.fullmatch(name))}
    return {stage: predictions.side[found[stage]] for stage in sorted(found)}


def _votes(views: np.ndarray, decoded: np.ndarray, num_classes: int) -> np.ndarray:
    """``float32[n K]``: of ``V`` views the share that was taken for each class."""
    wrong = (views < 0) | (views >= num_classes)
    if wrong.any():
        raise ValueError(f"a stage must guess a class in [0, {num_classes}), received {int(views[wrong][0])}.")
    n, V = views.shape
    counts = np.zeros((n, num_classes), np.float32)
    np.add.at(counts, (np.repeat(np.arange(n), V), views.ravel()), 1)
    return counts / np.float32(V) * decoded[:, None]


def _view_top1(views: np.ndarray, labels: np.ndarray, decoded: np.ndarray) -> float:
    return float((decoded[:, None] & (views == labels[:, None])).mean())
