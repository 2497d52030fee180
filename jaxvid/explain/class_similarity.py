"""Whether classes that look alike to a network are those that it gets wrong (U2S, Zhao et al. 2020, figure 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvid.explain.interface import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUM_BINS = 10
_STYLES = (("^", "tab:green"), ("x", "goldenrod"), ("*", "tab:red"), ("+", "tab:blue"))  # as in the paper


def u2s_similarity(
    similarity: Mapping[str, np.ndarray],
    accuracy: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> Picture:
    """Draws each class's accuracy against its average similarity to the others, and a histogram of the similarities.

    Args:
      similarity: ``float[K]`` of each network, equation 7 before its min-max normalisation.
      accuracy: ``float[K]`` in [0, 1] of each network; NaN is a class without clips, which is not drawn.
      class_names: the ``K`` names.
      title: a line above the picture.
      notes: sentences about the networks, behind the lines.

    Returns:
      The picture; its numbers have, for each network, ``mean_similarity``, ``correlation`` (Pearson's; ``None`` of
      fewer than 3 classes or of equal values), ``average_similarity``, ``normalized_similarity`` and ``accuracy`` by
      class.

    Raises:
      ValueError: the shapes do not fit together.

    Note:
      The paper's min-max normalisation has one scale for all networks, so it changes the numbers at the axis only. The
      picture shows similarities as they are; the normalised ones are among the numbers.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    _check(similarity, accuracy, len(class_names))
    values = np.concatenate(list(similarity.values()))
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 1e-9)
    edges = np.linspace(low, low + span, _NUM_BINS + 1)
    thick = span / _NUM_BINS * 0.9 / len(similarity)  # the bars of the networks stand side by side in a bin
    figure = Figure(figsize=(11.5, 4.8), layout="constrained")
    figure.suptitle(title, parse_math=False)
    scatter, histogram = figure.subplots(1, 2)
    numbers: dict[str, Any] = {"networks": {}, "bins": edges.tolist()}
    lines = []
    for n, (name, alike) in enumerate(similarity.items()):
        marker, colour = _STYLES[n % len(_STYLES)]
        right = accuracy[name]
        r = correlation(alike, right)
        told = f"r = {r:.2f}" if r is not None else "r is undefined"
        counts, _ = np.histogram(alike, edges)
        scatter.scatter(alike, right, marker=marker, color=colour, s=45, alpha=0.8, label=f"{name}, {told}")
        mean = float(alike.mean())
        label = f"{name}, mean {mean:.3f}"
        histogram.bar(edges[:-1] + n * thick, counts, thick, align="edge", color=colour, label=label)
        histogram.axvline(mean, color=colour, linestyle=":", linewidth=1.2)
        numbers["networks"][name] = {
            "mean_similarity": mean,
            "correlation": r,
            "average_similarity": dict(zip(class_names, alike.tolist(), strict=True)),
            "normalized_similarity": dict(zip(class_names, ((alike - low) / span).tolist(), strict=True)),
            "accuracy": {k: None if np.isnan(v) else float(v) for k, v in zip(class_names, right, strict=True)},
            "counts": counts.tolist(),
        }
        lines.append(f"{name}: mean similarity {mean:.4f}, correlation with the accuracy: {told}")
    _label(scatter, "average similarity to the other classes", "accuracy of the class")
    _limit_to_one(scatter, np.concatenate(list(accuracy.values())))
    _label(histogram, "average similarity to the other classes", "classes")
    histogram.yaxis.set_major_locator(MaxNLocator(integer=True))
    return Picture(figure, numbers, (*lines, *notes))


def correlation(similarity: np.ndarray, accuracy: np.ndarray) -> float | None:
    """Pearson's correlation over the classes that have an accuracy.

    >>> correlation(np.array([0.1, 0.2, 0.3, 0.9]), np.array([1.0, 0.8, 0.6, np.nan]))
    -1.0
    """
    known = ~np.isnan(accuracy)
    a, b = (values[known] - values[known].mean() if known.any() else values[known] for values in (similarity, accuracy))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    if known.sum() < 3 or scale < 1e-12:
        return None
    return round(float(a @ b) / scale, 12)


def _limit_to_one(axes: Axes, accuracies: np.ndarray) -> None:
    """Ends the axis of accuracies at 1, with room for half a marker above it."""
    from matplotlib.ticker import MaxNLocator

    span = max(1 - float(np.nan_to_num(accuracies, nan=1.0).min()), 0.1)
    bottom, top = 1 - 1.08 * span, 1 + 0.04 * span
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(bottom, 1.0)  # all of these steps meet 1
    axes.set_yticks([tick for tick in ticks if bottom <= tick < 1 + 1e-9])
    axes.set_ylim(bottom, top)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(fontsize=9)
    axes.grid(alpha=0.25)


def _check(similarity: Mapping[str, np.ndarray], accuracy: Mapping[str, np.ndarray], K: int) -> None:
    if not similarity or list(similarity) != list(accuracy):
        raise ValueError(
            f"accuracy must be of the networks of similarity ({', '.join(similarity)}), "
            f"received {', '.join(accuracy) or 'none'}."
        )
    for name, values in (*similarity.items(), *accuracy.items()):
        if values.shape != (K,):
            raise ValueError(f"{name!r} must have one value for each of {K} classes, received {list(values.shape)}.")
