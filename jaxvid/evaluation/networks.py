"""Several networks in one: what each says by itself, and every way of averaging them (U2S, table I)."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvid.evaluation.fusion import fused_scores
from jaxvid.evaluation.metrics import summarize
from jaxvid.evaluation.predict import Predictions, mean_scores
from jaxvid.evaluation.text import columns
from jaxvid.files import write_text

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
      :func:`~jaxvid.evaluation.metrics.summarize` but the loss, which is one of logits. Empty where there are none.
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
    """The rows of :func:`network_fusions` as a table for a terminal, and which of them is the run's own answer."""
    measures = [key for key in rows[0] if key.startswith("top")]
    lines = [["networks", *measures]]
    lines += [[" + ".join(row["networks"]), *(f"{row[key]:7.2%}" for key in measures)] for row in rows]
    inside = "; 'universal' is the network inside of this run" * any(row["networks"] == ["universal"] for row in rows)
    return "\n".join([*columns(lines), f"the run's answer is the last row{inside}"])


def write_fusions(folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Path]:
    """Writes the rows of :func:`network_fusions` as ``fusions.json`` and ``fusions.txt``, and returns the files."""
    texts = {
        "fusions.json": json.dumps(list(rows), indent=2, allow_nan=False) + "\n",
        "fusions.txt": format_networks(rows) + "\n",
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return {name: folder / name for name in texts}
