"""The guesses of a network's stages as text, as JSON, as a picture, and as runs that can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxvid.evaluation.confusion import MAX_ANNOTATED, MAX_NAMED, writable_names
from jaxvid.evaluation.stage_guesses import StageGuesses
from jaxvid.evaluation.text import columns, p_text, printable, text_array
from jaxvid.files import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_LEGEND = (
    "of views: top-1 of single views; classes: how many are guessed; as network: same class as the network's;",
    "only before, only here: clips that only the row above, or only this row, gets right",
)


def format_guesses(found: Mapping[str, Any]) -> str:
    """A line for each stage and one for the network, from :meth:`~jaxvid.evaluation.StageGuesses.to_json`.

    >>> row = {"stage": "stage4", "top1": 0.5, "view_top1": 0.25, "num_guessed": 3, "agreement": 0.75}
    >>> print(format_guesses({"stages": [row]}))
    guess of  top-1  of views  classes  as network  only before  only here  exact p
    stage4    50.0%     25.0%        3       75.0%            -          -        -
    of views: top-1 of single views; classes: how many are guessed; as network: same class as the network's;
    only before, only here: clips that only the row above, or only this row, gets right
    """
    lines = [["guess of", "top-1", "of views", "classes", "as network", "only before", "only here", "exact p"]]
    for row in found["stages"]:
        shares = [_percent(row[name]) for name in ("top1", "view_top1")]
        test = [str(row["b"]), str(row["c"]), p_text(row["exact_p"])] if "b" in row else ["-"] * 3
        lines.append([row["stage"], *shares, str(row["num_guessed"]), _percent(row["agreement"]), *test])
    return "\n".join([*columns(lines), *_LEGEND])


def format_all(found: Mapping[str, Any]) -> str:
    """:func:`format_guesses`, how often any two rows agree, and each class: accuracy and gain over the row before."""
    stages = [row["stage"] for row in found["stages"]]
    agreement = [["same class", *stages]]
    agreement += [[stage, *map(_percent, shares)] for stage, shares in zip(stages, found["agreement"], strict=True)]
    classes = [["class", "clips", *stages]]
    for row in found["classes"]:
        cells = [
            _percent(share) + (f" ({gain:+.1%})" if (gain := row["gain"].get(stage)) else "")
            for stage, share in row["accuracy"].items()
        ]
        classes.append([printable(row["class"]), str(row["num_clips"]), *cells])
    missing = f"{found['num_missing']} of {found['num_clips']} clips could not be decoded: wrong in every line.\n"
    return "\n".join(
        [
            missing * bool(found["num_missing"]) + format_guesses(found),
            "",
            *columns(agreement),
            "",
            *columns(classes),
        ]
    )


def draw_guesses(found: Mapping[str, Any]) -> Figure:
    """Draws the accuracy of the stages, how often two of them agree, and the accuracy of each class at each stage.

    Args:
      found: from :meth:`~jaxvid.evaluation.StageGuesses.to_json`.

    Returns:
      A figure that belongs to no window; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure

    stages = [row["stage"] for row in found["stages"]]
    num_classes = len(found["classes"])
    height = float(np.clip(0.32 * num_classes, 5.0, 12.0))
    figure = Figure(figsize=(10.0, height + 1.2), layout="constrained")
    left, right = cast("tuple[SubFigure, SubFigure]", figure.subfigures(1, 2, width_ratios=(1.0, 1.15)))
    accuracy, agreement = left.subplots(2, 1, height_ratios=(1.0, 1.4))
    _draw_accuracy(accuracy, found)
    title = "share of clips taken for the same class"
    _draw_shares(agreement, found["agreement"], stages, stages, title)
    agreement.set_aspect("equal")
    rows = [list(row["accuracy"].values()) for row in found["classes"]]
    names = writable_names([row["class"] for row in found["classes"]]) if num_classes <= MAX_NAMED else []
    _draw_shares(right.subplots(), rows, stages, names, "accuracy by class")
    return figure


