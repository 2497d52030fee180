"""How two classes lie among each other in the features of each network: t-SNE (U2S, figures 6 f and g)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxvid.explain.interface import Picture

MIN_CLIPS = 6
"""Of both classes together; fewer have no neighbourhoods."""

_PERPLEXITY = 30.0  # scikit-learn's
_MAX_EXACT = 1000  # clips
_COLOURS = ("goldenrod", "tab:purple")  # the paper's


def u2s_tsne(
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    correct: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    clip_names: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Picture:
    """Draws the clips of two classes, one panel for each network, by the t-SNE of their features.

    Args:
      features: ``float[n C]`` of each network, averaged over time and space.
      labels: ``int[n]``, 0 or 1.
      correct: ``bool[n]`` of each network: whether it gets the clip right; a clip that it gets wrong is a cross.
      class_names: the two names.
      clip_names: of the ``n`` clips, for the numbers.
      seed: of t-SNE.

    Returns:
      The picture, with the two names above it. The numbers have ``perplexity``, and for each network ``silhouette`` (of
      the features themselves, in [-1, 1]: above 0, clips are nearer to their own class than to the other), ``accuracy``
      and the ``points``.

    Raises:
      ValueError: the shapes do not fit together, or there are fewer than 2 clips of a class or 6 of both.
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import silhouette_score

    _check(features, labels, correct, class_names)
    n = len(labels)
    perplexity = min(_PERPLEXITY, (n - 1) / 3)
    figure = Figure(figsize=(5.2 * len(features), 5.4), layout="constrained")
    panels = figure.subplots(1, len(features), squeeze=False)[0]
    clips = list(clip_names) if clip_names is not None else [str(i) for i in range(n)]
    numbers: dict[str, Any] = {"classes": list(class_names), "perplexity": perplexity, "seed": seed, "networks": {}}
    both, lines = " and ".join(class_names), []
    figure.suptitle(f"clips of {both}", fontsize=12, parse_math=False)
    for axes, (network, values) in zip(panels, features.items(), strict=True):
        points, right = embed(values, perplexity, seed), correct[network]
        silhouette, accuracy = float(silhouette_score(values.astype(np.float64), labels)), float(right.mean())
        for k, (name, colour) in enumerate(zip(class_names, _COLOURS, strict=True)):
            for chosen, marker in (((labels == k) & right, "o"), ((labels == k) & ~right, "x")):
                known = name if marker == "o" else f"{name}, wrong"
                axes.scatter(*points[chosen].T, marker=marker, color=colour, s=36, alpha=0.85,
                             label=f"{known} ({chosen.sum()})")  # fmt: skip
        axes.set_title(f"{network}: silhouette {silhouette:z.3f}, right {accuracy:.1%}", fontsize=11)
        axes.set_aspect("equal", "datalim")
        axes.set_xticks([])
        axes.set_yticks([])
        for text in axes.legend(fontsize=9).get_texts():
            text.set_parse_math(False)
        rows = zip(clips, points.tolist(), labels.tolist(), right.tolist(), strict=True)
        numbers["networks"][network] = {
            "silhouette": silhouette,
            "accuracy": accuracy,
            "points": [{"clip": c, "at": at, "class": class_names[k], "right": r} for c, at, k, r in rows],
        }
        lines.append(f"{network}: silhouette of {both} {silhouette:z.4f}, right {accuracy:.1%} of {n} clips")
    return Picture(figure, numbers, tuple(lines))


def embed(features: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """``float[n C] -> float64[n 2]`` by scikit-learn's t-SNE, which begins with the first two principal components."""
    from sklearn.manifold import TSNE

    start = "pca" if min(features.shape) >= 2 else "random"
    # The approximation is of use to many points only, and its threads spin where the cores are busy.
    method = "exact" if len(features) <= _MAX_EXACT else "barnes_hut"
    tsne = TSNE(2, perplexity=perplexity, init=start, learning_rate="auto", random_state=seed, method=method)
    return tsne.fit_transform(features.astype(np.float32)).astype(np.float64)


def _check(
    features: Mapping[str, np.ndarray], labels: np.ndarray, correct: Mapping[str, np.ndarray], names: Sequence[str]
) -> None:
    n = len(labels)
    if len(names) != 2 or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"u2s_tsne must be given clips of 2 classes, received {', '.join(names)}.")
    counts = [int((labels == k).sum()) for k in range(2)]
    if min(counts) < 2 or n < MIN_CLIPS:
        raise ValueError(
            f"u2s_tsne must be given at least 2 clips of each class and {MIN_CLIPS} in all, received {counts[0]} of "
            f"{names[0]!r} and {counts[1]} of {names[1]!r}."
        )
    for network, values in features.items():
        if values.ndim != 2 or len(values) != n or correct[network].shape != (n,):
            raise ValueError(f"the features of {network} must be [{n} C], received {list(values.shape)}.")
