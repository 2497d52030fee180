"""The table of ``jaxvid models --cost``: its forms, and what is not compiled twice."""

import json

import pytest

from jaxvid.benchmarks import cost_table
from jaxvid.benchmarks.step_cost import question
from jaxvid.benchmarks.timing import describe_machine


def line(name, **more):
    return {
        "benchmark": "step_cost", **question(name), "params": 2**18, "parameter_bytes": 2**20,
        "state_bytes": 2**21 + 2**19, "argument_bytes": 5, "output_bytes": 4, "alias_bytes": 3,
        "temp_bytes": 3 * 2**29, "peak_bytes": 7 * 2**28, "code_bytes": None, "instructions": 12345, "flops": 6,
        "bytes_accessed": 7, "trace_cpu_seconds": 1.25, "compile_cpu_seconds": 10.0, **describe_machine(),
    } | more  # fmt: skip


@pytest.fixture
def compiled(monkeypatch):
    """The names that were compiled; each line costs nothing."""
    names = []

    def step_cost(name, **options):
        names.append(name)
        return line(name, **options)

    monkeypatch.setattr(cost_table, "step_cost", step_cost)
    return names


def test_markdown_and_text_show_the_same_row():
    lines = [line("i3d"), line("x3d_s", compile_cpu_seconds=None)]
    *_, head, rule, first, second = "\n".join(cost_table.to_markdown(lines)).splitlines()
    assert head.startswith("| name | clip | parameters (MiB) | state (MiB) | temporary (GiB) | peak (GiB) |")
    assert first == "| i3d | 64x224x224 | 1.0 | 2.5 | 1.50 | 1.75 | 12,345 | 1.2 | 10.0 |"
    assert second.endswith("| 1.2 | cached |")
    assert {row.count("|") for row in (head, rule, first, second)} == {10}
    *_, text, last = "\n".join(cost_table.to_text(lines)).splitlines()
    assert text.split() == first.replace("|", " ").split()
    assert last.split() == second.replace("|", " ").split()


def test_the_machine_and_the_question_stand_above_the_table():
    text = "\n".join(cost_table.to_markdown([line("i3d", remat=True, batch_size=3, cpu="A processor", device="cpu")]))
    assert "3 clips, float32, activations recomputed in the backward pass, convolutions: auto, 400 classes" in text
    assert "one device: A processor" in text
    assert "`i3d` 64x224x224 (Carreira & Zisserman 2017, table 1)" in text


def test_no_line_makes_no_table():
    assert list(cost_table.to_markdown([])) == list(cost_table.to_text([])) == []


def test_lines_come_one_by_one_in_the_order_of_the_names(compiled):
    seen = []
    lines = cost_table.cost_lines(["x3d_s", "i3d"], progress=lambda done, total: seen.append((done, total)))
    assert next(lines)["model"] == "x3d_s"
    assert compiled == ["x3d_s"]
    assert [row["model"] for row in lines] == ["i3d"]
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_a_stopped_run_goes_on_where_it_was(compiled, tmp_path):
    path = tmp_path / "cost.jsonl"
    first = list(cost_table.cost_lines(["x3d_s"], resume=path))
    assert cost_table.read_lines(path) == first
    rows = list(cost_table.cost_lines(["i3d", "x3d_s"], resume=path))
    assert compiled == ["x3d_s", "i3d"]
    assert [row["model"] for row in rows] == ["i3d", "x3d_s"]
    assert rows[1] == first[0]


@pytest.mark.parametrize(
    "other", [{"batch_size": 4}, {"dtype": "bfloat16"}, {"remat": True}, {"conv": "direct"}, {"optimize": False}]
)
def test_another_question_is_compiled_anew(other, compiled, tmp_path):
    path = tmp_path / "cost.jsonl"
    list(cost_table.cost_lines(["x3d_s"], resume=path))
    list(cost_table.cost_lines(["x3d_s"], resume=path, **other))
    assert compiled == ["x3d_s", "x3d_s"]


def test_another_version_is_compiled_anew(compiled, tmp_path):
    path = tmp_path / "cost.jsonl"
    path.write_text(json.dumps(line("x3d_s", versions={"jax": "0.1"})) + "\n")
    list(cost_table.cost_lines(["x3d_s"], resume=path))
    assert compiled == ["x3d_s"]


@pytest.mark.parametrize("text", ["nothing", "[]", '{"benchmark": "ops"}'])
def test_a_file_of_something_else_is_refused(text, compiled, tmp_path):
    path = tmp_path / "cost.jsonl"
    path.write_text(json.dumps(line("i3d")) + f"\n{text}\n")
    with pytest.raises(ValueError, match=r"cost.jsonl:2 must be a line of 'jaxvid models --cost --json'"):
        list(cost_table.cost_lines(["i3d"], resume=path))


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [(["i3d", "i4d"], {}, "did you mean 'i3d'"), (["i3d"], {"dtype": "int8"}, "dtype must be one of")],
)
def test_a_mistake_is_found_before_anything_is_compiled(names, options, sentence, compiled):
    with pytest.raises(ValueError, match=sentence):
        list(cost_table.cost_lines(names, **options))
    assert compiled == []
