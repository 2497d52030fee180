"""How alike the weights of two classes are, with and without category regularisation (U2S, figure 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxvid.explain.interface import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUM_BINS = 20
_MAX_NAMED = 40  # classes; of more the axes show none
_DECIMALS = 5  # of the numbers beside the picture, which are K squared


def u2s_weights(
    kernels: Mapping[str, Mapping[str, np.ndarray]],
    confusing: np.ndarray,
    class_names: Sequence[str],
    order: Sequence[int] | None = None,
) -> Picture:
    """Draws matrices of weight similarity, equation 4, a row for each classifier and a column for each run.

    Args:
      kernels: ``float[C K]`` of each run, for each classifier, by their names.
      confusing: ``C``, ``float[K K]``: which classes are confused; where it is binary a dot marks a confused pair.
      class_names: the ``K`` names.
      order: of the classes in the picture; that of the names by default, as in the paper.

    Returns:
      The picture, with a histogram of all pairs at the end of each row. The numbers have for each classifier and run
      ``mean_confused``, the mean over confused pairs that category regularisation lowers, ``mean_others`` and the
      ``matrix`` in the order of ``classes``.

    Raises:
      ValueError: the shapes do not fit together.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    K = len(class_names)
    _check(kernels, confusing, K)
    order = list(order if order is not None else sorted(range(K), key=lambda k: class_names[k]))
    runs = list(next(iter(kernels.values())))
    room = max(map(len, class_names), default=0) * _name_size(K) * 0.58 / 72 if K <= _MAX_NAMED else 0.0  # inches
    figure = Figure(figsize=((4.6 + room) * len(runs) + 4.4, (4.5 + room) * len(kernels)), layout="constrained")
    cast(Any, figure.get_layout_engine()).set(w_pad=0.1, h_pad=0.1)  # inches
    grid = figure.subplots(len(kernels), len(runs) + 1, squeeze=False)
    numbers: dict[str, Any] = {"classes": [class_names[k] for k in order], "classifiers": {}}
    lines = []
    for row, (classifier, of_runs) in zip(grid, kernels.items(), strict=True):
        told = numbers["classifiers"][classifier] = {}
        matrices = {run: similarity_of_columns(kernel) for run, kernel in of_runs.items()}
        limits = _limits(list(matrices.values()))
        for n, (axes, (run, matrix)) in enumerate(zip(row[:-1], matrices.items(), strict=True)):
            confused, others = mean_similarities(matrix, confusing)
            image = _draw_matrix(axes, matrix, confusing, class_names, order, limits)
            bar = figure.colorbar(image, ax=axes, shrink=0.75, extend="max" if limits[1] < 1 else "neither")
            bar.set_label("similarity (1 on the diagonal)")
            means = f"confused pairs {_written(confused)}, others {_written(others)}"
            axes.set_title(f"{run}\n{classifier}, mean similarity:\n{means}", fontsize=10, parse_math=False)
            _draw_pairs(row[-1], matrix, confusing, np.linspace(*limits, _NUM_BINS + 1).tolist(), run, f"C{n}")
            rounded = matrix[np.ix_(order, order)].round(_DECIMALS).tolist()
            told[run] = {"mean_confused": confused, "mean_others": others, "matrix": rounded}
            lines.append(f"{run}, {classifier}: mean similarity of the weights of {means}")
        row[-1].set_title(f"{classifier}, pairs of classes", fontsize=10, parse_math=False)
        row[-1].yaxis.set_major_locator(MaxNLocator(integer=True))
        row[-1].set_ylim(top=1.1 * row[-1].get_ylim()[1] + 0.2 * len(runs) * row[-1].get_ylim()[1])  # the legend's room
        for text in row[-1].legend(fontsize=8, loc="upper right").get_texts():
            text.set_parse_math(False)
    return Picture(figure, numbers, tuple(lines))


