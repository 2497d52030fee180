"""The table of the operators: rows of formulations, numbers as in the lines, reasons of what was refused."""

import pytest

from jaxvid.benchmarks.table import format_ops


def line(implementation="direct", direction="forward", ms=1.5, **more):
    return {
        "benchmark": "ops", "op": "conv3d", "shape": [2, 4, 4, 4, 4],
        "options": {"kernel": [3, 3, 3, 4, 4], "strides": [1, 2, 2]}, "dtype": "float32",
        "implementation": implementation, "direction": direction, "median_ms": ms, "fraction_of_peak": 0.254,
        "ratio_to_reference": 0.5, "is_default": implementation == "folded", "cpu": "A processor", "device": "cpu",
        "copy_bytes_per_second": 2e10, "matrix_flops_per_second": 1.9e11, "versions": {"jax": "0.10.2"},
    } | more  # fmt: skip


def test_rows_are_formulations_and_columns_are_directions():
    refused = {"median_ms": None, "fraction_of_peak": None, "skipped": "ValueError: no | device."}
    text = format_ops(
        [
            line(),
            line(direction="forward+backward", ms=12.345, ratio_to_reference=None),
            line("folded"),
            line("pallas", **refused),
            {"benchmark": "step"},
            line(op="recur", options={"cell": "gru"}, shape=[8, 8, 64]),
        ]
    ).splitlines()
    assert text[0] == "A processor; jax 0.10.2; copies 20.0 GB/s, matrix products 190 GFLOP/s."
    assert [row for row in text if row.startswith("## ")] == ["## conv3d", "## recur"]
    assert "| *2x4x4x4x4 3x3x3x4x4 /1,2,2 float32* | | | | | | |" in text
    assert "| direct | 1.5 | 0.25 | 0.5 | 12.3 | 0.25 |  |" in text
    assert "| **folded** | 1.5 | 0.25 | 0.5 |  |  |  |" in text
    assert "| pallas | ValueError: no / device. |  |  |  |  |  |" in text
    assert "| *8x8x64 gru float32* | | | | | | |" in text


def test_an_accelerator_is_named_by_itself():
    assert format_ops([line(device="NVIDIA H100")]).startswith("NVIDIA H100; jax 0.10.2")


@pytest.mark.parametrize("lines", [[], [{"benchmark": "step"}], [line(median_ms=None)]])
def test_nothing_measured_is_refused(lines):
    with pytest.raises(ValueError, match="at least one measured line"):
        format_ops(lines)
