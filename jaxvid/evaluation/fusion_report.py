"""Fused runs as text, as JSON, as a picture of the weights, and as an evaluation that others can read."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxvid.evaluation.comparison import ALPHA, Comparison
from jaxvid.evaluation.confusion import writable
from jaxvid.evaluation.fusion import Fusion, Rating
from jaxvid.evaluation.metrics import summarize
from jaxvid.evaluation.predict import Predictions
from jaxvid.evaluation.report import write_report
from jaxvid.evaluation.text import columns, p_text, printable
from jaxvid.files import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def format_fusion(found: Fusion) -> str:
    """Each run alone, equal weights and the fused ones, what is gained over the best run, and how it was found."""
    n, missing = len(found.judged.labels), int((~found.judged.decoded).sum())
    told = f"{n:,} clips of {len(found.judged.class_names)} classes"
    name = "searched weights" if found.searched else "given weights"
    rated = [*zip(_letters(found), found.alone, strict=True), ("equal weights", found.equal), (name, found.fused)]
    best = _letters(found)[found.best]
    return "\n".join(
        [
            *(f"{letter}: {printable(run)}" for letter, run in zip(_letters(found), found.runs, strict=True)),
            "",
            *columns([["", "right", "accuracy", f"{1 - ALPHA:.0%} interval"], *(_row(*one) for one in rated)]),
            f"{told}{f', {missing:,} of which could not be decoded: wrong in all' * bool(missing)}",
            "",
            *_gain(name, best, found.gain),
            *_gain("equal weights", best, found.equal_gain),
            "",
            *(_search(found) if found.searched else [f"weights: {_weights(found, found.weights)}"]),
        ]
    )


def _letters(found: Fusion) -> list[str]:
    return [_letter(i) for i in range(len(found.runs))]


def _letter(i: int) -> str:
    """``A`` ... ``Z``, then ``AA`` ...

    >>> _letter(1), _letter(26)
    ('B', 'AA')
    """
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("A") + i % 26)


def _row(name: str, rating: Rating) -> list[str]:
    low, high = rating.interval
    return [name, f"{rating.num_correct:,}", f"{rating.accuracy:.2%}", f"{low:.2%} to {high:.2%}"]


def _gain(name: str, best: str, gain: Comparison) -> list[str]:
    (low, high), test = gain.interval, gain.test
    only = f"{test.b:,} clips that only they get right, {test.c:,} that only {best} does"
    return [
        f"{name} - {best}, the best run: {gain.difference:+.2%} ({1 - ALPHA:.0%} interval {low:+.2%} to {high:+.2%})",
        f"  {only}; McNemar: chi2 = {test.chi2:.3f} (Edwards), p = {p_text(test.p_value)}; "
        f"exact p = {p_text(test.exact_p_value)}",
    ]


def _search(found: Fusion) -> list[str]:
    counted = Counter(found.fold_weights).most_common()
    times = [f"{_weights(found, weights)} ({count} of {found.num_folds} folds)" for weights, count in counted]
    return [
        f"Each clip was fused with weights that were chosen without it, on the other {found.num_folds - 1} of "
        f"{found.num_folds} folds",
        f"(stratified by class, seed {found.seed}, steps of {found.step:g}): {'; '.join(times)}.",
        f"For new clips, chosen on all of these: {_weights(found, found.weights)}.",
        "Intervals are bootstraps over the clips, with these folds and weights. The best run was chosen on all clips.",
    ]


def _weights(found: Fusion, weights: Sequence[float]) -> str:
    return ", ".join(f"{letter} {weight:.4g}" for letter, weight in zip(_letters(found), weights, strict=True))


def fusion_json(found: Fusion) -> str:
    """Strict JSON of :meth:`~jaxvid.evaluation.fusion.Fusion.to_json`."""
    return json.dumps(found.to_json(), indent=2, allow_nan=False)


def draw_weights(found: Fusion) -> Figure:
    """Draws the accuracy of two fused runs over the first one's weight.

    The line is the accuracy on all clips, which the weights at its top were chosen by; the dashed line with its band is
    that of the search, each clip fused with weights that were chosen without it, and its interval. Below stand the
    weights that the folds chose.

    Returns:
      A figure that belongs to no window; ``figure.savefig(path)`` writes it.

    Raises:
      ValueError: there are not two runs, or nothing was searched.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not found.curve:
        raise ValueError(
            f"the weights of 2 runs that were searched can be drawn, received {len(found.runs)} runs, "
            f"{'searched' if found.searched else 'with given weights'}."
        )
    weights, shares = np.array(found.curve).T
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(weights, 100 * shares, color="#1f5fa8", marker="o", markersize=3.5, label="all clips, one weight for all")
    low, high = found.fused.interval
    axes.axhspan(100 * low, 100 * high, color="0.88", zorder=0, label=f"its {1 - ALPHA:.0%} interval")
    axes.axhline(100 * found.fused.accuracy, color="0.25", linestyle="--", label="searched, held out")
    below = axes.get_xaxis_transform()  # heights as shares of the picture
    for weight, count in Counter(own[0] for own in found.fold_weights).items():
        axes.plot(weight, 0.025, marker="^", color="#c2571a", markersize=7, transform=below, label="_")
        axes.text(weight, 0.06, f"{count}", color="#c2571a", fontsize=8, ha="center", transform=below)
    axes.plot([], [], marker="^", color="#c2571a", linestyle="", markersize=7, label="chosen by so many folds")
    bottom, top = min(100 * shares.min(), 100 * low), max(100 * shares.max(), 100 * high)
    axes.set_ylim(bottom - 0.14 * (top - bottom), top + 0.05 * (top - bottom))
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("weight of A (that of B is the rest)")
    axes.set_ylabel("right, per cent of the clips")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8))
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    lines = [f"{letter}: {_short(run)}, {rating.accuracy:.2%} alone"
             for letter, run, rating in zip("AB", found.runs, found.alone, strict=True)]  # fmt: skip
    gain = f"{len(found.judged.labels):,} clips, held out {found.fused.accuracy:.2%}, {found.gain.difference:+.2%}"
    axes.set_title("\n".join([*lines, f"{gain} over the best run"]), parse_math=False, fontsize=10, loc="left")
    order = [0, 2, 1, 3]
    handles, labels = axes.get_legend_handles_labels()
    figure.legend([handles[i] for i in order], [labels[i] for i in order], fontsize=8, ncols=4,
                  loc="outside lower center")  # fmt: skip
    return figure


