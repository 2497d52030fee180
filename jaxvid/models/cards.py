"""Model cards: what each network costs, and what its paper printed.

``jaxvid models`` prints them; the README holds them between :data:`BEGIN` and :data:`END`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jaxvid import models
from jaxvid.models.cost import count_macs, count_parameters
from jaxvid.models.figures import CLIP, CLIPS, COUNTED, PRINTED, Printed
from jaxvid.types import Size3

NUM_CLASSES = 400
"""Kinetics-400's, in every published count."""

BEGIN = "<!-- models:begin -->"
END = "<!-- models:end -->"


@dataclass(frozen=True)
class Card:
    """One row of the table.

    Attributes:
      name: of the network in :data:`jaxvid.models.MODELS`.
      params: trainable parameters, exact.
      macs: multiply-adds of one clip in evaluation, exact.
      clip: ``[T, H, W]``.
      num_classes: outputs.
      paper_params: parameters as printed, in millions, or ``None``.
      paper_gflops: operations as printed, in units of 10^9, whatever the paper counted, or ``None``.
      source: where it is printed; where nothing is, where the network is defined.
      remark: where and why the printed figures differ.
    """

    name: str
    params: int
    macs: int
    clip: tuple[int, ...]
    num_classes: int
    paper_params: str | None
    paper_gflops: str | None
    source: str
    remark: str


def card(name: str) -> Card:
    """The card of one network.

    The costs are read from :data:`jaxvid.models.figures.COUNTED`, which a test compares with fresh counts; a network
    that is not in there is counted now, which takes about a second.

    Args:
      name: a name of :data:`jaxvid.models.MODELS`.

    >>> card("r3d_50").params
    36724688
    """
    params, macs = COUNTED[name] if name in COUNTED else count(name)
    printed = PRINTED.get(name, Printed())
    return Card(
        name=name,
        params=params,
        macs=macs,
        clip=clip_of(name),
        num_classes=NUM_CLASSES,
        paper_params=printed.params,
        paper_gflops=printed.gflops,
        source=printed.source or models.SOURCES[name],
        remark=printed.remark,
    )


def clip_of(name: str) -> Size3:
    """``(T, H, W)`` of the clip whose multiply-adds are on a network's card.

    >>> clip_of("r3d_18"), clip_of("srtg_x3d_s")
    ((16, 224, 224), (13, 160, 160))
    """
    return CLIPS.get(name.removeprefix("srtg_"), CLIP)


def count(name: str) -> tuple[int, int]:
    """Parameters and multiply-adds of one network, counted from its definition at its :func:`clip_of`."""
    model = models.build(name, NUM_CLASSES)
    clip = clip_of(name)
    return count_parameters(model, clip), count_macs(model, clip)


def table(names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """The cards as dicts, in the order of :data:`jaxvid.models.MODELS` or of ``names``."""
    cards = map(card, models.MODELS if names is None else names)
    return [asdict(row) | {"clip": list(row.clip)} for row in cards]


def to_json(names: Iterable[str] | None = None) -> str:
    """The table as a JSON list of objects with at least ``name``, ``params``, ``macs``, ``clip``."""
    return json.dumps(table(names), indent=1)


def to_markdown(names: Iterable[str] | None = None) -> str:
    """The table as Markdown, with a sentence that says what the numbers are."""
    rows = [_cells(row) for row in table(names)]
    lines = [_caption(), "", _line(_COLUMNS), _line(["---", "---:", "---:", "---", "---:", "---:", "---", "---"])]
    return "\n".join(lines + [_line(row) for row in rows])


def to_text(names: Iterable[str] | None = None) -> str:
    """The table for a terminal; the remarks stand below it."""
    rows = table(names)
    cells = [list(_COLUMNS[:-1])] + [_cells(row)[:-1] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    right = (1, 2, 4, 5)
    lines = [
        "  ".join(cell.rjust(width) if i in right else cell.ljust(width)
                  for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in cells
    ]  # fmt: skip
    remarks = [f"{row['name']}: {row['remark']}" for row in rows if row["remark"]]
    return "\n".join([_caption(), "", *lines, "", *remarks]).rstrip()


def put_into(text: str) -> str:
    """A document with the table between its markers.

    Args:
      text: a document that holds :data:`BEGIN` and :data:`END` once each.

    Raises:
      ValueError: a marker is absent.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"the document must hold the markers {BEGIN} and {END}, received one without them.")
    before, rest = text.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{to_markdown()}\n{END}{rest.split(END, 1)[1]}"


_COLUMNS = (
    "name",
    "parameters",
    "multiply-adds (G)",
    "clip",
    "paper: parameters (M)",
    "paper: GFLOPs",
    "source",
    "remark",
)


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["name"],
        f"{row['params']:,}",
        f"{row['macs'] / 1e9:.3f}",
        "x".join(map(str, row["clip"])),
        row["paper_params"] or "",
        row["paper_gflops"] or "",
        row["source"],
        row["remark"],
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _caption() -> str:
    return (
        f"{NUM_CLASSES} classes; multiply-adds of convolutions, matrix products and recurrences for one clip (frames, "
        "height, width), one multiplication with its addition counted once."
    )
