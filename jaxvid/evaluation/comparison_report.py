"""A comparison of two runs as text, as JSON and as a picture of the classes that gain and lose most."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvid.evaluation.comparison import ALPHA, POWER, Comparison
from jaxvid.evaluation.confusion import writable, writable_names
from jaxvid.evaluation.stats import FEW
from jaxvid.evaluation.text import columns, p_text, printable
from jaxvid.files import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LISTED = 20
"""Up to this many classes the text lists all of them; of more, half as many gains and half as many losses."""
MAX_BARS = 12
"""So many gains and so many losses are drawn at most."""

_GAIN, _LOSS = ("#1f5fa8", "#a9c6e8"), ("#c2571a", "#f0c3a0")  # significant and not; apart for the colour-blind too


def format_comparison(found: Comparison) -> str:
    """The contingency table, the difference with its tests, what that means in plain words, and the classes."""
    shares = f"A {found.accuracy_a:.2%}, B {found.accuracy_b:.2%}, A - B {found.difference:+.2%}"
    low, high = found.interval
    test = found.test
    few = f"; chi2 is a poor approximation below {FEW} clips" if test.b + test.c < FEW else ""
    return "\n".join(
        [
            f"A: {printable(found.run_a)}",
            f"B: {printable(found.run_b)}",
            "",
            *_contingency(found),
            "",
            f"right: {shares} ({1 - ALPHA:.0%} interval {low:+.2%} to {high:+.2%}, bootstrap over the clips)",
            f"McNemar: chi2 = {test.chi2:.3f} (Edwards), p = {p_text(test.p_value)}; "
            f"exact p = {p_text(test.exact_p_value)}{few}",
            "",
            *_in_words(found),
            *_contradiction(found),
            "",
            *_class_table(found.classes),
        ]
    )


def _contradiction(found: Comparison) -> list[str]:
    """Near the level the interval of the bootstrap and the exact test need not agree."""
    low, high = found.interval
    agree = found.significant != (low <= 0 <= high) or found.test.b == found.test.c
    return [] if agree else ["The interval says otherwise: near the level it may, and then the exact test decides."]


def _contingency(found: Comparison) -> list[str]:
    test = found.test
    rows = [
        ["", "B right", "B wrong", "total"],
        ["A right", found.both, test.b, found.both + test.b],
        ["A wrong", test.c, found.neither, test.c + found.neither],
        ["total", found.both + test.c, test.b + found.neither, found.num_clips],
    ]
    missing = f"{_clips(found.num_missing)} could not be decoded: wrong in both runs."
    return [*columns([[str(cell) for cell in row] for row in rows]), *[missing] * bool(found.num_missing)]


def _in_words(found: Comparison) -> list[str]:
    """What the numbers say, of these two networks; other seeds would make other networks."""
    test, better, worse = found.test, *(("A", "B") if found.difference > 0 else ("B", "A"))
    only, other = max(test.b, test.c), min(test.b, test.c)
    if test.b == test.c:
        if not test.b:
            return ["Both networks are right on the same clips: nothing tells them apart."]
        return [f"Each network is right on {_clips(test.b)} where the other is wrong: nothing says that one is better."]
    more = "more" if found.significant else "not more"
    verdict = (
        f"{better} alone is right on {_clips(only)}, {worse} alone on {other:,}: {more} than chance explains at the "
        f"{ALPHA:.0%} level (exact p = {p_text(test.exact_p_value)})."
    )
    needed = (
        f"Were these the true rates, about {_clips(found.needed or 0)} would give a chance of {POWER:.0%} to call the "
        f"difference significant; here are {found.num_clips:,}."
    )
    return [verdict, needed]


def _class_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    gains, losses = extremes(rows, len(rows))
    level = [row for row in rows if not row["difference"]]
    shown, left = [*gains, *level, *losses], 0
    if len(rows) > MAX_LISTED:
        gains, losses = gains[: MAX_LISTED // 2], losses[-(MAX_LISTED // 2) :]
        shown, left = [*gains, *losses], len(rows) - len(gains) - len(losses)
    lines = [["class", "clips", "A", "B", "A - B", "only A", "only B", "exact p", "Holm p"]]
    for row in shown:
        shares = ["-" if row[key] is None else f"{row[key]:.1%}" for key in ("accuracy_a", "accuracy_b")]
        difference = "-" if row["difference"] is None else f"{row['difference']:+.1%}"
        tests = ["-" if row[key] is None else p_text(row[key]) for key in ("exact_p", "holm_p")]
        counts = [str(row["b"]), str(row["c"])]
        lines.append([printable(row["class"]), str(row["num_clips"]), *shares, difference, *counts, *tests])
    told = [f"{left} other classes, with smaller differences or none, are in --json and in compare.json."]
    return [*columns(lines), *told * bool(left)]


def extremes(rows: Sequence[Mapping[str, Any]], limit: int) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The classes that gain and those that lose, at most so many of each, from the largest gain to the largest loss."""
    ordered = sorted((row for row in rows if row["difference"]), key=lambda row: -row["difference"])
    gains = [row for row in ordered if row["difference"] > 0]
    losses = ordered[len(gains) :]
    return gains[:limit], losses[max(len(losses) - limit, 0) :]


