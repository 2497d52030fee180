"""Lines of ``bench ops``: complete, with work counted by hand; what cannot run is said and not dropped."""

import json
import time

import jax
import jax.numpy as jnp
import pytest

from jaxvid.benchmarks import op_problems
from jaxvid.benchmarks import ops as bench
from jaxvid.benchmarks.op_shapes import OpCase
from jaxvid.benchmarks.timing import Timing

KEYS = {
    "op", "shape", "dtype", "implementation", "direction", "median_ms", "spread", "bytes", "flops", "fraction_of_peak",
    "ratio_to_reference", "device", "versions", "runs", "warmup", "is_default", "bound", "calls_per_run",
}  # fmt: skip
PEAKS = {"copy_bytes_per_second": 1e9, "matrix_flops_per_second": 1e10}


@pytest.fixture
def clock(monkeypatch):
    """Every measurement takes what the test says, in seconds; nothing is run again and again."""
    seconds = [0.5]

    def measured(function, inputs, runs):
        jax.block_until_ready(function(*inputs))
        return Timing((seconds[0],) * runs, (0.0,) * runs, warmup=1), 4

    monkeypatch.setattr(bench, "_measure", measured)
    return seconds


def lines_of(case, dtype="float32", runs=3):
    return list(bench._bench_case(case, jnp.dtype(dtype), PEAKS, runs))


def first_line(case):
    return next(bench._bench_case(case, jnp.dtype("float32"), PEAKS, 1))


def test_a_real_run_of_one_operator_has_every_figure():
    lines = list(bench.bench_ops(op="temporal_shift", quick=True, runs=3))
    assert [(line["implementation"], line["direction"]) for line in lines] == [
        (name, direction) for direction in ("forward", "forward+backward") for name in ("reference", "default")
    ]
    for line in lines:
        assert json.loads(json.dumps(line, allow_nan=False)) == line
        assert set(line) > KEYS
        assert line["benchmark"] == "ops"
        assert 0 < line["spread"][0] <= line["median_ms"] <= line["spread"][1]
        assert line["fraction_of_peak"] > 0
        assert line["is_default"] == (line["implementation"] == "default")
        share = line["bytes"] / (line["median_ms"] / 1e3) / line["copy_bytes_per_second"]
        assert (line["bound"], line["fraction_of_peak"]) == ("bytes", pytest.approx(share))
    assert [line["ratio_to_reference"] for line in lines[::2]] == [1.0, 1.0]
    assert lines[1]["ratio_to_reference"] == pytest.approx(lines[1]["median_ms"] / lines[0]["median_ms"])


def test_bytes_and_flops_of_a_convolution_by_hand(clock):
    options = {"kernel": (3, 1, 1, 4, 5), "strides": (2, 1, 1), "padding": (1, 0, 0), "groups": 1}
    lines = lines_of(OpCase("conv3d", (2, 4, 3, 3, 4), options))
    x, kernel, y = 2 * 4 * 3 * 3 * 4, 3 * 4 * 5, 2 * 2 * 3 * 3 * 5
    macs = y * 3 * 4
    forward = [line for line in lines if line["direction"] == "forward"]
    backward = [line for line in lines if line["direction"] != "forward"]
    assert {line["bytes"] for line in forward} == {4 * (x + kernel + y)}
    assert {line["bytes"] for line in backward} == {2 * 4 * (x + kernel + y)}
    assert {line["flops"] for line in forward} == {2 * macs}
    assert {line["flops"] for line in backward} == {6 * macs}
    assert forward[0]["implementation"] == "direct"
    assert {line["is_default"] for line in forward} == {True, False}
    assert lines[0]["fraction_of_peak"] == pytest.approx(max(4 * (x + kernel + y) / 1e9, 2 * macs / 1e10) / 0.5)
    assert lines_of(OpCase("conv3d", (2, 4, 3, 3, 4), options), "bfloat16")[0]["bytes"] == 2 * (x + kernel + y)


def test_a_stem_has_no_gradient_of_the_video(clock):
    options = {"kernel": (1, 1, 1, 3, 5), "strides": (1, 1, 1), "padding": (0, 0, 0), "groups": 1}
    forward, backward = (line for line in lines_of(OpCase("conv3d", (1, 2, 2, 2, 3), options)) if line["is_default"])
    x, kernel, y = 24, 15, 40
    assert (forward["bytes"], backward["bytes"]) == (4 * (x + kernel + y), 4 * (x + 2 * kernel + 2 * y))
    assert (forward["flops"], backward["flops"]) == (2 * 3 * y, 4 * 3 * y)


