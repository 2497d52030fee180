"""How alike a network finds the classes, and which it confuses (U2S, Zhao et al. 2020, equations 1, 2 and 7)."""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy

from jaxvid.evaluation.metrics import label_ranks
from jaxvid.evaluation.predict import Predictions

DISTANCES = ("cosine", "l1")


def class_similarity(sparsity: np.ndarray, distance: str = "cosine") -> np.ndarray:
    r"""The similarity of every two classes, ``s_ij = 1 - d(Xi_i, Xi_j)``.

    Args:
      sparsity: ``Xi``, ``float[K C]``: of each class the mean share of zeros in each channel, in [0, 1]; a row of NaN
        is a class that was not seen, which is like no other one.
      distance: ``cosine``, one minus the cosine, or ``l1``, the mean absolute difference. Both are in [0, 1]; the paper
        asks for that and does not say which it takes.

    Returns:
      ``float64[K K]`` in [0, 1], symmetric, with ones on the diagonal.

    Raises:
      ValueError: no matrix, a share outside [0, 1], or an unknown distance.

    >>> class_similarity(np.array([[1.0, 0.0], [1.0, 1.0]]), "l1").tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    sparsity = np.asarray(sparsity, np.float64)
    if sparsity.ndim != 2 or np.nanmin(sparsity, initial=0) < 0 or np.nanmax(sparsity, initial=1) > 1:
        raise ValueError(f"sparsity must be shares in [0, 1] of shape [K C], received the shape {sparsity.shape}.")
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, received {distance!r}.")
    unseen = np.asarray(np.isnan(sparsity).any(axis=1))
    shares = np.where(unseen[:, None], 0.0, sparsity)
    if distance == "cosine":
        norms = np.linalg.norm(shares, axis=1, keepdims=True)
        unit = shares / np.where(norms > 0, norms, 1.0)
        similarity = unit @ unit.T
    else:
        similarity = np.stack([1 - np.abs(shares - row).mean(axis=1) for row in shares])
    similarity = np.clip((similarity + similarity.T) / 2, 0.0, 1.0)  # a product of matrices need not be symmetric
    similarity[unseen] = similarity[:, unseen] = 0.0
    np.fill_diagonal(similarity, 1.0)
    return similarity


def confusing_classes(similarity: np.ndarray, num_confusing: float) -> tuple[np.ndarray, float]:
    """Which classes are confused with which: those more similar than a threshold.

    The threshold is chosen so that a class is confused with ``num_confusing`` others on average, or with fewer where
    pairs are equally similar.

    Args:
      similarity: ``float[K K]``, symmetric.
      num_confusing: ``N`` in [0, K - 1], of other classes.

    Returns:
      ``bool[K K]``, symmetric and true on the diagonal, and the threshold ``alpha``: ``similarity > alpha``.

    Raises:
      ValueError: ``num_confusing`` is out of its range.

    >>> similarity = np.array([[1.0, 0.9, 0.2], [0.9, 1.0, 0.4], [0.2, 0.4, 1.0]])
    >>> confusing_classes(similarity, 2 / 3)[0].astype(int).tolist()  # one pair among three classes
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    K = len(similarity)
    if not 0 <= num_confusing <= K - 1:
        raise ValueError(
            f"num_confusing must be in [0, {K - 1}] with {K} classes, received num_confusing={num_confusing}."
        )
    pairs = np.sort(similarity[np.triu_indices(K, 1)])[::-1]
    count = round(num_confusing * K / 2)
    alpha = float(pairs[count]) if count < len(pairs) else -1.0
    return (similarity > alpha) | np.eye(K, dtype=bool), alpha


def top_n_accuracies(predictions: Predictions) -> np.ndarray:
    """The top-1, top-2, …, top-K accuracy of the clips that could be decoded, ``float64[K]``; 0 where none could.

    Not as in :func:`~jaxvid.evaluation.metrics.summarize`, where the others are wrong: how many classes a network
    confuses is no question of damaged files.

    >>> predictions = Predictions(np.arange(2), np.array([0, 1]), np.ones(2, bool), np.zeros((2, 1, 2)),
    ...                           np.array([[0.9, 0.1], [0.8, 0.2]]))
    >>> top_n_accuracies(predictions).tolist()
    [0.5, 1.0]
    """
    K = predictions.scores.shape[1]
    ranks = label_ranks(predictions.scores, predictions.labels)[predictions.decoded]
    return np.array([np.mean(ranks < n) if len(ranks) else 0.0 for n in range(1, K + 1)])


def num_confusing_for(accuracies: np.ndarray, top_accuracy: float) -> int:
    """How many other classes one is confused with: ``N - 1`` of the smallest N whose top-N accuracy is reached.

    The paper takes the N at which the true class is nearly always among the first N (85 % on Something-Something, 90 %
    on HMDB51, 95 % on UCF101); the predicted class is one of them. At least 1, or there is nothing to look at again.

    >>> num_confusing_for(np.array([0.6, 0.8, 0.95, 1.0]), 0.9)
    2
    """
    reached = np.flatnonzero(accuracies >= top_accuracy)
    return int(max(1, reached[0])) if len(reached) else len(accuracies) - 1


def average_similarity(similarity: np.ndarray) -> np.ndarray:
    """The mean similarity of each class to the others, ``float64[K]``: equation 7 before its min-max normalisation."""
    K = len(similarity)
    return (similarity.sum(axis=1) - np.diag(similarity)) / max(K - 1, 1)


def order_by_similarity(similarity: np.ndarray) -> np.ndarray:
    """An order of the classes in which similar ones are neighbours (average linkage, leaves in their best order)."""
    if len(similarity) < 3:
        return np.arange(len(similarity))
    distances = 1 - similarity[np.triu_indices(len(similarity), 1)]
    return hierarchy.leaves_list(hierarchy.linkage(distances, "average", optimal_ordering=True))
