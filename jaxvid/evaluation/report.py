"""The files of an evaluation: metrics, a table of the classes, the confusion matrix and every prediction."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxvid.evaluation.confusion import draw_confusion
from jaxvid.evaluation.metrics import ClassificationState, per_class, summarize
from jaxvid.evaluation.networks import network_fusions, network_predictions, write_fusions
from jaxvid.evaluation.predict import Predictions
from jaxvid.evaluation.stage_guesses import collect_guesses
from jaxvid.evaluation.stage_guesses_report import write_guesses
from jaxvid.evaluation.text import pad, printable, text_array, text_width
from jaxvid.files import replacing, write_text


def write_report(
    output: str | os.PathLike[str],
    predictions: Predictions,
    metrics: Mapping[str, Any],
    class_names: Sequence[str],
    *,
    clip_names: Sequence[str] | None = None,
) -> dict[str, Path]:
    """Writes what an evaluation found into a folder.

    Each file is complete or absent: it is written beside its place and then moved there.

    * ``metrics.json``: the metrics, strict JSON (no NaN, no infinity).
    * ``per_class.csv`` (UTF-8) and ``per_class.txt``: the rows of :func:`~jaxvid.evaluation.metrics.per_class`.
    * ``confusion.png``: the confusion matrix, rows as shares.
    * ``predictions.npz``: ``ids``, ``names``, ``labels``, ``decoded``, ``logits [n V K]``, ``view_scores [n V K]``,
      ``scores [n K]`` and ``class_names``; no pickled objects. A NUL character in a name, which NumPy's text arrays
      would lose, is written as U+2400.
    * Of a network with Class Regularization also what its stages guessed: see
      :func:`~jaxvid.evaluation.stage_guesses_report.write_guesses`.
    * Of several networks in one a report of each, in ``networks/NAME``, and ``fusions.json`` and ``fusions.txt``: see
      :func:`~jaxvid.evaluation.networks.network_fusions`.

    Args:
      output: the folder; it is created.
      predictions: at least one clip.
      metrics: plain values by name, from :func:`~jaxvid.evaluation.metrics.summarize`, and whatever else shall stand
        beside them (checkpoint, step, evaluation settings).
      class_names: the ``K`` names.
      clip_names: what a person calls each clip, in the order of the ids; any characters. Left out, the ids.

    Returns:
      The files by their names.

    Raises:
      ValueError: a metric that strict JSON cannot hold, or a number of names that does not fit.
    """
    if clip_names is None:
        clip_names = [str(i) for i in predictions.ids]
    if len(clip_names) != len(predictions):
        raise ValueError(f"clip_names must hold {len(predictions)} names, received {len(clip_names)}.")
    rows = per_class(predictions, class_names)
    try:
        text = json.dumps(dict(metrics), indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"metrics must hold plain, finite JSON values, received {dict(metrics)} ({error}).") from error
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / name for name in ("metrics.json", "per_class.csv", "per_class.txt", "confusion.png",
                                              "predictions.npz")}  # fmt: skip
    write_text(files["metrics.json"], text)
    write_text(files["per_class.csv"], _csv(rows))
    write_text(files["per_class.txt"], format_per_class(rows) + "\n")
    state = ClassificationState.from_predictions(predictions)
    with replacing(files["confusion.png"]) as file:
        title = _title(state.compute())
        draw_confusion(state.confusion, class_names, title=title).savefig(file, format="png", dpi=150)
    with replacing(files["predictions.npz"]) as file:
        _write_predictions(file, predictions, class_names, clip_names)
    if (guesses := collect_guesses(predictions, class_names)) is not None:
        files |= write_guesses(folder, guesses, clip_names)
    if networks := network_predictions(predictions):
        files |= write_fusions(folder, network_fusions(networks, class_names))
        for name, part in networks.items():
            own = write_report(
                folder / "networks" / name, part, summarize(part, class_names), class_names, clip_names=clip_names
            )
            files |= {f"networks/{name}/{file}": path for file, path in own.items()}
    _forget_others(folder, files)
    return files


def _forget_others(folder: Path, files: Mapping[str, Path]) -> None:
    """Removes what an evaluation of another network left: parts that this one does not have."""
    kinds, written = {".json", ".txt", ".csv", ".png", ".npz"}, set(files.values())
    for part in ("fusions.*", "networks/*/*", "stage_guesses.*", "guesses/*/*"):
        for old in folder.glob(part):
            if old not in written and old.suffix in kinds and old.is_file():
                old.unlink()
    for part in ("networks/*", "networks", "guesses/*", "guesses"):
        for left in folder.glob(part):
            if left.is_dir() and not any(left.iterdir()):
                left.rmdir()


def format_per_class(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of :func:`~jaxvid.evaluation.metrics.per_class` as a text table for a terminal.

    Control characters in names are shown escaped; columns line up for wide (East Asian) characters too.

    >>> row = {"class": "wave", "num_clips": 4, "num_correct": 3, "num_missing": 0, "accuracy": 0.75,
    ...        "num_predicted": 3, "precision": 1.0, "confused_with": "clap", "num_confused": 1}
    >>> print(format_per_class([row]))
    class  clips  correct  missing  accuracy  precision  most often taken for
    wave       4        3        0     75.0%     100.0%  clap (1)
    """
    header = ["class", "clips", "correct", "missing", "accuracy", "precision", "most often taken for"]
    lines = [header]
    for row in rows:
        counts = [str(row[key]) for key in ("num_clips", "num_correct", "num_missing")]
        shares = ["-" if row[key] is None else f"{row[key]:.1%}" for key in ("accuracy", "precision")]
        taken = "" if row["confused_with"] is None else f"{printable(row['confused_with'])} ({row['num_confused']})"
        lines.append([printable(row["class"]), *counts, *shares, taken])
    widths = [max(text_width(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line of the table: the first and the last column begin at the left, the numbers end at the right."""
    last = len(cells) - 1
    padded = [
        pad(cell, width, left=column in (0, last))
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _title(metrics: Mapping[str, Any]) -> str:
    title = f"top-1 {metrics['top1']:.1%} of {metrics['num_clips']} clips"
    return f"{title}, {metrics['num_missing']} not decoded" if metrics["num_missing"] else title


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write_predictions(
    file: IO[bytes], predictions: Predictions, class_names: Sequence[str], clip_names: Sequence[str]
) -> None:
    np.savez(
        file,
        ids=predictions.ids,
        names=text_array(clip_names),
        labels=predictions.labels,
        decoded=predictions.decoded,
        logits=predictions.logits,
        view_scores=predictions.view_scores,
        scores=predictions.scores,
        class_names=text_array(class_names),
    )
