"""The picture of how similar classes are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxvid.evaluation.class_similarity import order_by_similarity
from jaxvid.evaluation.confusion import MAX_NAMED, label_room, writable_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_similarity(
    similarity: np.ndarray, confusing: np.ndarray, class_names: Sequence[str], *, title: str = ""
) -> Figure:
    """Draws a matrix of similarities, similar classes side by side; a dot marks two that are confused.

    Args:
      similarity: ``float[K K]`` in [0, 1], symmetric.
      confusing: ``bool[K K]``.
      class_names: the ``K`` names; of more than 60 none is shown.
      title: a line above the picture.

    Returns:
      A figure that belongs to no window; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure

    K = len(class_names)
    order = order_by_similarity(similarity)
    shown, marked = similarity[np.ix_(order, order)], confusing[np.ix_(order, order)] & ~np.eye(K, dtype=bool)
    side = float(np.clip(0.36 * K, 3.2, 10.0))  # inches of the matrix alone
    names, text = writable_names(class_names, order) if K <= MAX_NAMED else [], 10 if K <= 20 else 7
    room = label_room(names, text)
    figure = Figure(figsize=(side + room + 1.2, side + room + 0.4), layout="constrained")
    axes = figure.add_subplot()
    # Features that most classes share make all of them similar: colours are for the differences among these.
    others = shown[~np.eye(K, dtype=bool)]
    low = float(others.min(initial=1.0))
    image = axes.imshow(shown, cmap="viridis", vmin=low, vmax=max(float(others.max(initial=low)), low + 1e-6))
    extend = "max" if float(others.max(initial=low)) < 1 else "neither"
    figure.colorbar(image, ax=axes, shrink=0.8, extend=extend).set_label("similarity (1 on the diagonal)")
    rows, columns = np.nonzero(marked)
    size = side * 72 / K  # points of one cell
    axes.scatter(columns, rows, s=(0.35 * size) ** 2, c="white", edgecolors="black", linewidths=0.05 * size)
    if names:
        axes.set_xticks(range(K), names, rotation=90, fontsize=text)
        axes.set_yticks(range(K), names, fontsize=text)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"{K} classes, similar ones side by side")
    axes.set_title(title, parse_math=False)
    figure.draw_without_rendering()  # the constrained layout has not settled after one pass
    return figure
