"""Several networks on the same clips, as one: the weighted mean of their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
