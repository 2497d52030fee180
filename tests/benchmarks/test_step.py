"""The line of the step benchmark says what was run; the step really trains."""

import json
from types import SimpleNamespace
from typing import ClassVar

import flax.linen as nn
import jax
import pytest

from jaxvid import models
from jaxvid.benchmarks import BENCHMARKS, parse_clip, step
from jaxvid.benchmarks.step import bench_step
from jaxvid.models.class_regularized import ClassRegularized


class Tiny(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, video, train):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(video.mean(axis=(1, 2, 3)))
        return nn.Dense(self.num_classes, name="head")(x)


def test_the_line_of_a_step(monkeypatch):
    built = []

    def build(name, num_classes, **options):
        built.append((name, num_classes, options))
        return Tiny(num_classes)

    monkeypatch.setattr(models, "build", build)
    options = SimpleNamespace(
        runs=3, model="srtg_r3d_18", width=8, clip="2,4,6", batch_size=16, class_regularization=False
    )
    (line,) = BENCHMARKS["step"](options)
    assert built == [("srtg_r3d_18", 10, {"width": 8})]
    json.dumps(line, allow_nan=False)
    assert (line["benchmark"], line["model"], line["clip"], line["batch_size"]) == (
        "step",
        "srtg_r3d_18",
        [2, 4, 6],
        16,
    )
    assert (line["runs"], line["warmup"], line["num_traces"]) == (3, 1, 1)
    assert line["params"] == 3 * 2 + 3 * 10 + 10
    assert line["macs"] == 3 * 10
    assert line["clips_per_second"] == pytest.approx(16 / line["seconds_median"])
    assert line["train_macs_per_second"] == pytest.approx(3 * 30 * line["clips_per_second"])
    assert 0 < line["compile_seconds"] <= line["first_step_seconds"]
    assert line["num_devices"] == 8


def test_the_devices_own_count_of_memory_is_reported(monkeypatch):
    device = SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 123})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert step._peak_bytes() == 123


@pytest.mark.parametrize("text", ["16,64", "16,64,64,3", "16,64,x", "0,64,64", "-1,2,3", ""])
def test_clips_that_are_none(text):
    with pytest.raises(ValueError, match=r"clip must be three numbers T,H,W, each >= 1, received clip="):
        parse_clip(text)


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match="did you mean"):
        next(bench_step(model="srtg_r3d18"))


def test_what_class_regularization_adds(monkeypatch):
    """Two networks in turns, and the shares by hand: of pairs of runs, and of the compiled programs."""
    turns = []

    class Trial:
        compiled: ClassVar = {}
        step = SimpleNamespace(num_traces=1)

        def __init__(self, network, *_):
            self.network = network

        def run(self):
            turns.append(self.network)

    def step_cost(model, *, regularized, **_):
        return {"flops": 100 + regularized, "bytes_accessed": 200 + 4 * regularized, "peak_bytes": 10, "params": 8}

    monkeypatch.setattr(step, "_Trial", Trial)
    monkeypatch.setattr(step, "step_cost", step_cost)
    plain, ours, added = bench_step(model="r3d_18", width=4, clip=(4, 16, 16), runs=2, regularized=True)
    assert [network is turns[0] for network in turns] == [True, False] * 3
    assert isinstance(turns[1], ClassRegularized)
    assert turns[1].network is turns[0]
    assert "class_regularization" not in plain
    assert ours["params"] - plain["params"] == 32 * (4 + 8 + 16 + 32)
    assert ours["macs"] >= plain["macs"] + 10 * 32 * (4 + 8 + 16 + 32)  # mapping the classifier's weights
    json.dumps(added, allow_nan=False)
    shares = [added[f"added_{name}"] for name in ("flops", "bytes_accessed", "peak_bytes", "params")]
    assert shares == pytest.approx([0.01, 0.02, 0.0, 0.0])
    assert (added["benchmark"], added["model"], added["runs"]) == ("class_regularization", "r3d_18", 2)
    low, high = added["added_seconds_quartiles"]
    assert low <= added["added_seconds"] <= high


@pytest.mark.slow
def test_a_real_network():
    (line,) = bench_step(model="r3d_18", width=4, clip=(4, 16, 16), batch_size=8, runs=2)
    assert line["clips_per_second"] > 0
    stem = (4 * 8 * 8) * (3 * 7 * 7 * 3) * 4  # positions, taps, channels
    assert stem < line["macs"] < 2 * stem
