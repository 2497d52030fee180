"""Metrics of a classification, as one state that can be merged: two halves of a set give what the whole set gives.

A clip that could not be decoded counts as wrong in every accuracy, so a set never changes its size. Only the loss,
which has no value for such a clip, is a mean over the decoded clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxvid.evaluation.predict import Predictions
from jaxvid.evaluation.stage_guesses import guess_metrics


@dataclass(frozen=True, eq=False)
class ClassificationState:
    """Sums over clips from which every metric follows.

    ``merge`` is commutative, and associative up to the rounding of ``loss_sum`` (everything else is an integer);
    ``empty`` is its neutral element.

    Attributes:
      confusion: ``int64[K K+1]``, clips by true class (row) and predicted class (column); the last column holds the
        clips without a prediction, because they could not be decoded.
      num_top: clips whose label is among the ``min(5, K)`` highest scores.
      loss_sum: sum over the decoded clips of ``-log(scores[label])``, in nats.
    """

    confusion: np.ndarray
    num_top: int = 0
    loss_sum: float = 0.0

    @classmethod
    def empty(cls, num_classes: int) -> ClassificationState:
        """The state of no clips."""
        if num_classes < 1:
            raise ValueError(f"num_classes must be >= 1, received num_classes={num_classes}.")
        return cls(np.zeros((num_classes, num_classes + 1), np.int64))

    @classmethod
    def from_predictions(cls, predictions: Predictions) -> ClassificationState:
        """The state of these clips.

        Raises:
          ValueError: a label is not in ``[0, K)``.
        """
        labels, decoded = predictions.labels, predictions.decoded
        K = predictions.scores.shape[-1]
        wrong = (labels < 0) | (labels >= K)
        if wrong.any():
            raise ValueError(
                f"labels must be in [0, {K}), received label {int(labels[wrong][0])} "
                f"for the clip with id {int(predictions.ids[wrong][0])}."
            )
        confusion = cls.empty(K).confusion
        predicted = np.where(decoded, predictions.scores.argmax(axis=-1), K)
        np.add.at(confusion, (labels, predicted), 1)
        ranks = label_ranks(predictions.scores, labels)[decoded]
        losses = _losses(predictions.logits[decoded], labels[decoded])
        return cls(confusion, int((ranks < min(5, K)).sum()), float(losses.sum()))

    def merge(self, other: ClassificationState) -> ClassificationState:
        """The state of both sets of clips together; the sets must not share a clip.

        Raises:
          ValueError: the numbers of classes differ.
        """
        if self.confusion.shape != other.confusion.shape:
            raise ValueError(
                f"both states must have the same number of classes, received {len(self.confusion)} "
                f"and {len(other.confusion)}."
            )
        return ClassificationState(
            self.confusion + other.confusion, self.num_top + other.num_top, self.loss_sum + other.loss_sum
        )

    def compute(self) -> dict[str, float | int | None]:
        """The metrics; see :func:`summarize`.

        Raises:
          ValueError: the state holds no clips, so no share of them is defined.
        """
        K = len(self.confusion)
        of_class = self.confusion.sum(axis=1)
        num_clips = int(of_class.sum())
        if num_clips == 0:
            raise ValueError("metrics need at least one clip, received none.")
        num_missing = int(self.confusion[:, -1].sum())
        correct = np.diagonal(self.confusion)
        present = of_class > 0
        num_decoded = num_clips - num_missing
        return {
            "top1": float(correct.sum() / num_clips),
            f"top{min(5, K)}": self.num_top / num_clips,
            "mean_class_accuracy": float((correct[present] / of_class[present]).mean()),
            "loss": self.loss_sum / num_decoded if num_decoded else None,
            "majority": float(of_class.max() / num_clips),
            "num_clips": num_clips,
            "num_missing": num_missing,
        }


def summarize(predictions: Predictions, class_names: Sequence[str]) -> dict[str, float | int | None]:
    """The numbers that describe a set of predictions.

    * ``top1``: share of the clips whose highest score is their label's; of equal scores the lower class counts as
      the higher one.
    * ``top{min(5, K)}``: share of the clips whose label is among that many highest scores (with one class that is
      ``top1`` itself).
    * ``mean_class_accuracy``: mean over the classes that have clips of the class's own ``top1``.
    * ``loss``: mean over the decoded clips of ``-log(mean over views of softmax(logits))[label]``, in nats; with one
      view it is the cross entropy. ``None`` when no clip was decoded.
    * ``majority``: what always answering the most frequent class of this very set would score as ``top1``.
    * ``num_clips``, and ``num_missing`` of them that could not be decoded: these count as wrong.
    * ``guess/STAGE/top1`` for each stage with Class Regularization, see :class:`~jaxvid.evaluation.StageGuesses`.

    Args:
      predictions: at least one clip.
      class_names: the ``K`` names; only their number is used.

    Returns:
      Plain numbers by name.

    Raises:
      ValueError: no clips, a label outside ``[0, K)``, or another number of names than classes.
    """
    _check_names(predictions, class_names)
    return ClassificationState.from_predictions(predictions).compute() | guess_metrics(predictions)


def per_class(predictions: Predictions, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each class, in the order of the classes.

    Returns:
      Dictionaries with ``class``, ``num_clips``, ``num_correct``, ``num_missing`` (could not be decoded),
      ``accuracy`` (of the class's clips; ``None`` without clips), ``num_predicted``, ``precision`` (share of the clips
      predicted as this class that are of it; ``None`` when there are none), ``confused_with`` (the wrong class that
      the class's clips were given most often, ``None`` without a mistake) and ``num_confused``.
    """
    _check_names(predictions, class_names)
    confusion = ClassificationState.from_predictions(predictions).confusion
    square = confusion[:, :-1]
    rows = []
    for k, name in enumerate(class_names):
        num_clips, num_correct, num_predicted = int(confusion[k].sum()), int(square[k, k]), int(square[:, k].sum())
        mistakes = np.where(np.arange(len(square)) == k, 0, square[k])
        worst = int(mistakes.argmax())
        rows.append(
            {
                "class": name,
                "num_clips": num_clips,
                "num_correct": num_correct,
                "num_missing": int(confusion[k, -1]),
                "accuracy": num_correct / num_clips if num_clips else None,
                "num_predicted": num_predicted,
                "precision": num_correct / num_predicted if num_predicted else None,
                "confused_with": class_names[worst] if mistakes[worst] else None,
                "num_confused": int(mistakes[worst]),
            }
        )
    return rows


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the label: 0 when its score is the highest.

    Of equal scores the lower class comes first, as in ``argmax``.

    Args:
      scores: ``float[n K]``.
      labels: ``int[n]`` in ``[0, K)``.

    Returns:
      ``int[n]`` in ``[0, K)``.

    >>> label_ranks(np.array([[0.2, 0.5, 0.2, 0.1]] * 3), np.array([1, 0, 2])).tolist()
    [0, 1, 2]
    """
    own = np.take_along_axis(scores, labels[:, None].astype(np.intp), axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(axis=1)


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``-log(mean over V of softmax(logits [n V K]))[label]``, ``float64[n]``, without leaving the log domain.

    From the scores themselves it would be infinite as soon as one underflows.
    """
    num_views = logits.shape[1]
    log_score = np.full(len(labels), -np.inf)
    for v in range(num_views):  # one view at a time: float64 of all of them would be twice the predictions' memory
        view = logits[:, v].astype(np.float64)
        own = np.take_along_axis(view, labels[:, None].astype(np.intp), axis=1)[:, 0]
        top = view.max(axis=1)
        log_sum = top + np.log(np.exp(view - top[:, None]).sum(axis=1))
        log_score = np.logaddexp(log_score, own - log_sum)
    return np.log(num_views) - log_score


def _check_names(predictions: Predictions, class_names: Sequence[str]) -> None:
    K = predictions.scores.shape[-1]
    if len(class_names) != K:
        raise ValueError(f"class_names must hold K={K} names, received {len(class_names)}.")
