"""``train`` as a whole: what a run leaves, how it goes on, and what it refuses."""

import json
import shutil
import signal

import pytest

from jaxvid.data.quarantine import TooManyBadVideosError
from jaxvid.train import train
from jaxvid.train.recorder import NonFiniteLossError, batch_sha256
from jaxvid.train.writers import LoggingProgress, read_jsonl


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A finished run of 4 steps: 30 clips in batches of 8."""
    workdir = tmp_path_factory.mktemp("run") / "a"
    return train(tiny(**{"checkpoint.every_steps": 1, "checkpoint.keep_last": 9}), workdir)


def training_lines(workdir):
    lines = [line for line in read_jsonl(workdir / "metrics.jsonl") if "loss" in line]
    return [(line["step"], line["loss"], line["grad_norm"], line["batch_sha256"]) for line in lines]


def test_what_a_run_leaves(run):
    assert run.finished
    assert run.step == 4
    assert set(run.metrics) >= {"top1", "top3", "mean_class_accuracy", "loss", "num_clips", "num_missing"}
    assert run.metrics["num_clips"] == 6
    lines = read_jsonl(run.workdir / "metrics.jsonl")
    assert [line["step"] for line in lines if "batch_sha256" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "eval/top1" in line] == [2, 4]
    compiled = [line["epoch/step_traces"] for line in lines if "epoch/step_traces" in line]
    assert compiled == [1, 1]
    assert json.loads((run.workdir / "config.json").read_text())["model"]["name"] == "r3d_18"
    assert sorted(int(p.name) for p in (run.workdir / "checkpoints").iterdir()) == [1, 2, 3, 4]


def test_every_clip_is_trained_on_once_per_epoch(run, tiny):
    from jaxvid.data.pipeline import train_batches
    from jaxvid.train import assemble

    config = tiny()
    dataset = assemble.open_dataset(config, "train")
    clips = assemble.train_clips(config, dataset.class_names)
    with train_batches(dataset, clips, batch_size=8, seed=config.train.seed, num_clips_total=30) as batches:
        ids = [batch["id"] for batch in batches]
    assert [batch_sha256(i) for i in ids] == [line[3] for line in training_lines(run.workdir)]
    stream = [int(i) for batch in ids for i in batch if i >= 0]
    assert sorted(stream[:15]) == sorted(stream[15:]) == list(range(15))


def test_a_run_that_lost_its_last_steps_goes_on_as_if_nothing_had_been(run, tiny, tmp_path):
    workdir = tmp_path / "resumed"
    shutil.copytree(run.workdir, workdir)
    for step in (3, 4):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    result = train(tiny(**{"checkpoint.every_steps": 1, "data.num_workers": 0}), workdir)
    assert result.metrics == run.metrics
    assert training_lines(workdir) == training_lines(run.workdir)


def test_a_finished_run_is_left_as_it_is(run, tiny):
    before = (run.workdir / "metrics.jsonl").read_text()
    again = train(tiny(**{"checkpoint.every_steps": 1, "checkpoint.keep_last": 9}), run.workdir)
    assert (again.step, again.metrics, again.finished) == (4, run.metrics, True)
    assert (run.workdir / "metrics.jsonl").read_text() == before


def test_another_recipe_in_the_same_folder_is_refused(run, tiny):
    with pytest.raises(ValueError, match=r"train\.seed must stay 0, .* received 1; choose another --workdir"):
        train(tiny(**{"train.seed": 1}), run.workdir)


def test_sigterm_saves_and_returns(tiny, tmp_path):
    class Terminate(LoggingProgress):
        def step(self, step, values):
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    config = tiny(**{"eval.every_epochs": 9.0})
    result = train(config, tmp_path, progress=Terminate())
    assert not result.finished
    assert signal.getsignal(signal.SIGTERM) is before
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [str(result.step)]
    assert len(training_lines(tmp_path)) == result.step < 4
    assert train(config, tmp_path).finished


def test_two_processes_cannot_train_in_one_folder(tiny, tmp_path):
    import fcntl

    with (tmp_path / ".lock-0").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process"):
            train(tiny(), tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_clips(tiny, tmp_path):
    with pytest.raises(NonFiniteLossError, match="step"):
        train(tiny(**{"optimizer.learning_rate": 1e30}), tmp_path)
    clips = json.loads((tmp_path / "nonfinite.json").read_text())["clips"]
    assert {clip["name"].split("/")[-2] for clip in clips} <= {"bend", "clap", "wave"}


def test_damaged_files_are_named_once_and_the_validation_set_keeps_its_size(tiny, videos, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(videos, root)
    bad = [root / "train" / "bend" / "0.mp4", root / "val" / "wave" / "1.mp4"]
    bad[0].write_bytes(b"")
    bad[1].write_text("not a video")
    config = tiny(**{"data.root": str(root), "data.max_bad_fraction": 0.2})
    result = train(config, tmp_path / "run")
    assert result.finished
    assert (result.metrics["num_clips"], result.metrics["num_missing"]) == (6, 1)
    noted = read_jsonl(tmp_path / "run" / "quarantine.jsonl")
    assert sorted(line["path"] for line in noted) == sorted(str(path) for path in bad)
    assert all(line["error"] for line in noted)


def test_too_many_damaged_files_end_the_run(tiny, videos, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(videos, root)
    for path in (root / "train").rglob("*.mp4"):
        path.write_bytes(b"")
    with pytest.raises(TooManyBadVideosError):
        train(tiny(**{"data.root": str(root)}), tmp_path / "run")


def test_splits_with_other_classes_are_refused(tiny, videos, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(videos, root)
    (root / "val" / "wave").rename(root / "val" / "jump")
    with pytest.raises(ValueError, match="jump"):
        train(tiny(**{"data.root": str(root)}), tmp_path / "run")
