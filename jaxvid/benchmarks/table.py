"""The table of ``jaxvid bench ops`` in Markdown: what each formulation takes, and which one is the default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxvid.benchmarks.plot import DIRECTIONS, case_name, device_name, measured_lines

_HEAD = "| formulation | forward ms | of the peak | to plain | with gradients ms | of the peak | to plain |"
_RULE = "|---|---:|---:|---:|---:|---:|---:|"


def format_ops(lines: Iterable[Mapping[str, Any]]) -> str:
    """One table for each operator; a row for each shape's formulations, the default one in bold.

    ``of the peak`` is ``fraction_of_peak``, ``to plain`` the time over that of the plain formula. A formulation that
    the machine refused has its reason in its row.

    Args:
      lines: as :func:`jaxvid.benchmarks.ops.bench_ops` yields them.

    Returns:
      Markdown that names the machine and the versions.

    Raises:
      ValueError: no line of ``bench ops`` that was measured.
    """
    lines = [line for line in lines if line.get("benchmark") == "ops"]
    text = [_machine(measured_lines(lines, "table")[0]), ""]
    for op in dict.fromkeys(line["op"] for line in lines):
        text += [f"## {op}", "", _HEAD, _RULE]
        rows: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
        for line in lines:
            if line["op"] == op:
                rows.setdefault((case_name(line), line["implementation"]), {})[line["direction"]] = line
        last = None
        for (case, name), found in rows.items():
            if case != last:
                text.append(f"| *{case.removeprefix(op).strip()}* | | | | | | |")
                last = case
            text.append(_row(name, found))
        text.append("")
    return "\n".join(text)


def _machine(line: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
    return (
        f"{device_name(line)}; {versions}; copies {line['copy_bytes_per_second'] / 1e9:.1f} GB/s, "
        f"matrix products {line['matrix_flops_per_second'] / 1e9:.0f} GFLOP/s."
    )


def _row(name: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    cells = []
    for direction in DIRECTIONS:
        line = found.get(direction)
        if line is None:
            cells += ["", "", ""]
        elif line["median_ms"] is None:
            reason = line["skipped"].replace("|", "/")
            cells += ["" if reason in cells else reason, "", ""]
        else:
            ratio = line["ratio_to_reference"]
            ms = line["median_ms"]
            cells += [f"{ms:.0f}" if ms >= 1000 else f"{ms:.3g}", f"{line['fraction_of_peak']:.2g}"]
            cells += ["" if ratio is None else f"{ratio:.2g}"]
    default = any(line.get("is_default") for line in found.values())
    return f"| {f'**{name}**' if default else name} | " + " | ".join(cells) + " |"
