"""The picture of a confusion matrix, readable for two classes and for four hundred."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ANNOTATED = 20
"""Up to this many classes every cell that is not empty shows its number."""
MAX_NAMED = 60
"""Up to this many classes the axes show the classes' names; beyond, their numbers."""
MAX_NAME = 32
"""Characters of a name in a picture."""

_CHARACTER = 0.58  # of the font's height, its mean width


def draw_confusion(confusion: np.ndarray, class_names: Sequence[str], *, title: str = "") -> Figure:
    """Draws a confusion matrix whose rows are shares of the true class.

    A class without clips has a grey row; clips without a prediction make a row sum to less than 1. Names are shown
    literally (a dollar sign starts no formula) and shortened as in :func:`writable_names`; a name that the font cannot
    write is replaced by its number.

    Args:
      confusion: ``int[K K+1]`` as in :class:`~jaxvid.evaluation.metrics.ClassificationState`: true class by predicted
        class, and the clips without a prediction in the last column.
      class_names: the ``K`` names.
      title: a line above the picture.

    Returns:
      A figure that belongs to no window; ``figure.savefig(path)`` writes it.

    Raises:
      ValueError: the shapes do not fit together.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    K = len(class_names)
    if confusion.shape != (K, K + 1):
        raise ValueError(
            f"confusion must be int[K K+1] with K={K}, the number of class_names, received {list(confusion.shape)}."
        )
    side = np.clip(0.42 * K, 3.2, 11.0) if K <= MAX_NAMED else 10.0  # inches of the matrix alone
    labels, size = writable_names(class_names) if K <= MAX_NAMED else [], 10 if K <= 20 else 8 if K <= 40 else 6
    room = label_room(labels, size)
    figure = Figure(figsize=(side + room + 1.2, side + room + 0.4), layout="constrained")
    axes = figure.add_subplot()
    totals = confusion.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, confusion[:, :K] / np.maximum(totals, 1), np.nan)
    # Without numbers in the cells, the root makes a mistake of a few per cent visible.
    norm = PowerNorm(1.0 if K <= MAX_ANNOTATED else 0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, norm=norm, cmap=colormaps["Blues"].with_extremes(bad="0.85"), aspect="equal")
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the true class's clips")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title, parse_math=False)
    _name_axes(axes, labels, size)
    if K <= MAX_ANNOTATED:
        _annotate(axes, shares)
    return figure


def _name_axes(axes: Axes, labels: Sequence[str], size: int) -> None:
    K = len(labels)
    if not K:
        axes.set_xlabel("predicted class (number)")
        axes.set_ylabel("true class (number)")
        return
    axes.set_xticks(
        range(K), labels, rotation=45 if K <= 20 else 90, ha="right" if K <= 20 else "center", fontsize=size
    )
    axes.set_yticks(range(K), labels, fontsize=size)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
        label.set_rotation_mode("anchor" if K <= 20 else "default")


def _annotate(axes: Axes, shares: np.ndarray) -> None:
    size = 10 if len(shares) <= 10 else 7
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:  # neither an empty cell nor the row of a class without clips
            colour = "white" if share > 0.55 else "black"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=size)


def label_room(labels: Sequence[str], size: int) -> float:
    """Inches that names of a size in points need beside a matrix, and at least 2."""
    return max(2.0, max(map(len, labels), default=0) * size * _CHARACTER / 72)


def writable_names(class_names: Sequence[str], labels: Iterable[int] | None = None) -> list[str]:
    r"""Names of classes that the picture's font knows, each once: where two agree, their numbers follow.

    Args:
      class_names: the ``K`` names.
      labels: whose names, in their order; by default all.

    >>> writable_names(["turn_counterclockwise_one_flash", "a" * 40, "a" * 50, "two\nlines"], [0, 3, 1])
    ['turn_counterclockwise_one_flash', 'class 3', 'aaaaaaaaaaaaaaaa…aaaaaaaaaaaaaaa']
    """
    labels = [int(k) for k in (range(len(class_names)) if labels is None else labels)]
    names = [writable(class_names[k], f"class {k}") for k in labels]
    return [_numbered(name, k) if names.count(name) > 1 else name for name, k in zip(names, labels, strict=True)]


def _numbered(name: str, number: int) -> str:
    ending = f" ({number})"
    return shortened(name, MAX_NAME - len(ending)) + ending


def writable(name: str, otherwise: str, limit: int = MAX_NAME) -> str:
    """The name, shortened, or what stands for it when the picture's font lacks one of its characters."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    short = shortened(name, limit)
    font = get_font(findfont(FontProperties()))
    known = all(character.isprintable() and font.get_char_index(ord(character)) for character in short)
    return short if known and short.strip() else otherwise


def shortened(name: str, limit: int) -> str:
    """The beginning and the end of a name that is too long, since names of classes often differ at their ends.

    >>> shortened("turn_counterclockwise_two_flashes", 20), shortened("turn", 4)
    ('turn_count…o_flashes', 'turn')
    """
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[len(name) - (limit - 1) // 2 :]}"