def draw_gains(found: Comparison) -> Figure:
    """Draws the classes in which A gains and loses most against B (as figure 6.5 of Stergiou's thesis).

    One bar for each class, its length the difference of the accuracies; dark where the class's exact McNemar test holds
    after Holm's correction. Behind a bar stands on how many clips A alone and B alone are right. Names are shown as in
    :func:`~jaxvid.evaluation.confusion.draw_confusion`.

    Returns:
      A figure that belongs to no window; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    gains, losses = extremes(found.classes, MAX_BARS)
    shown = [*gains, *losses]
    figure = Figure(figsize=(9.0, 1.9 + 0.3 * max(len(shown), 2)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("\n".join(_title(found)), parse_math=False, fontsize=10, loc="left")
    axes.set_xlabel("A - B, in percentage points (only A right : only B right, of the class's clips)", fontsize=9)
    if not shown:
        axes.text(0.5, 0.5, "no class differs", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
        return figure
    _draw_bars(axes, shown, found.classes)
    shades = [Patch(facecolor="0.3", label=f"Holm p < {ALPHA}"), Patch(facecolor="0.8", label="may be chance")]
    figure.legend(handles=shades, fontsize=8, ncols=2, loc="outside lower center")
    return figure


def _draw_bars(axes: Axes, shown: Sequence[Mapping[str, Any]], classes: Sequence[Mapping[str, Any]]) -> None:
    lengths = [100 * row["difference"] for row in shown]
    colours = [(_GAIN if row["difference"] > 0 else _LOSS)[row["holm_p"] >= ALPHA] for row in shown]
    axes.barh(range(len(shown)), lengths, color=colours, edgecolor="0.35", linewidth=0.5)
    axes.axvline(0, color="0.2", linewidth=0.8)
    axes.set_ylim(len(shown) - 0.4, -0.6)  # the first at the top
    numbers = {row["class"]: k for k, row in enumerate(classes)}
    names = writable_names([row["class"] for row in classes], [numbers[row["class"]] for row in shown])
    axes.set_yticks(range(len(shown)), names, fontsize=9)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    for place, (row, length) in enumerate(zip(shown, lengths, strict=True)):
        text = f" {length:+.1f} ({row['b']} : {row['c']} of {row['num_clips']}) "
        axes.text(length, place, text, ha="left" if length > 0 else "right", va="center", fontsize=8)
    # Room for the words behind the bars; but no difference is larger than 100.
    width = max(map(abs, lengths))
    axes.set_xlim(-1.7 * width if min(lengths) < 0 else 0, 1.7 * width if max(lengths) > 0 else 0)
    axes.set_xticks([tick for tick in axes.get_xticks() if abs(tick) <= min(100, 1.7 * width)])


def _title(found: Comparison, limit: int = 70) -> list[str]:
    lines = []
    for letter, run, share in (("A", found.run_a, found.accuracy_a), ("B", found.run_b, found.accuracy_b)):
        end = run if len(run) <= limit else f"…{run[1 - limit :]}"  # folders differ at their ends
        lines.append(f"{letter}: {writable(end, 'the run', limit)}, {share:.2%}")
    return [
        *lines,
        f"{found.num_clips} clips, A - B {found.difference:+.2%}, exact p = {p_text(found.test.exact_p_value)}",
    ]


def write_comparison(output: str | os.PathLike[str], found: Comparison) -> dict[str, Path]:
    """Writes ``compare.json`` (strict JSON) and ``compare.png`` into a folder, which is created.

    Each file is complete or absent: it is written beside its place and then moved there.

    Returns:
      The files by their names.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / name for name in ("compare.json", "compare.png")}
    write_text(files["compare.json"], comparison_json(found) + "\n")
    with replacing(files["compare.png"]) as file:
        draw_gains(found).savefig(file, format="png", dpi=150)
    return files


def comparison_json(found: Comparison) -> str:
    """Strict JSON of :meth:`~jaxvid.evaluation.comparison.Comparison.to_json`."""
    return json.dumps(found.to_json(), indent=2, allow_nan=False)


def _clips(number: int) -> str:
    return f"{number:,} clip{'s' * (number != 1)}"
