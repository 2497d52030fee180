"""The picture of ``jaxvid bench ops``: what share of the machine's peak every formulation reaches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIRECTIONS = ("forward", "forward+backward")


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The lines of ``jaxvid bench ops`` in a file; those of other benchmarks are passed over.

    Raises:
      ValueError: a line is not a JSON object.
    """
    found = []
    for number, text in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: must be a JSON object, received {text[:60]!r}.") from error
        if isinstance(line, dict) and line.get("benchmark") == "ops":
            found.append(line)
    return found


def draw_ops(lines: Iterable[Mapping[str, Any]]) -> Figure:
    """Draws the fraction of the peak as bars: a row per operator and shape, a colour per implementation.

    The outlined bar is what the operator does by default; a formulation that was skipped has no bar. A bar beyond 1.5
    is cut there and its value written.

    Args:
      lines: as :func:`jaxvid.benchmarks.ops.bench_ops` yields them.

    Returns:
      A figure that belongs to no window, forward on the left and forward with backward on the right.

    Raises:
      ValueError: no line of ``bench ops`` that was measured.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    measured = measured_lines(lines, "picture")
    rows = list(dict.fromkeys(map(case_name, measured)))
    names = list(dict.fromkeys(line["implementation"] for line in measured))
    colours = {name: colormaps["tab10"](k % 10) for k, name in enumerate(names)}
    slots = {row: [n for n in names if any(case_name(v) == row and v["implementation"] == n for v in measured)]
             for row in rows}  # fmt: skip
    figure = Figure(figsize=(13, 1.6 + 0.17 * sum(len(slots[row]) + 0.8 for row in rows)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    places, top = {}, 0.0
    for row in rows:
        for k, name in enumerate(slots[row]):
            places[row, name] = top + k
        top += len(slots[row]) + 0.8
    for axis, direction in zip(axes, DIRECTIONS, strict=True):
        for line in (line for line in measured if line["direction"] == direction):
            name, share = line["implementation"], line["fraction_of_peak"]
            place = places[case_name(line), name]
            axis.barh(place, min(share, 1.5), 0.9, color=colours[name],
                      edgecolor="black" if line["is_default"] else "none", linewidth=1)  # fmt: skip
            axis.text(min(share, 1.5) + 0.01, place, f"{share:.2g}", va="center", fontsize=6)
        axis.axvline(1, color="0.5", linewidth=0.8, linestyle=":")
        axis.set_xlim(0, 1.65)
        axis.set_xlabel("fraction of the peak (copy bandwidth or matrix product)")
        axis.set_title(direction)
    centres = [sum(places[row, name] for name in slots[row]) / len(slots[row]) for row in rows]
    axes[0].set_yticks(centres, rows, fontsize=7)
    axes[0].set_ylim(top, -1)
    handles = [axes[1].barh(0, 0, color=colours[name]) for name in names]
    figure.legend(
        handles, names, loc="outside lower right", ncols=min(5, len(names)), frameon=False
    )  # the title is above
    first = measured[0]
    figure.suptitle(f"{device_name(first)}, jax {first['versions']['jax']}", x=0.02, ha="left")
    return figure


def measured_lines(lines: Iterable[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
    """The lines of ``bench ops`` with a time; an error that names what they are for where there is none."""
    measured = [line for line in lines if line.get("benchmark") == "ops" and line["median_ms"] is not None]
    if not measured:
        raise ValueError(f"the {what} must have at least one measured line of 'jaxvid bench ops', received 0.")
    return measured


def device_name(line: Mapping[str, Any]) -> str:
    """The accelerator that a line was measured on, or the processor where there is none."""
    device = line.get("device", "")
    return line["cpu"] if device in ("", "cpu") else device


def case_name(line: Mapping[str, Any]) -> str:
    """The operator, its input, and the options that tell its cases apart, of one line."""
    options = line["options"]
    words = [line["op"], "x".join(map(str, line["shape"]))]
    words += ["x".join(map(str, options[name])) for name in ("kernel", "window", "size") if name in options]
    strides = options.get("strides") or ()
    words += [f"/{','.join(map(str, strides))}"] if set(strides) - {1} else []
    words += [str(options[name]) for name in ("cell", "select") if name in options]
    return " ".join([*words, line["dtype"]])
