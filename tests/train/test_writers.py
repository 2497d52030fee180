import json
import logging
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxvid.train.writers import JsonlWriter, LoggingProgress, MetricWriter, epoch_line, read_jsonl


def write_lines(path, *records):
    writer = JsonlWriter(path)
    for record in records:
        writer.write(record)
    writer.close()


def scalars(folder, tag):
    """``[(step, value)]`` of a tag as TensorBoard shows it."""
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


# ---------------------------------------------------------------------------------------------- metrics.jsonl


def test_each_object_is_one_line_of_plain_values(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    writer.write(
        {"step": np.int64(1), "loss": np.float32(0.1), "ok": np.bool_(True), "batch_sha256": "ab", "none": None}
    )
    expected = {"step": 1, "loss": float(np.float32(0.1)), "ok": True, "batch_sha256": "ab", "none": None}
    assert path.read_text() == json.dumps(expected) + "\n", "it is on its way to the disk before the next write"
    writer.write({"step": 2, "loss": np.array([2.5])})
    writer.close()
    writer.close()
    assert read_jsonl(path) == [expected, {"step": 2, "loss": 2.5}]


def test_numbers_that_are_not_finite_are_null_and_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, {"step": 1, "loss": float("nan"), "a": np.float32("inf"), "b": -float("inf"), "c": 1.5})
    text = path.read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record == {
        "step": 1,
        "loss": None,
        "a": None,
        "b": None,
        "c": 1.5,
        "nonfinite": {"loss": "nan", "a": "inf", "b": "-inf"},
    }


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, np.zeros(2), object()])
def test_other_values_are_refused_and_nothing_is_written(tmp_path, value):
    writer = JsonlWriter(tmp_path / "m.jsonl")
    with pytest.raises(TypeError, match=r"loss must be a number, a boolean, a string or None, received \w+\."):
        writer.write({"step": 1, "loss": value})
    writer.close()
    assert read_jsonl(tmp_path / "m.jsonl") == []


def test_truncation_leaves_each_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    before = [{"step": step, "loss": step / 8} for step in range(1, 8)] + [{"step": 7, "eval/top1": 0.5}]
    write_lines(path, *before)
    with path.open("a") as file:
        file.write('{"step": 8, "loss": 0.')  # killed here
    assert read_jsonl(path) == before
    writer = JsonlWriter(path)
    writer.truncate_after(5)
    assert read_jsonl(path) == before[:5]
    for step in (6, 7, 8):
        writer.write({"step": step, "loss": step / 8})
    writer.close()
    assert [record["step"] for record in read_jsonl(path)] == list(range(1, 9))
    assert path.read_text().count("\n") == 8
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_a_half_written_last_line_is_never_continued(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"st')
    write_lines(path, {"step": 2})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_line_damaged_in_the_middle_is_named(tmp_path, caplog):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1}\n\xff\x00\n[3]\n{"step": 4}\n')
    assert read_jsonl(path) == [{"step": 1}, {"step": 4}]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}:{number} is not a JSON object and is left out." for number in (2, 3)
    ]
    with pytest.raises(FileNotFoundError):
        read_jsonl(tmp_path / "missing.jsonl")


def test_a_crash_during_truncation_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.jsonl"
    write_lines(path, {"step": 1}, {"step": 2})
    writer = JsonlWriter(path)
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="the disk is full"):
        writer.truncate_after(1)
    assert read_jsonl(path) == [{"step": 1}, {"step": 2}]


_KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from jaxvid.train.writers import MetricWriter
with MetricWriter(sys.argv[1], resume_after=int(sys.argv[3]), tensorboard=False, enabled=True) as writer:
    for step in range(int(sys.argv[3]) + 1, 10**9):
        writer.write(step, {"loss": 1 / step})
        print(step, flush=True)
