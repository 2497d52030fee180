"""The lines of the motion benchmark: whose runs they are, what they sum up, and that nothing is trained twice."""

import json
from types import SimpleNamespace

import pytest

from jaxvid.benchmarks import BENCHMARKS, motion
from jaxvid.benchmarks.motion import bench_motion
from jaxvid.data.datasets.motion import make_motion
from jaxvid.train.writers import read_jsonl

RECIPE = """
from jaxvid.config import base


def get_config(model):
    config = base()
    config.model.name = model
    config.model.width = 2
    config.data.num_frames = 4
    config.data.short_side = (20, 20)
    config.data.crop_size = config.eval.crop_size = 16
    config.eval.short_side = 20
    config.train.batch_size = 12
    config.train.num_epochs = 1.0
    config.train.mesh = (("data", 1),)
    config.train.tensorboard = False
    return config
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return str(path)


class Stand:
    """In the place of training and evaluation: remembers what was asked for, and scores by model, seed and order."""

    def __init__(self, monkeypatch, *, finished=True):
        self.trained, self.evaluated = [], []
        monkeypatch.setattr(motion, "train", self.train)
        monkeypatch.setattr(motion, "evaluate_run", self.evaluate_run)
        self.finished = finished

    def train(self, config, folder):
        self.trained.append((config.model.name, config.train.seed, config.optimizer.learning_rate, folder))
        return SimpleNamespace(finished=self.finished, step=3, workdir=folder)

    def evaluate_run(self, folder, output=None, overrides=None):
        self.evaluated.append((folder, output, overrides))
        shuffled = bool(overrides)
        name, seed = folder.name.rsplit("-", 1)
        top1 = 0.1 if shuffled else {"srtg_r3d_18": (0.5, 0.875, 0.625), "r3d_18": (0.25, 0.0, 0.5)}[name][int(seed)]
        run = SimpleNamespace(config=SimpleNamespace(model=SimpleNamespace(width=2)), class_names=("a", "b", "c", "d"))
        return SimpleNamespace(run=run, metrics={"top1": top1, "num_clips": 8})


def test_every_model_and_seed_has_a_line_and_every_model_a_summary(monkeypatch, recipe, tmp_path):
    stand = Stand(monkeypatch)
    lines = list(bench_motion(recipe, workdir=tmp_path / "runs", overrides={"optimizer.learning_rate": 0.5}))
    rows = [line for line in lines if "seed" in line]
    assert [(row["model"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("srtg_r3d_18", "r3d_18") for seed in (0, 1, 2)
    ]
    assert stand.trained == [
        (row["model"], row["seed"], 0.5, tmp_path / "runs" / f"{row['model']}-{row['seed']}") for row in rows
    ]
    for row in rows:
        assert (row["width"], row["chance"], row["num_clips"], row["top1_shuffled"]) == (2, 0.25, 8, 0.1)
    srtg, plain = lines[3], lines[7]
    assert (srtg["model"], srtg["seeds"]) == ("srtg_r3d_18", [0, 1, 2])
    assert (srtg["top1_mean"], srtg["top1_min"], srtg["top1_max"]) == (pytest.approx(2 / 3), 0.5, 0.875)
    assert (plain["model"], plain["seeds"]) == ("r3d_18", [0, 1, 2])
    assert (plain["top1_mean"], plain["top1_min"], plain["top1_max"]) == (0.25, 0.0, 0.5)
    assert [srtg[f"top1_shuffled_{kind}"] for kind in ("mean", "min", "max")] == [pytest.approx(0.1)] * 3


def test_each_run_is_evaluated_in_order_and_shuffled_into_folders_of_their_own(monkeypatch, recipe, tmp_path):
    stand = Stand(monkeypatch)
    list(bench_motion(recipe, workdir=tmp_path, models=("r3d_18",), seeds=(1,)))
    folder = tmp_path / "r3d_18-1"
    assert stand.evaluated == [
        (folder, None, None),
        (folder, folder / "eval-shuffled", {"eval.frame_order": "shuffled"}),
    ]


def test_a_run_that_a_signal_ended_is_not_measured(monkeypatch, recipe, tmp_path):
    stand = Stand(monkeypatch, finished=False)
    with pytest.raises(RuntimeError, match=r"srtg_r3d_18-0 was stopped after step 3; the same command goes on"):
        list(bench_motion(recipe, workdir=tmp_path))
    assert len(stand.trained) == 1
    assert not stand.evaluated


def test_the_command_lines_options_reach_the_benchmark(monkeypatch):
    seen = []
    monkeypatch.setattr(motion, "bench_motion", lambda *a, **options: seen.append((a, options)) or iter([{"a": 1}]))
    options = SimpleNamespace(config="mine.py", workdir="runs/mine", seeds=2, runs=7)
    assert list(BENCHMARKS["motion"](options)) == [{"a": 1}]
    assert seen == [(("mine.py",), {"workdir": "runs/mine", "seeds": range(2)})]


@pytest.mark.parametrize(("change", "name"), [({"seeds": ()}, "seeds"), ({"models": ()}, "models")])
def test_nothing_to_measure_is_refused(change, name, recipe, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must hold at least 1, received"):
        next(bench_motion(recipe, workdir=tmp_path, **change))


@pytest.mark.slow
def test_real_runs_are_trained_once_and_measured_again(recipe, tmp_path):
    root = make_motion(tmp_path / "motion", num_train_per_class=2, num_val_per_class=1, num_workers=0)
    options = {"models": ("r3d_18",), "seeds": (3,), "overrides": {"data.root": str(root)}}
    row, summary = bench_motion(recipe, workdir=tmp_path / "runs", **options)
    json.dumps([row, summary], allow_nan=False)
    assert row["benchmark"] == summary["benchmark"] == "motion"
    assert row["versions"]["jax"]
    assert (row["model"], row["width"], row["seed"], row["num_clips"]) == ("r3d_18", 2, 3, 12)
    assert row["chance"] == pytest.approx(1 / 12)
    assert 0 <= row["top1"] <= 1
    assert row["train_seconds"] > 0
    folder = tmp_path / "runs" / "r3d_18-3"
    lines = read_jsonl(folder / "metrics.jsonl")
    assert [line["eval/top1"] for line in lines if "eval/top1" in line] == [row["top1"]]
    saved = {name: json.loads((folder / name / "metrics.json").read_text()) for name in ("eval", "eval-shuffled")}
    assert (saved["eval"]["frame_order"], saved["eval"]["top1"]) == ("natural", row["top1"])
    assert (saved["eval-shuffled"]["frame_order"], saved["eval-shuffled"]["top1"]) == ("shuffled", row["top1_shuffled"])

    before = (folder / "metrics.jsonl").read_bytes()
    checkpoint = (folder / "checkpoints" / "2").stat().st_mtime_ns
    again, summary_again = bench_motion(recipe, workdir=tmp_path / "runs", **options)
    assert {**again, "train_seconds": 0} == {**row, "train_seconds": 0}
    assert summary_again == summary
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert (folder / "checkpoints" / "2").stat().st_mtime_ns == checkpoint
