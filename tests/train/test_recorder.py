"""What is written for each step, and what happens when the loss is not finite."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.data.records import VideoDataset, VideoRecord
from jaxvid.train.plan import Plan
from jaxvid.train.recorder import NonFiniteLossError, Recorder, batch_sha256
from jaxvid.train.writers import LoggingProgress, read_jsonl

DATASET = VideoDataset(
    "fake", "train", ("a",), [VideoRecord(id=i, label=0, video="x", name=f"clip{i}") for i in range(8)]
)
PLAN = Plan(num_clips=8, batch_size=4, num_epochs=2.0)


class Watcher(LoggingProgress):
    def __init__(self):
        super().__init__()
        self.steps, self.epochs = [], []

    def step(self, step, values):
        self.steps.append(step)

    def epoch(self, step, summary):
        self.epochs.append(summary)


def metrics(loss, ids=(3, 1, 2, -1), num_valid=3, finite=True):
    values = {"loss": loss, "top1": 0.5, "grad_norm": 1.0, "learning_rate": 0.1, "num_valid": num_valid}
    arrays = {name: jnp.asarray(value) for name, value in values.items()}
    return arrays | {"id": jnp.asarray(ids, jnp.int32), "finite": jnp.asarray(finite)}


@pytest.fixture
def watcher():
    return Watcher()


@pytest.fixture
def recorder(tmp_path, watcher):
    with Recorder(tmp_path, PLAN, watcher, names=DATASET, start=0, tensorboard=False) as recorder:
        yield recorder


def test_the_hash_is_that_of_the_ids_in_their_order():
    # sha256 of the little-endian bytes 01000000 02000000
    assert batch_sha256(np.array([1, 2])) == "34fb5c825de7ca4aea6e712f19d439c1da0c92c37b423936c5f618545ca4fa1f"
    assert batch_sha256(np.array([2, 1])) != batch_sha256(np.array([1, 2]))
    assert batch_sha256(np.array([1, 2], np.int64)) == batch_sha256(np.array([1, 2], np.int32))


def test_a_step_is_one_line_and_is_written_when_the_next_one_comes(recorder, watcher, tmp_path):
    recorder.step(1, metrics(2.0), waited=0.0)
    assert watcher.steps == []
    recorder.step(2, metrics(1.0), waited=0.0)
    assert watcher.steps == [1]
    recorder.flush()
    recorder.flush()
    lines = read_jsonl(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["loss"] == 2.0
    assert lines[0]["epoch"] == 0.5
    assert lines[0]["batch_sha256"] == batch_sha256(np.array([3, 1, 2, -1]))
    assert 0 <= lines[0]["data_wait_fraction"] <= 1
    assert "id" not in lines[0]


def test_an_epoch_averages_over_clips_and_starts_anew(recorder, watcher):
    recorder.step(1, metrics(2.0, num_valid=3), waited=0.0)
    recorder.step(2, metrics(4.0, num_valid=1), waited=0.0)
    recorder.flush()
    recorder.evaluation(2, {"top1": 0.25, "loss": None}, num_traces=1)
    recorder.step(3, metrics(8.0), waited=0.0)
    recorder.flush()
    recorder.evaluation(3, {"top1": 0.5}, num_traces=1)
    assert watcher.epochs[0]["loss"] == pytest.approx(2.5)
    assert watcher.epochs[0]["eval/top1"] == 0.25
    assert watcher.epochs[0]["step_traces"] == 1
    assert watcher.epochs[1]["loss"] == pytest.approx(8.0)


def test_a_file_holds_steps_and_evaluations_and_nothing_else(recorder, tmp_path):
    recorder.step(1, metrics(2.0, num_valid=3), waited=0.0)
    recorder.step(2, metrics(4.0, num_valid=1), waited=0.0)
    recorder.flush()
    recorder.evaluation(2, {"top1": 0.25, "loss": None}, num_traces=1)
    *steps, evaluated = read_jsonl(tmp_path / "metrics.jsonl")
    assert all({"step", "loss", "batch_sha256"} <= set(line) for line in steps)
    assert len(steps) == 2
    assert (evaluated["step"], evaluated["eval/top1"], evaluated["epoch/loss"]) == (2, 0.25, 2.5)
    assert evaluated["epoch/step_traces"] == 1
    assert not {"loss", "batch_sha256"} & set(evaluated)


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
@pytest.mark.parametrize("evaluated_before_death", [False, True])
def test_means_after_a_resume_are_those_of_an_undisturbed_run(tmp_path, stop_after, evaluated_before_death):
    losses = {1: 0.1, 2: 0.7, 3: 1 / 3, 4: float("inf")}

    def steps(recorder, first, last):
        for step in range(first, last + 1):
            recorder.step(step, metrics(losses[step], num_valid=step) | {"gate/mean": jnp.asarray(0.3)}, waited=0.0)
            recorder.flush()
            if step == 1:
                recorder.evaluation(1, {"top1": 0.5}, num_traces=1)

    def averaged(folder):
        line = read_jsonl(folder / "metrics.jsonl")[-1]
        timed = ("clips_per_second", "seconds", "wait", "compil")
        return {name: value for name, value in line.items() if not any(word in name for word in timed)}

    for name, stop in (("undisturbed", 4), ("stopped", stop_after)):
        with Recorder(tmp_path / name, PLAN, Watcher(), names=DATASET, start=0, tensorboard=False) as recorder:
            steps(recorder, 1, stop)
            if stop == 4 and (name == "undisturbed" or evaluated_before_death):
                recorder.evaluation(4, {"top1": 0.5}, num_traces=1)
    due = {"evaluation_due": stop_after == 4}
    watcher = Watcher()
    with Recorder(
        tmp_path / "stopped", PLAN, watcher, names=DATASET, start=stop_after, tensorboard=False, **due
    ) as recorder:
        steps(recorder, stop_after + 1, 4)
        recorder.evaluation(4, {"top1": 0.5}, num_traces=1)
    assert averaged(tmp_path / "stopped") == averaged(tmp_path / "undisturbed")
    assert averaged(tmp_path / "stopped")["epoch/loss"] == pytest.approx((0.7 * 2 + 1 / 3 * 3) / 9, rel=1e-6)
    assert watcher.epochs[-1]["seconds"] > 0
    evaluations = [line["step"] for line in read_jsonl(tmp_path / "stopped" / "metrics.jsonl") if "eval/top1" in line]
    assert evaluations == [1, 4]


def test_the_share_of_waiting_is_of_the_time_that_passed(recorder, tmp_path):
    recorder.step(1, metrics(1.0), waited=1e9)
    recorder.flush()
    assert read_jsonl(tmp_path / "metrics.jsonl")[0]["data_wait_fraction"] == 1.0


def test_a_loss_that_is_not_finite_names_the_clips(recorder, tmp_path):
    recorder.step(1, metrics(float("nan"), finite=False), waited=0.0)
    with pytest.raises(
        NonFiniteLossError, match=r"step 1; its 3 clips, ids \[3, 1, 2\].*; no checkpoint was saved before it\.$"
    ) as caught:
        recorder.flush()
    assert caught.value.ids == [3, 1, 2]
    note = json.loads((tmp_path / "nonfinite.json").read_text())
    assert note["step"] == 1
    assert note["clips"][0] == {"id": 3, "name": "clip3"}
    assert read_jsonl(tmp_path / "metrics.jsonl")[0]["loss"] is None


def test_the_checkpoint_before_a_loss_that_is_not_finite_is_named(tmp_path, watcher):
    with Recorder(tmp_path, PLAN, watcher, names=DATASET, start=3, tensorboard=False) as recorder:
        recorder.step(4, metrics(float("nan"), finite=False), waited=0.0)
        with pytest.raises(NonFiniteLossError, match=r"; the checkpoint of step 3 was saved before it\.$"):
            recorder.flush()
        recorder.saved(5)
        recorder.step(6, metrics(float("nan"), finite=False), waited=0.0)
        with pytest.raises(NonFiniteLossError, match=r"; the checkpoint of step 5 was saved before it\.$"):
            recorder.flush()


def test_lines_beyond_the_resumed_step_are_dropped(tmp_path, watcher):
    with Recorder(tmp_path, PLAN, watcher, names=DATASET, start=0, tensorboard=False) as first:
        for step in (1, 2, 3):
            first.step(step, metrics(1.0), waited=0.0)
    with Recorder(tmp_path, PLAN, watcher, names=DATASET, start=1, tensorboard=False) as second:
        second.step(2, metrics(9.0), waited=0.0)
    assert [(line["step"], line["loss"]) for line in read_jsonl(tmp_path / "metrics.jsonl")] == [(1, 1.0), (2, 9.0)]
