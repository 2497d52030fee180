"""The picture of the operators: a bar for what was measured, its length the fraction of the peak."""

import json

import pytest

from jaxvid.benchmarks.plot import draw_ops, read_lines


def line(op="conv3d", implementation="direct", direction="forward", share=0.5, **more):
    options = {"kernel": [3, 3, 3, 4, 4], "strides": [1, 2, 2]} if op == "conv3d" else {"window": [2, 2, 2]}
    return {
        "benchmark": "ops", "op": op, "shape": [2, 4, 4, 4, 4], "options": options, "dtype": "float32",
        "implementation": implementation, "direction": direction, "median_ms": 1.0, "fraction_of_peak": share,
        "is_default": implementation == "folded", "cpu": "A processor", "device": "cpu", "versions": {"jax": "0.10.2"},
    } | more  # fmt: skip


def bars(axis):
    return sorted(round(patch.get_width(), 6) for patch in axis.patches if patch.get_width())


def test_bars_are_the_fractions_and_rows_are_the_cases():
    lines = [
        line(share=0.25),
        line(implementation="folded", share=0.75),
        line(direction="forward+backward", share=0.125),
        line(op="max_pool3d", implementation="default", share=9.0),
        line(op="max_pool3d", implementation="pallas", median_ms=None, fraction_of_peak=None, skipped="no."),
    ]
    figure = draw_ops(lines)
    forward, backward = figure.axes
    assert bars(forward) == [0.25, 0.75, 1.5]
    assert bars(backward) == [0.125]
    assert "9" in [text.get_text() for text in forward.texts]
    labels = [label.get_text() for label in forward.get_yticklabels()]
    assert labels == ["conv3d 2x4x4x4x4 3x3x3x4x4 /1,2,2 float32", "max_pool3d 2x4x4x4x4 2x2x2 float32"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["direct", "folded", "default"]
    assert figure.get_suptitle() == "A processor, jax 0.10.2"
    places = [patch.get_y() for patch in forward.patches if patch.get_width()]
    assert len(set(places)) == 3


def test_an_accelerator_is_named_by_itself():
    assert draw_ops([line(device="NVIDIA H100")]).get_suptitle() == "NVIDIA H100, jax 0.10.2"


def test_lines_of_other_benchmarks_are_passed_over_and_damage_is_named(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join([json.dumps(line()), "", json.dumps({"benchmark": "step"}), "3"]))
    assert read_lines(path) == [line()]
    path.write_text('{"benchmark": "ops"\n')
    with pytest.raises(ValueError, match=r"lines.jsonl:1: must be a JSON object, received '\{\"benchmark\"'?"):
        read_lines(path)


@pytest.mark.parametrize("lines", [[], [{"benchmark": "step"}], [line(median_ms=None)]])
def test_nothing_measured_is_refused(lines):
    with pytest.raises(ValueError, match="at least one measured line"):
        draw_ops(lines)