def _short(run: str, limit: int = 60) -> str:
    return writable(
        run if len(run) <= limit else f"…{run[1 - limit :]}", "the run", limit
    )  # folders differ at their ends


def write_fusion(output: str | os.PathLike[str], found: Fusion) -> dict[str, Path]:
    """Writes the fused runs into a folder, as an evaluation of their own.

    ``fuse.json`` (strict JSON), ``fuse.png`` (of two runs whose weights were searched; one of an earlier fusion is
    removed otherwise), and the files of :func:`~jaxvid.evaluation.report.write_report`, so that the folder can be
    compared or fused like a run. Its ``logits`` are the logarithms of the fused scores, in one view. Each file is
    complete or absent.

    Returns:
      The files by their names.

    Raises:
      ValueError: the folder holds a run, or an evaluation that is no fusion, which would be written over.
    """
    judged, folder = found.judged, Path(output)
    ours = (folder / "fuse.json").exists()
    for name in ("checkpoints", "stages.json", "eval", *["predictions.npz"] * (not ours)):
        if (folder / name).exists():
            place = printable(str(folder))
            raise ValueError(f"output must be a folder of its own, received {place}, which holds {name}.")
    folder.mkdir(parents=True, exist_ok=True)
    predictions = _predictions(found)
    metrics = summarize(predictions, judged.class_names) | {
        "fused_runs": list(found.runs),
        "weights": list(found.weights),
        "weights_searched": found.searched,
    }
    files = write_report(folder, predictions, metrics, judged.class_names, clip_names=judged.clip_names)
    files["fuse.json"], picture = folder / "fuse.json", folder / "fuse.png"
    write_text(files["fuse.json"], fusion_json(found) + "\n")
    if found.curve:
        files["fuse.png"] = picture
        with replacing(picture) as file:
            draw_weights(found).savefig(file, format="png", dpi=150)
    else:
        picture.unlink(missing_ok=True)
    return files


def _predictions(found: Fusion) -> Predictions:
    decoded = found.judged.decoded
    logits = np.log(np.maximum(found.scores, np.finfo(np.float32).tiny)) * decoded[:, None]
    ids = np.arange(len(decoded), dtype=np.int32)
    return Predictions(ids, found.judged.labels.astype(np.int32), decoded, logits[:, None], found.scores)
