"""Several networks on the same clips, as one: the weighted mean of their scores."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxvid.evaluation.comparison import ALPHA, Comparison, Judged, compare_judged, pair, read_scored
from jaxvid.evaluation.stats import difference_interval

MAX_POINTS = 20_000
"""So many weights are tried at most."""


def fused_scores(scores: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    r"""The weighted mean of what several networks said about the same clips.

    .. math:: s = \frac{\sum_m w_m s_m}{\sum_m w_m}

    Args:
      scores: for each of ``M >= 1`` networks ``float[n K]``, in the same order of clips and classes; probabilities, or
        anything else of which a mean says something. The row of a clip that could not be decoded is 0 in all.
      weights: ``M`` numbers >= 0, not all of them 0; only their proportions matter.

    Returns:
      ``float32[n K]``.

    Raises:
      ValueError: arrays of different shapes, or weights that do not fit.

    >>> fused_scores([np.array([[0.75, 0.25]]), np.array([[0.25, 0.75]])], weights=[3, 1]).tolist()
    [[0.625, 0.375]]
    """
    shapes = [np.shape(one) for one in scores]
    if not shapes or len(shapes[0]) != 2 or len(set(shapes)) > 1:
        raise ValueError(f"scores must be float[n K] of one shape, at least one of them, received the shapes {shapes}.")
    proportions = np.asarray(weights, np.float64)
    if (
        proportions.shape != (len(shapes),)
        or not (np.isfinite(proportions) & (proportions >= 0)).all()
        or not proportions.any()
    ):
        raise ValueError(
            f"weights must be {len(shapes)} numbers >= 0, one for each array of scores and not all 0, "
            f"received {list(weights)}."
        )
    proportions = proportions / proportions.max()  # their sum may overflow
    fused = np.zeros(shapes[0])
    for one, weight in zip(scores, proportions / proportions.sum(), strict=True):
        if weight:
            fused += weight * np.asarray(one, np.float64)
    return fused.astype(np.float32)


@dataclass(frozen=True)
class Rating:
    """How often one way of answering is right.

    Attributes:
      num_correct: clips, of all; one that could not be decoded is wrong.
      accuracy: their share.
      interval: of the accuracy, at ``1 - ALPHA``, by bootstrap over the clips.
    """

    num_correct: int
    accuracy: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, correct: np.ndarray) -> Rating:
        """The rating of ``bool[n]``, whether each clip is right."""
        right, n = int(correct.sum()), len(correct)
        # The difference to a network that is never right is the accuracy.
        return cls(right, right / n, difference_interval(right, 0, n, level=1 - ALPHA))


@dataclass(frozen=True, eq=False)
class Fusion:
    """Several runs, fused.

    Attributes:
      runs: what a person calls each of the ``M`` runs.
      weights: of the runs, with the sum 1: those that were given, or those that are best on all clips (of equally good
        ones the nearest to equal weights), which are the ones to use on new clips.
      searched: whether they were searched.
      num_folds: of the search; 0 where nothing was searched.
      step: of the weights that were tried.
      seed: of the folds.
      fold_weights: for each fold the weights that were chosen on the clips of the other folds.
      fold_of_clip: ``int[n]``; all 0 where nothing was searched.
      alone: the rating of each run.
      equal: that of equal weights.
      fused: that of the given weights; or of the procedure of searching, each clip fused with its fold's weights.
      best: which run is the best one, on these clips; of equally good ones the first.
      gain: fused beside the best run.
      equal_gain: equal weights beside the best run.
      curve: for two runs whose weights were searched: the first one's weight and the accuracy on all clips, in order.
      judged: clips, labels and what of ``fused`` is right.
      scores: ``float32[n K]`` of ``fused``; 0 for a clip that could not be decoded.
    """

    runs: tuple[str, ...]
    weights: tuple[float, ...]
    searched: bool
    num_folds: int
    step: float
    seed: int
    fold_weights: tuple[tuple[float, ...], ...]
    fold_of_clip: np.ndarray
    alone: tuple[Rating, ...]
    equal: Rating
    fused: Rating
    best: int
    gain: Comparison
    equal_gain: Comparison
    curve: tuple[tuple[float, float], ...]
    judged: Judged
    scores: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Plain values by name, which strict JSON can hold."""
        search = {"num_folds": self.num_folds, "step": self.step, "seed": self.seed}
        search |= {"fold_weights": [list(weights) for weights in self.fold_weights]}
        return {
            "runs": list(self.runs),
            "num_clips": len(self.judged.labels),
            "num_missing": int((~self.judged.decoded).sum()),
            "weights": list(self.weights),
            "search": search if self.searched else None,
            "alone": [_plain(rating) for rating in self.alone],
            "equal": _plain(self.equal),
            "fused": _plain(self.fused),
            "best": self.best,
            "gain": _without_classes(self.gain),
            "equal_gain": _without_classes(self.equal_gain),
            "curve": [list(point) for point in self.curve],
            "alpha": ALPHA,
        }