def _draw_accuracy(axes: Axes, found: Mapping[str, Any]) -> None:
    rows = found["stages"]
    stages = [row["stage"] for row in rows]
    axes.bar(stages, [100 * row["top1"] for row in rows], color=["#a9c6e8"] * (len(rows) - 1) + ["#1f5fa8"])
    most = max(row["num_clips"] for row in found["classes"]) / found["num_clips"]
    axes.axhline(
        100 * most, color="0.35", linestyle="--", linewidth=1, label=f"always the most frequent class: {most:.1%}"
    )
    heights = [row["top1"] for row in rows]
    if found["num_views"] > 1:
        guessing = [(x, 100 * row["view_top1"]) for x, row in enumerate(rows) if row["view_top1"] is not None]
        axes.plot(*zip(*guessing, strict=True), "D", color="0.2", markersize=4, label="of single views")
        heights = [max(height, row["view_top1"] or 0) for height, row in zip(heights, rows, strict=True)]
    for x, (row, height) in enumerate(zip(rows, heights, strict=True)):
        bare = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # the dashed line may lie behind
        axes.text(x, 100 * height + 4, f"{row['top1']:.1%}", ha="center", va="bottom", fontsize=8, bbox=bare)
    axes.set_ylim(0, 140)  # room for the legend
    axes.set_yticks(range(0, 101, 25))
    axes.set_ylabel("top-1, %")
    axes.set_title("a stage's guess, and the network", fontsize=10)
    axes.legend(fontsize=8, loc="upper left", frameon=False)
    axes.tick_params(axis="x", labelsize=8)


def _draw_shares(
    axes: Axes,
    rows: Sequence[Sequence[float | None]],
    stages: Sequence[str],
    names: Sequence[str],
    title: str,
) -> None:
    from matplotlib import colormaps

    shares = np.array([[np.nan if share is None else share for share in row] for row in rows], float)
    axes.imshow(shares, vmin=0, vmax=1, cmap=colormaps["Blues"].with_extremes(bad="0.85"), aspect="auto")
    axes.set_title(title, fontsize=10)
    axes.set_xticks(range(len(stages)), stages, fontsize=8, rotation=30, ha="right", rotation_mode="anchor")
    if names:
        axes.set_yticks(range(len(rows)), names, fontsize=8 if len(rows) <= 30 else 6)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
    else:
        axes.set_ylabel("class (number)")
    if len(rows) > MAX_ANNOTATED:
        return
    for (y, x), share in np.ndenumerate(shares):
        if not np.isnan(share):
            axes.text(
                x, y, f"{share:.0%}", ha="center", va="center", fontsize=8, color="white" if share > 0.55 else "0"
            )


def write_guesses(output: Path, guesses: StageGuesses, clip_names: Sequence[str]) -> dict[str, Path]:
    """Writes what the stages of a network guessed into a folder that is there.

    * ``stage_guesses.json`` (strict JSON), ``stage_guesses.txt`` and ``stage_guesses.png``.
    * ``guesses/STAGE/predictions.npz``: a stage as a run of its own, for ``jaxvid compare``: ``names``, ``labels``,
      ``decoded``, ``class_names``, the guess about every view ``[n V]``, and as ``scores [n K]`` the share of the views
      that were taken for each class.

    Returns:
      The files by their names.
    """
    found = guesses.to_json()
    files = {name: output / name for name in ("stage_guesses.json", "stage_guesses.txt", "stage_guesses.png")}
    write_text(files["stage_guesses.json"], json.dumps(found, indent=2, allow_nan=False) + "\n")
    write_text(files["stage_guesses.txt"], format_all(found) + "\n")
    with replacing(files["stage_guesses.png"]) as file:
        draw_guesses(found).savefig(file, format="png", dpi=150)
    for stage, votes in guesses.votes.items():
        name = f"guesses/{stage}/predictions.npz"
        files[name] = output / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        with replacing(files[name]) as file:
            np.savez_compressed(  # of many classes nearly all have no vote
                file,
                names=text_array(clip_names),
                labels=guesses.labels,
                decoded=guesses.decoded,
                guesses=guesses.views[stage],
                scores=votes,
                class_names=text_array(guesses.class_names),
            )
    return files


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