"""


def test_lines_survive_sigkill_and_the_file_goes_on(tmp_path):
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    resumed = 0
    for _ in range(2):
        command = [sys.executable, "-c", _KILLED, str(tmp_path), root, str(resumed)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(20):
            written = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        steps = [record["step"] for record in read_jsonl(tmp_path / "metrics.jsonl")]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) >= written
        resumed = written - 3


# ---------------------------------------------------------------------------------------------- all of them


def test_one_write_goes_to_the_file_and_to_tensorboard(tmp_path):
    with MetricWriter(tmp_path / "run") as writer:
        for step in (1, 2):
            writer.write(step, {"epoch": step / 2, "loss": 3.0 / step, "gate/mean": 0.25, "batch_sha256": "ab"})
        writer.write(2, {"eval/top1": 0.5})
        writer.write(2, {"epoch/loss": 2.25})
    assert read_jsonl(tmp_path / "run" / "metrics.jsonl")[1:] == [
        {"step": 2, "epoch": 1.0, "loss": 1.5, "gate/mean": 0.25, "batch_sha256": "ab"},
        {"step": 2, "eval/top1": 0.5},
        {"step": 2, "epoch/loss": 2.25},
    ]
    folder = tmp_path / "run" / "tensorboard"
    assert scalars(folder, "train/loss") == [(1, 3.0), (2, 1.5)]
    assert scalars(folder, "train/gate/mean") == [(1, 0.25), (2, 0.25)]
    assert scalars(folder, "eval/top1") == [(2, 0.5)]
    tags = EventAccumulator(str(folder)).Reload().Tags()["scalars"]
    assert sorted(tags) == ["epoch/loss", "eval/top1", "train/epoch", "train/gate/mean", "train/loss"]


def test_tensorboard_shows_each_step_once_after_resuming(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in range(1, 7):
            writer.write(step, {"loss": 1.0})
    with MetricWriter(tmp_path, resume_after=4) as writer:
        for step in (5, 6, 7):
            writer.write(step, {"loss": 2.0})
    expected = [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0), (6, 2.0), (7, 2.0)]
    assert scalars(tmp_path / "tensorboard", "train/loss") == expected
    assert [(r["step"], r["loss"]) for r in read_jsonl(tmp_path / "metrics.jsonl")] == expected
    with MetricWriter(tmp_path) as writer:  # from the start, where no checkpoint was saved yet
        writer.write(1, {"loss": 3.0})
    assert scalars(tmp_path / "tensorboard", "train/loss") == [(1, 3.0)]
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 3.0}]


def test_what_was_written_is_in_tensorboard_at_once(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(1, {"loss": 1.0})
    writer.write(2, {"loss": float("inf"), "eval/top1": np.float32(0.75)})
    assert scalars(tmp_path / "tensorboard", "train/loss") == [(1, 1.0), (2, float("inf"))]
    assert scalars(tmp_path / "tensorboard", "eval/top1") == [(2, 0.75)]
    writer.close()
    writer.close()


def test_tensorboard_and_other_processes_can_be_left_out(tmp_path):
    with MetricWriter(tmp_path / "a", tensorboard=False) as writer:
        writer.write(1, {"loss": 1.0})
    assert os.listdir(tmp_path / "a") == ["metrics.jsonl"]
    with MetricWriter(tmp_path / "b", enabled=False) as writer:
        writer.write(1, {"loss": 1.0})
    assert not (tmp_path / "b").exists()


# ---------------------------------------------------------------------------------------------- progress

SUMMARY = {
    "epoch": 2.0,
    "loss": 1.23456,
    "top1": 0.5,
    "eval/loss": 1.5,
    "eval/top1": 0.625,
    "gate/mean": 0.333,
    "learning_rate": 0.0125,
    "clips_per_second": 41.26,
    "data_wait_fraction": 0.031,
    "seconds": 12.34,
    "grad_norm": 3.0,
}


def test_the_line_of_an_epoch():
    assert epoch_line(80, 400, SUMMARY) == (
        "epoch   2.00 | step 80/400 | loss 1.2346 | top1 50.00% | eval loss 1.5000 | eval top1 62.50% | "
        "gates open  33% | lr 1.25e-02 | 41.3 clips/s | data wait  3% | 12.3 s"
    )
    assert epoch_line(3, None, {"loss": np.float32(2)}) == "step 3 | loss 2.0000"


def test_logging_progress_logs_epochs_and_messages_only(caplog, capsys):
    progress = LoggingProgress()
    with caplog.at_level(logging.INFO, logger="jaxvid.train.writers"):
        progress.start(step=40, total_steps=400)
        progress.step(41, {"loss": 1.0})
        progress.evaluating(10)(5)
        progress.message("Resuming after step 40.")
        progress.epoch(80, {"loss": 1.0})
    assert [record.getMessage() for record in caplog.records] == [
        "Training from step 40 to step 400.",
        "Resuming after step 40.",
        "step 80/400 | loss 1.0000",
    ]
    assert capsys.readouterr().out == ""
