"""Several networks in one: what each says by itself, and every way of averaging them (U2S, table I)."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvid.evaluation.files import write_text
from jaxvid.evaluation.fusion import fused_scores
from jaxvid.evaluation.metrics import summarize
from jaxvid.evaluation.predict import Predictions, mean_scores
from jaxvid.evaluation.report import write_report
from jaxvid.evaluation.text import columns

_ENDING = "/logits"


def network_predictions(predictions: Predictions) -> dict[str, Predictions]:
    """What each of several networks says by itself, by its name; empty where there is one network only.

    Args:
      predictions: with side outputs ``.../NAME/logits``.
    """
    found = {}
    for path, logits in predictions.side.items():
        if path.endswith(_ENDING):
            name = path.removesuffix(_ENDING).rsplit("/", 1)[-1]
            scores = mean_scores(logits) * predictions.decoded[:, None]
            found[name] = dataclasses.replace(predictions, logits=logits, scores=scores, side={})
    return dict(sorted(found.items(), reverse=True))  # U2S: universal, specific, mask


def network_fusions(networks: Mapping[str, Predictions], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Every network and every mean of several networks' scores.

    Args:
      networks: from :func:`network_predictions`.
      class_names: the ``K`` names.

    Returns:
      For each set of networks, the single ones first: ``networks``, their names, and the metrics of
      :func:`~jaxvid.evaluation.metrics.summarize` but the loss, which is one of logits.
    """
    rows = []
    for size in range(1, len(networks) + 1):
        for names in itertools.combinations(networks, size):
            parts = [networks[name] for name in names]
            scores = fused_scores([part.scores for part in parts], [1.0] * size)
            metrics = summarize(dataclasses.replace(parts[0], scores=scores), class_names)
            rows.append({"networks": list(names), **{k: v for k, v in metrics.items() if k != "loss"}})
    return rows


def format_networks(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of :func:`network_fusions` as a table for a terminal."""
    measures = [key for key in rows[0] if key.startswith("top")]
    lines = [["networks", *measures]]
    lines += [[" + ".join(row["networks"]), *(f"{row[key]:7.2%}" for key in measures)] for row in rows]
    return "\n".join(columns(lines))


def write_networks(
    output: str | os.PathLike[str],
    predictions: Predictions,
    class_names: Sequence[str],
    *,
    clip_names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Writes ``fusions.json`` and ``fusions.txt``, and a report of each network in ``networks/NAME``.

    Args:
      output: the folder of the evaluation.
      predictions: see :func:`network_predictions`; without several networks nothing is written.
      class_names: the ``K`` names.
      clip_names: see :func:`~jaxvid.evaluation.report.write_report`.

    Returns:
      The rows of :func:`network_fusions`.
    """
    networks = network_predictions(predictions)
    if not networks:
        return []
    folder = Path(output)
    for name, part in networks.items():
        write_report(folder / "networks" / name, part, summarize(part, class_names), class_names, clip_names=clip_names)
    rows = network_fusions(networks, class_names)
    write_text(folder / "fusions.json", json.dumps(rows, indent=2, allow_nan=False) + "\n")
    write_text(folder / "fusions.txt", format_networks(rows) + "\n")
    return rows