def fuse_runs(runs: Sequence[str | os.PathLike[str]], **options: Any) -> Fusion:
    """Fuses what evaluations wrote; see :func:`~jaxvid.evaluation.comparison.read_scored` and :func:`fuse_judged`."""
    return fuse_judged([read_scored(run) for run in runs], **options)


def fuse_judged(
    runs: Sequence[tuple[Judged, np.ndarray]],
    *,
    weights: Sequence[float] | None = None,
    num_folds: int = 5,
    step: float = 0.05,
    seed: int = 0,
) -> Fusion:
    """The weighted mean of several runs' scores, and what it gains over the best of them.

    Without ``weights`` all weights in steps of ``step`` are tried, and those that get most clips right are taken. Since
    they are chosen by the clips' labels, their accuracy on the same clips says too much. So the clips are divided into
    folds, and each is fused with the weights that are best on the other folds. What is estimated is the accuracy of
    *searching the weights on a share* ``1 - 1 / num_folds`` *of such clips and fusing new ones with them*. The
    intervals are over the clips, the folds and their weights being as they are. The best run is chosen on all clips,
    which is to its advantage.

    Args:
      runs: at least 2, each with its scores ``float[n K]``. Clips and classes are paired by name.
      weights: one >= 0 for each run, not all 0; ``None`` searches.
      num_folds: at least 2 and at most the number of clips. Each class is spread evenly over the folds.
      step: of the weights that are tried, in (0, 1], which must divide 1.
      seed: of the folds, at least 0. They depend on the names of the clips and classes and not on their order.

    Raises:
      ValueError: an argument is out of its range, or the runs were evaluated on other clips or classes.
    """
    if len(runs) < 2:
        raise ValueError(f"fusion needs at least 2 runs, received {len(runs)}.")
    first = runs[0][0]
    scores = [runs[0][1], *(_aligned(first, *run) for run in runs[1:])]
    n, M = len(first.labels), len(runs)
    if weights is not None:
        chosen = _shares(weights, M)
        folds, of_folds, curve = np.zeros(n, int), (chosen,), ()
    else:
        if not 2 <= num_folds <= n:
            raise ValueError(f"num_folds must be >= 2 and <= {n}, the number of clips, received num_folds={num_folds}.")
        folds = stratified_folds(first, num_folds, seed)
        grid = weight_grid(M, step)
        counts = np.stack([np.bincount(folds[_right(first, fused_scores(scores, point))], minlength=num_folds)
                           for point in grid])  # fmt: skip
        total = counts.sum(axis=1)
        # The first of equally good points is the nearest to equal weights.
        of_folds = tuple(_shares(grid[np.argmax(total - counts[:, fold])], M) for fold in range(num_folds))
        chosen = _shares(grid[np.argmax(total)], M)
        points = sorted((_shares(point, M)[0], int(right) / n) for point, right in zip(grid, total, strict=True))
        curve = tuple(points) if M == 2 else ()
    fused = np.zeros(scores[0].shape, np.float32)
    for fold, own in enumerate(of_folds):
        fused[folds == fold] = fused_scores([one[folds == fold] for one in scores], own)
    fused *= first.decoded[:, None]
    judged = _judged(first, "fused", fused)
    equal = _judged(first, "equal weights", fused_scores(scores, [1] * M))
    alone = [_judged(first, run.run, own) for (run, _), own in zip(runs, scores, strict=True)]
    best = int(np.argmax([int(run.correct.sum()) for run in alone]))
    searched = weights is None
    return Fusion(
        runs=tuple(run.run for run, _ in runs),
        weights=chosen,
        searched=searched,
        num_folds=num_folds if searched else 0,
        step=step,
        seed=seed,
        fold_weights=of_folds if searched else (),
        fold_of_clip=folds,
        alone=tuple(Rating.of(run.correct) for run in alone),
        equal=Rating.of(equal.correct),
        fused=Rating.of(judged.correct),
        best=best,
        gain=compare_judged(judged, alone[best]),
        equal_gain=compare_judged(equal, alone[best]),
        curve=curve,
        judged=judged,
        scores=fused,
    )