def similarity_of_columns(kernel: np.ndarray) -> np.ndarray:
    """``s(w_i, w_j) = (1 + cos(w_i, w_j)) / 2`` of every two columns, ``float64[K K]`` in [0, 1].

    A column of zeros has the cosine 0 to the others.

    >>> similarity_of_columns(np.array([[1.0, 0.0, -2.0], [0.0, 3.0, 0.0]])).tolist()
    [[1.0, 0.5, 0.0], [0.5, 1.0, 0.5], [0.0, 0.5, 1.0]]
    """
    kernel = np.asarray(kernel, np.float64)
    norms = np.linalg.norm(kernel, axis=0)
    unit = kernel / np.where(norms > 0, norms, 1.0)
    cosine = np.clip(unit.T @ unit, -1.0, 1.0)
    np.fill_diagonal(cosine, 1.0)
    return (1 + (cosine + cosine.T) / 2) / 2


def mean_similarities(matrix: np.ndarray, confusing: np.ndarray) -> tuple[float | None, float | None]:
    """The mean over confused pairs, weighted by ``confusing``, and that over the others; ``None`` of no pair.

    >>> mean_similarities(np.array([[1.0, 0.4], [0.4, 1.0]]), np.eye(2))
    (None, 0.4)
    """
    off = ~np.eye(len(matrix), dtype=bool)
    weights = np.asarray(confusing, np.float64)[off]
    means = []
    for chosen in (weights, (weights == 0).astype(np.float64)):
        means.append(float(matrix[off] @ chosen / chosen.sum()) if chosen.any() else None)
    return means[0], means[1]


def _limits(matrices: Sequence[np.ndarray]) -> tuple[float, float]:
    """Of the colours: those of two different classes, since the diagonal is 1 everywhere."""
    others = np.concatenate([matrix[~np.eye(len(matrix), dtype=bool)] for matrix in matrices])
    low, high = float(others.min(initial=1.0)), float(others.max(initial=0.0))
    return (low, high) if high > low else (low - 1e-6, low + 1e-6)


def _draw_pairs(
    axes: Axes, matrix: np.ndarray, confusing: np.ndarray, edges: list[float], run: str, colour: str
) -> None:
    pairs = np.triu_indices(len(matrix), 1)
    axes.hist(matrix[pairs], edges, histtype="step", linewidth=2, color=colour, label=f"{run}: all pairs")
    if _is_binary(confusing):
        chosen = matrix[pairs][np.asarray(confusing, bool)[pairs]]
        axes.hist(chosen, edges, color=colour, alpha=0.35, label=f"{run}: confused pairs")
    axes.set_xlabel("similarity of the weights of two classes")
    axes.set_ylabel("pairs of classes")


def _is_binary(confusing: np.ndarray) -> bool:
    return bool(np.isin(confusing, (0, 1)).all())


def _draw_matrix(
    axes: Axes,
    matrix: np.ndarray,
    confusing: np.ndarray,
    class_names: Sequence[str],
    order: list[int],
    limits: tuple[float, float],
) -> Any:
    K = len(order)
    image = axes.imshow(matrix[np.ix_(order, order)], cmap="viridis", vmin=limits[0], vmax=limits[1])
    if _is_binary(confusing):
        marked = np.asarray(confusing, bool)[np.ix_(order, order)] & ~np.eye(K, dtype=bool)
        rows, columns = np.nonzero(marked)
        cell = 3.0 * 72 / K  # points
        axes.scatter(columns, rows, s=(0.3 * cell) ** 2, c="white", edgecolors="black", linewidths=0.04 * cell)
    if K <= _MAX_NAMED:
        names, size = [class_names[k] for k in order], _name_size(K)
        axes.set_xticks(range(K), names, rotation=90, fontsize=size)
        axes.set_yticks(range(K), names, fontsize=size)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"{K} classes")
    return image


def _name_size(num_classes: int) -> int:
    return 9 if num_classes <= 15 else 6  # points


def _written(value: float | None) -> str:
    return "(none)" if value is None else f"{value:.4f}"


def _check(kernels: Mapping[str, Mapping[str, np.ndarray]], confusing: np.ndarray, K: int) -> None:
    if confusing.shape != (K, K):
        raise ValueError(f"confusing must be [{K} {K}], received {list(confusing.shape)}.")
    if not kernels or len({tuple(runs) for runs in kernels.values()}) > 1:
        raise ValueError(f"kernels must be of the same runs for each classifier, received {list(kernels)}.")
    for classifier, runs in kernels.items():
        for run, kernel in runs.items():
            if kernel.ndim != 2 or kernel.shape[1] != K:
                raise ValueError(f"{classifier} of {run} must be [C {K}], received {list(kernel.shape)}.")
