"""``train`` as a whole: what a run leaves, how it goes on, and what it refuses."""

import json
import shutil
import signal

import pytest

from jaxvid.data.quarantine import TooManyBadVideosError
from jaxvid.train import cross_validate, loop, train
from jaxvid.train.checkpoint import load_for_evaluation
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
    assert all(("batch_sha256" in line) != ("eval/top1" in line) for line in lines)
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


def test_a_run_that_stopped_inside_an_epoch_reports_the_same_means(run, tiny, tmp_path):
    workdir = tmp_path / "resumed"
    shutil.copytree(run.workdir, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    train(tiny(**{"checkpoint.every_steps": 1}), workdir)
    timed = ("clips_per_second", "seconds", "wait", "compil", "traces")
    before, after = (
        [
            {name: value for name, value in line.items() if not any(word in name for word in timed)}
            for line in read_jsonl(folder / "metrics.jsonl")
        ]
        for folder in (run.workdir, workdir)
    )
    assert after == before
    assert "epoch/loss" in after[-1]


def test_an_evaluation_that_fails_costs_no_training_and_is_made_up_for(run, tiny, tmp_path, monkeypatch):
    fields = {"checkpoint.keep_last": 1, "checkpoint.keep_best": 1}
    monkeypatch.setattr(loop, "predict", lambda *_: (_ for _ in ()).throw(RuntimeError("the evaluation fails")))
    with pytest.raises(RuntimeError, match="the evaluation fails"):
        train(tiny(**fields), tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["2"]
    with pytest.raises(RuntimeError, match="the evaluation fails"):
        train(tiny(**fields), tmp_path)  # before it trains on
    assert [line["step"] for line in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2]
    monkeypatch.undo()
    result = train(tiny(**fields), tmp_path)
    assert result.metrics == run.metrics
    assert training_lines(tmp_path) == training_lines(run.workdir)
    scores = [
        (line["step"], line["eval/top1"]) for line in read_jsonl(tmp_path / "metrics.jsonl") if "eval/top1" in line
    ]
    assert [step for step, _ in scores] == [2, 4]
    best = max(scores, key=lambda entry: (entry[1], entry[0]))
    assert {int(p.name) for p in (tmp_path / "checkpoints").iterdir()} == {best[0], 4}
    _, meta = load_for_evaluation(tmp_path, best=True)
    assert (meta["step"], meta["metrics"]["eval/top1"]) == best
    _, meta = load_for_evaluation(tmp_path)
    assert meta["results"] == result.metrics


def test_a_batch_of_training_that_does_not_fit_the_devices_is_refused_before_anything(tiny, tmp_path):
    message = r"train\.batch_size must be a multiple of 3, for 3 devices .*, received train\.batch_size=8\."
    with pytest.raises(ValueError, match=message):
        train(tiny(**{"train.mesh": (("data", 3),)}), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.slow
def test_a_batch_of_evaluation_fits_any_number_of_devices(tiny, tmp_path):
    fields = {"train.batch_size": 9, "eval.batch_size": 4, "train.max_steps": 1}
    three = train(tiny(**fields, **{"train.mesh": (("data", 3),)}), tmp_path / "three")
    one = train(tiny(**fields), tmp_path / "one")
    assert three.metrics["num_clips"] == one.metrics["num_clips"] == 6
    assert three.metrics["loss"] == pytest.approx(one.metrics["loss"], rel=1e-4)


@pytest.mark.parametrize("call", [train, cross_validate])
def test_a_workdir_that_cannot_be_one_is_named(call, tiny, tmp_path):
    folds = {"data.folds": ("a",), "data.train_split": "train-{fold}", "data.eval_split": "val-{fold}"}
    config = tiny(**(folds if call is cross_validate else {}))
    file = tmp_path / "file"
    file.write_text("")
    for workdir, message in (
        (file, rf"--workdir must be a folder, received {file}, which is a file\."),
        (file / "run", rf"--workdir must be a folder that can be made .*, received {file / 'run'} \(Not a directory\)"),
        ("", r"--workdir must be a folder, received an empty text\."),
    ):
        with pytest.raises(ValueError, match=message):
            call(config, workdir)


def test_a_finished_run_is_left_as_it_is(run, tiny):
    before = (run.workdir / "metrics.jsonl").read_text()
    again = train(tiny(**{"checkpoint.every_steps": 1, "checkpoint.keep_last": 9}), run.workdir)
    assert (again.step, again.metrics, again.finished) == (4, run.metrics, True)
    assert (run.workdir / "metrics.jsonl").read_text() == before


def test_another_recipe_in_the_same_folder_is_refused(run, tiny):
    with pytest.raises(ValueError, match=r"train\.seed must stay 0, .* received 1; choose another --workdir"):
        train(tiny(**{"train.seed": 1}), run.workdir)


def test_frames_that_are_kept_change_nothing_and_may_be_allowed_or_not_when_a_run_goes_on(run, tiny, tmp_path):
    messages = []

    class Told(LoggingProgress):
        def message(self, text):
            messages.append(text)

    half = train(tiny(**{"checkpoint.every_steps": 1, "checkpoint.keep_last": 9}), tmp_path / "a")
    for step in (2, 3, 4):
        shutil.rmtree(half.workdir / "checkpoints" / str(step))
    result = train(tiny(**{"checkpoint.every_steps": 1, "data.cache_gib": 0.5}), half.workdir, progress=Told())
    assert result.metrics == run.metrics
    assert training_lines(result.workdir) == training_lines(run.workdir)
    assert messages[-1] == "Kept 0.00 of 0.50 GiB of decoded frames, of 21 videos.", "both splits"


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