def weight_grid(num_runs: int, step: float) -> np.ndarray:
    """All weights in steps, the nearest to equal ones first.

    Args:
      num_runs: ``M``, at least 1.
      step: in (0, 1]; it must divide 1.

    Returns:
      ``int[P M]``, each row with the sum ``1 / step``. Of equally near ones those come first in which the first runs
      have more weight.

    Raises:
      ValueError: the step does not divide 1, or there are more than ``MAX_POINTS`` weights to try.

    >>> weight_grid(2, 0.25).tolist()
    [[2, 2], [3, 1], [1, 3], [4, 0], [0, 4]]
    """
    steps = round(1 / step) if 1e-6 <= step <= 1 else 0
    if not steps or abs(steps * step - 1) > 1e-9:
        raise ValueError(f"step must be in (0, 1] and divide 1, as 0.05 does, received step={step}.")
    num_points = math.comb(steps + num_runs - 1, num_runs - 1)
    if num_points > MAX_POINTS:
        raise ValueError(
            f"step must leave at most {MAX_POINTS:,} weights to try, received step={step}, which for {num_runs} runs "
            f"leaves {num_points:,}."
        )
    points = [(*point, steps - sum(point)) for point in itertools.product(range(steps + 1), repeat=num_runs - 1)
              if sum(point) <= steps]  # fmt: skip
    # The squared distance to equal weights, in whole numbers.
    return np.array(sorted(points, key=lambda point: (sum((num_runs * part - steps) ** 2 for part in point),
                                                      [-part for part in point])))  # fmt: skip


def stratified_folds(judged: Judged, num_folds: int, seed: int) -> np.ndarray:
    """A fold for each clip: of each class, and of all, as many in every fold as the numbers allow.

    Args:
      judged: its names of clips and classes, and labels, are all that is read.
      num_folds: at least 1.
      seed: at least 0.

    Returns:
      ``int[n]`` in ``[0, num_folds)``.

    Raises:
      ValueError: the seed is negative.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be >= 0 and < 2**64, received seed={seed}.")
    by_name = np.argsort(np.array(judged.clip_names), kind="stable")
    # NumPy promises that a Philox's raw words never change; its own permutation may.
    words = np.empty(len(by_name), np.uint64)
    words[by_name] = np.random.Philox(key=np.array([seed, 0], np.uint64)).random_raw(len(by_name))
    class_rank = np.argsort(np.argsort(np.array(judged.class_names)))
    dealt = np.lexsort((words, class_rank[judged.labels]))
    folds = np.empty(len(dealt), int)
    folds[dealt] = np.arange(len(dealt)) % num_folds
    return folds


def _aligned(first: Judged, judged: Judged, scores: np.ndarray) -> np.ndarray:
    """The scores in the order of the first run's clips and classes."""
    order, class_of = pair(first, judged)
    aligned = np.empty_like(scores)
    aligned[:, class_of] = scores[order]
    return aligned


def _judged(first: Judged, run: str, scores: np.ndarray) -> Judged:
    return dataclasses.replace(first, run=run, correct=_right(first, scores))


def _right(first: Judged, scores: np.ndarray) -> np.ndarray:
    return first.decoded & (scores.argmax(axis=1) == first.labels)


def _shares(weights: Sequence[float] | np.ndarray, num_runs: int) -> tuple[float, ...]:
    given = np.asarray(weights, np.float64)
    fused_scores([np.zeros((1, 1))] * num_runs, given.tolist())  # judges them
    return tuple((given / given.sum()).tolist())


def _plain(rating: Rating) -> dict[str, Any]:
    return {"num_correct": rating.num_correct, "accuracy": rating.accuracy, "interval": list(rating.interval)}


def _without_classes(found: Comparison) -> dict[str, Any]:
    return {name: value for name, value in found.to_json().items() if name != "classes"}
