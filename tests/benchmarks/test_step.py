"""The line of the step benchmark says what was run; the step really trains."""

import json
from types import SimpleNamespace

import flax.linen as nn
import jax
import pytest

from jaxvid import models
from jaxvid.benchmarks import BENCHMARKS, parse_clip
from jaxvid.benchmarks.step import bench_step


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
    options = SimpleNamespace(runs=3, model="srtg_r3d_18", width=8, clip="2,4,6", batch_size=16)
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
    from jaxvid.benchmarks import step

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


@pytest.mark.slow
def test_a_real_network():
    (line,) = bench_step(model="r3d_18", width=4, clip=(4, 16, 16), batch_size=8, runs=2)
    assert line["clips_per_second"] > 0
    stem = (4 * 8 * 8) * (3 * 7 * 7 * 3) * 4  # positions, taps, channels
    assert stem < line["macs"] < 2 * stem