def test_the_work_of_the_others_by_hand(clock):
    window = {"window": (1, 2, 2), "strides": (1, 2, 2), "padding": (0, 0, 0)}
    for op, per_tap in (("max_pool3d", 1), ("avg_pool3d", 1), ("stochastic_pool3d", 4)):
        line = first_line(OpCase(op, (1, 2, 4, 4, 3), window))
        assert (line["bytes"], line["flops"]) == (4 * (96 + 24), per_tap * 96)
    line = first_line(OpCase("recur", (2, 3, 5), {"cell": "gru", "num_layers": 2}))
    assert line["flops"] == 2 * (2 * 3) * 2 * (5 * 15 + 5 * 15)
    assert line["bytes"] == 4 * (30 + 2 * (2 * 75 + 2 * 15) + 30)
    lines = lines_of(OpCase("resize_trilinear", (1, 1, 2, 2, 3), {"size": (1, 4, 4)}))
    assert (lines[0]["bytes"], lines[0]["flops"], lines[-1]["bytes"]) == (4 * 60, 6 * 48, 8 * 60)


def test_a_decision_has_no_backward_pass(clock):
    (line,) = lines_of(OpCase("cyclic_consistency", (2, 4, 5), {}))
    assert (line["direction"], line["bytes"]) == ("forward", 4 * 80 + 2)


@pytest.mark.parametrize("error", [ValueError, NotImplementedError, RuntimeError])
def test_what_is_refused_is_a_line_that_says_why(monkeypatch, clock, error):
    def refuse(x):
        raise error("not on this machine.\nmore")

    def problem(case):
        return op_problems.Problem(
            (case.shape,), {"fast": refuse, "plain": lambda x: x + 1}, "plain", lambda x: x + 1, 1, 1
        )

    monkeypatch.setattr(bench, "PROBLEMS", {"made_up": problem})
    lines = lines_of(OpCase("made_up", (2, 3), {}))
    assert [line["implementation"] for line in lines] == ["plain", "fast"] * 2
    assert lines[1]["median_ms"] is None
    assert lines[1]["skipped"] == f"{error.__name__}: not on this machine."
    assert "skipped" not in lines[0]
    json.dumps(lines, allow_nan=False)


def test_without_its_reference_an_operator_has_no_ratio(monkeypatch, clock):
    def refuse(x):
        raise ValueError("too large.")

    problem = op_problems.Problem(((2, 3),), {"fast": jnp.exp, "plain": refuse}, "fast", jnp.exp, 1, 1)
    monkeypatch.setattr(bench, "PROBLEMS", {"made_up": lambda case: problem})
    assert (
        bench._figures(Timing((0.5,), (0.5,), 1), {"bytes": 1, "flops": 1}, PEAKS, None)["ratio_to_reference"] is None
    )
    assert [line["median_ms"] for line in lines_of(OpCase("made_up", (2, 3), {}))] == [500, None] * 2


def test_short_calls_are_measured_together_and_long_ones_less_often(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    calls = []

    def call(seconds):
        def run():
            calls.append(seconds)
            now[0] += seconds
            return jnp.zeros(())

        return run

    timing, number = bench._measure(call(0.004), (), runs=5)
    assert (number, len(timing.seconds)) == (5, 5)
    assert timing.median == pytest.approx(0.004)
    timing, number = bench._measure(call(2.0), (), runs=5)
    assert (number, len(timing.seconds), timing.median) == (1, 3, 2.0)
    assert timing.warmup == 2  # before the runs: the first call and the one that was timed to choose their length
    calls.clear()
    timing, number = bench._measure(call(4.0), (), runs=5)
    assert (number, timing.seconds, timing.warmup, len(calls)) == (1, (4.0,), 1, 2)
    assert bench._measure(call(1e-7), (), runs=1)[1] == bench.MAX_CALLS


def test_a_cpu_takes_a_part_of_a_large_batch(monkeypatch):
    large = OpCase("softpool", (8, 16, 56, 56, 64), {})
    assert bench._cut(large).shape == (1, 16, 56, 56, 64)
    assert bench._cut(OpCase("temporal_shift", (8, 8, 28, 28, 128), {})).shape == (5, 8, 28, 28, 128)
    small = OpCase("recur", (8, 16, 256), {})
    assert bench._cut(small) is small
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert bench._cut(large) is large


def test_peaks_are_positive_and_dtypes_are_chosen_by_name():
    peaks = bench.measure_peaks(jnp.dtype("float32"), quick=True, runs=1)
    assert set(peaks) == set(PEAKS)
    assert min(peaks.values()) > 1e6
    with pytest.raises(ValueError, match="did you mean 'bfloat16'"):
        next(bench.bench_ops(quick=True, dtypes=("bfloat",)))
    with pytest.raises(ValueError, match="runs must be >= 1"):
        next(bench.bench_ops(quick=True, runs=0))


@pytest.mark.slow
def test_every_operator_on_its_small_shape():
    lines = list(bench.bench_ops(quick=True, runs=1, dtypes=("float32", "bfloat16")))
    assert {line["op"] for line in lines} == set(op_problems.PROBLEMS)
    assert {line["dtype"] for line in lines} == {"float32", "bfloat16"}
    measured = [line for line in lines if line["median_ms"] is not None]
    assert all(line["median_ms"] > 0 for line in measured)
    for op in op_problems.PROBLEMS:
        assert any(line["is_default"] for line in measured if line["op"] == op)
