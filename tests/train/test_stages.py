"""A run in stages: what each one trains, what it begins with, and that it goes on where it was stopped."""

import dataclasses
import json
import shutil
import signal

import jax
import numpy as np
import pytest

from jaxvid import evaluation
from jaxvid.config import load
from jaxvid.inference import Recognizer, load_recognizer
from jaxvid.train import evaluate_run, load_run, stage_folders, step_folder, train
from jaxvid.train.loop import train_run
from jaxvid.train.stages import stage_config
from jaxvid.train.writers import LoggingProgress

STAGES = (("universal", 2.0, 1.0), ("specific", 1.0, 1.0), ("joint", 1.0, 0.1))
FIELDS = {"model.u2s.enabled": True, "model.u2s.num_confusing": 1.0, "train.stages": STAGES, "train.max_steps": 2}
FIELDS |= {"model.conv": "direct"}  # compiles fastest


@pytest.fixture(scope="module")
def config(tiny):
    return tiny(**FIELDS)


@pytest.fixture(scope="module")
def done(config, tmp_path_factory):
    result = train(config, tmp_path_factory.mktemp("stages") / "run")
    assert result.finished
    return result


def leaves(run, *parts, name="params"):
    tree = run.variables[name]
    for part in parts:
        tree = tree[part]
    return jax.tree.leaves(tree)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_each_stage_is_an_ordinary_run(config):
    universal, specific, joint = (stage_config(config, index) for index in range(3))
    assert not universal.model.u2s.enabled
    assert (universal.finetune.weights, universal.train.num_epochs) == ("", 2.0)
    assert (specific.finetune.weights, specific.finetune.trainable) == ("{run}/universal", ("u2s",))
    assert specific.model.u2s.similarity == "{run}/similarity/similarity.npz"
    assert (joint.finetune.weights, joint.finetune.trainable) == ("{run}/specific", ())
    assert joint.optimizer.learning_rate == pytest.approx(0.1 * config.optimizer.learning_rate)
    assert all(each.train.stages == () for each in (universal, specific, joint))
    plain = dataclasses.replace(config, model=dataclasses.replace(
        config.model, u2s=dataclasses.replace(config.model.u2s, variant="no_mask")))  # fmt: skip
    assert stage_config(plain, 1).model.u2s.similarity == ""


@pytest.mark.slow
def test_the_newest_stage_is_the_run(done):
    run = load_run(done.workdir)
    assert (run.step, run.config.model.u2s.enabled) == (2, True)
    assert equal(leaves(run), leaves(load_run(done.workdir / "joint")))
    assert stage_folders.newest_stage(done.workdir).name == "joint"
    assert json.loads((done.workdir / "stages.json").read_text())["stages"] == ["universal", "specific", "joint"]


@pytest.mark.slow
def test_what_is_frozen_stays_to_the_last_bit(done):
    before, after = load_run(done.workdir / "universal"), load_run(done.workdir / "specific")
    for name in ("params", "batch_stats"):
        for part in before.variables[name]:
            assert equal(leaves(before, part, name=name), leaves(after, part, name=name)), (name, part)
    kept = step_folder.read_record(done.workdir / "specific" / "checkpoints" / "2")["items"]["opt_state"]
    assert any("u2s" in path for path in kept)
    assert not any("stage1" in path for path in kept)
    joint = load_run(done.workdir)
    assert not equal(leaves(after, "stem"), leaves(joint, "stem"))
    assert not equal(leaves(after, "u2s", "specific"), leaves(joint, "u2s", "specific"))


@pytest.mark.slow
def test_the_specific_network_begins_as_a_copy(config, done, tmp_path):
    """Its first step is taken from the universal network's weights, or from its own with start=random."""
    own = stage_config(config, 1)
    own = dataclasses.replace(own, optimizer=dataclasses.replace(own.optimizer, learning_rate=1e-12, weight_decay=0.0))
    shutil.copytree(done.workdir / "universal", tmp_path / "universal")
    shutil.copytree(done.workdir / "similarity", tmp_path / "similarity")
    start = load_run(train(own, tmp_path / "specific").workdir)
    universal = load_run(done.workdir / "universal")
    for part in ("stage3", "stage4", "head"):
        for a, b in zip(leaves(start, "u2s", "specific", part), leaves(universal, part), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    u2s = dataclasses.replace(own.model.u2s, start="random")
    drawn = dataclasses.replace(own, model=dataclasses.replace(own.model, u2s=u2s))
    other = load_run(train(drawn, tmp_path / "random").workdir)
    assert not equal(leaves(other, "u2s", "specific", "stage4"), leaves(start, "u2s", "specific", "stage4"))


@pytest.mark.slow
def test_the_network_knows_what_is_confused(done):
    with np.load(done.workdir / "similarity" / "similarity.npz") as stored:
        confusing, similarity = stored["confusing"], stored["similarity"]
        assert stored["positions"].tolist() == [5] * 3  # five clips of each class, of one position in the last stage
        assert stored["top_n"][-1] == 1
    np.testing.assert_array_equal(similarity, similarity.T)
    told = json.loads((done.workdir / "similarity" / "similarity.json").read_text())
    assert told["mean_confusing"] == pytest.approx(confusing.sum() / 3 - 1)
    assert (done.workdir / "similarity" / "similarity.png").stat().st_size > 1000
    for stage in ("specific", "joint"):
        statistics = load_run(done.workdir / stage).variables["batch_stats"]["u2s"]
        np.testing.assert_array_equal(statistics["confusing"], confusing)


@pytest.mark.slow
def test_every_loss_is_logged_apart(done):
    for stage in ("specific", "joint"):
        line = json.loads((done.workdir / stage / "metrics.jsonl").read_text().splitlines()[0])
        terms = {name: value for name, value in line.items() if name.startswith("loss/u2s/")}
        assert set(terms) == {f"loss/u2s/{n}" for n in ("universal", "specific", "mask", "category_regularization")}
        assert line["loss"] == pytest.approx(sum(terms.values()), rel=1e-6)
        assert 0 <= terms["loss/u2s/category_regularization"] <= 0.5
    assert "loss/u2s" not in (done.workdir / "universal" / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_an_evaluation_tells_the_networks_apart(done):
    found = evaluate_run(done.workdir)
    assert found.output == done.workdir / "eval"
    rows = json.loads((found.output / "fusions.json").read_text())
    assert len(rows) == 7
    assert rows[-1]["top1"] == found.metrics["top1"]
    assert len(found.fusion_table.splitlines()) == 9  # with the names of the columns, and what the rows are
    compared = evaluation.compare_runs(done.workdir, done.workdir / "eval" / "networks" / "universal")
    assert compared.num_clips == 6


@pytest.mark.slow
def test_an_oracle_is_asked_at_evaluation(done, tmp_path):
    plain = evaluate_run(done.workdir, tmp_path / "plain").predictions
    asked = evaluate_run(done.workdir, None, {"model.u2s.oracle": True})
    assert asked.output == done.workdir / "eval-oracle"
    told = json.loads((asked.output / "metrics.json").read_text())
    assert (told["oracle"], told["stage"]) == (True, "joint")
    assert asked.run.title == "r3d_18 with U2S and an oracle, stage joint, step 2"
    oracle = asked.predictions
    names = ("u2s/universal/logits", "u2s/specific/logits")
    np.testing.assert_array_equal(*(each.side[names[0]] for each in (plain, oracle)))
    wrong = plain.side[names[0]][:, 0].argmax(-1) != plain.labels
    changed = (plain.side[names[1]] != oracle.side[names[1]]).any(axis=(1, 2))
    assert not changed[~wrong].any()
    assert changed[wrong].any()


@pytest.mark.slow
def test_videos_are_predicted_with_the_same_bits_but_not_by_an_oracle(done, videos, tmp_path):
    predictions = evaluate_run(done.workdir, tmp_path / "eval").predictions
    found = list(load_recognizer(done.workdir).predict(videos / "val" / "bend"))
    np.testing.assert_array_equal([each.logits for each in found], predictions.logits[:2])
    with pytest.raises(ValueError, match=r"model\.u2s\.oracle must be false for videos without labels"):
        Recognizer(load_run(done.workdir, {"model.u2s.oracle": True}))


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(config, done, tmp_path):
    """And the folder may be moved: stages find each other by it."""
    shutil.copytree(done.workdir, tmp_path / "moved")
    before = (tmp_path / "moved" / "similarity" / "similarity.npz").stat().st_mtime_ns
    again = train(config, tmp_path / "moved")
    assert again.finished
    assert (tmp_path / "moved" / "similarity" / "similarity.npz").stat().st_mtime_ns == before
    assert equal(leaves(load_run(tmp_path / "moved")), leaves(load_run(done.workdir)))


@pytest.mark.slow
def test_a_refused_call_leaves_the_run_as_it_was(config, done, tmp_path):
    shutil.copytree(done.workdir, tmp_path / "run")
    files = ("config.json", "stages.json")
    before = [(tmp_path / "run" / name).read_bytes() for name in files]
    shutil.rmtree(tmp_path / "run" / "specific")  # whose own config would be asked otherwise
    shutil.rmtree(tmp_path / "run" / "joint")
    for name, value in {
        "optimizer.learning_rate": 5.0,
        "model.u2s.distance": "l1",
        "train.stages": STAGES[:1],
    }.items():
        with pytest.raises(ValueError, match=f"{name} must stay"):
            train(load(config, {name: value}), tmp_path / "run")
    assert [(tmp_path / "run" / name).read_bytes() for name in files] == before


@pytest.mark.slow
def test_a_run_of_one_stage_is_not_trained_among_several(config, done):
    before = (done.workdir / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"--workdir must not be a run in stages where train\.stages is empty"):
        train(load(config, {"train.stages": ()}), done.workdir)
    assert (done.workdir / "config.json").read_bytes() == before


@pytest.mark.slow
def test_without_the_config_of_the_whole_the_stages_go_on(config, done, tmp_path):
    shutil.copytree(done.workdir, tmp_path / "run")
    for text in (None, "{half"):
        (tmp_path / "run" / "config.json").unlink()
        if text:
            (tmp_path / "run" / "config.json").write_text(text)
        assert train(config, tmp_path / "run").finished
        assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["seed"] == config.train.seed


@pytest.mark.slow
def test_the_run_goes_on_where_its_data_are_now(config, done, videos, tmp_path):
    """Before the similarity is measured; and until the next stage has saved, the first one is the run."""
    run = tmp_path / "run"
    shutil.copytree(done.workdir, run)
    for name in ("specific", "joint", "similarity"):
        shutil.rmtree(run / name)
    (run / "specific" / "checkpoints").mkdir(parents=True)
    assert load_run(run).config.train.num_epochs == 2.0
    shutil.rmtree(run / "specific")
    shutil.copytree(videos, tmp_path / "videos")
    opened = []

    class Opened(LoggingProgress):
        def evaluating(self, total):
            opened.append(total)
            return super().evaluating(total)

    moved = load(config, {"data.root": str(tmp_path / "videos")})
    assert train(moved, run, progress=Opened()).finished
    assert opened[0] == 15  # the training videos, for the similarity
    assert equal(leaves(load_run(run)), leaves(load_run(done.workdir)))
    meta = json.loads((run / "config.json").read_text())
    assert meta["data"]["root"] == str(tmp_path / "videos")


@pytest.mark.slow
def test_other_classes_have_no_masks_yet(tiny, done, videos, tmp_path):
    """What belongs to single classes starts anew, the rest does not."""
    for split in ("train", "val"):
        (tmp_path / "videos" / split).mkdir(parents=True)
        for name, other in (("bend", "b"), ("wave", "a")):
            (tmp_path / "videos" / split / other).symlink_to(videos / split / name)
    fields = {**FIELDS, "train.stages": (), "finetune.weights": str(done.workdir), "finetune.trainable": ("u2s/mask",)}
    fields |= {"data.root": str(tmp_path / "videos"), "train.batch_size": 4, "train.max_steps": 1}
    run = load_run(train(tiny(**fields), tmp_path / "run").workdir)
    np.testing.assert_array_equal(run.variables["batch_stats"]["u2s"]["confusing"], np.eye(2))
    assert run.variables["params"]["u2s"]["mask"]["kernel"].shape[1] == 2
    before = load_run(done.workdir)
    assert equal(leaves(run, "u2s", "specific", "stage4"), leaves(before, "u2s", "specific", "stage4"))


@pytest.mark.slow
def test_a_signal_ends_the_stage_under_way_and_no_other_begins(tiny, tmp_path):
    class Stopping:
        """Sends the signal with the first step of the second stage."""

        stage = ""

        def message(self, text):
            self.stage = text if text.startswith("Stage") else self.stage

        def step(self, step, values):
            if "specific" in self.stage:
                signal.raise_signal(signal.SIGTERM)

        def __getattr__(self, name):
            return lambda *args, **kwargs: lambda *args: None

    stages = (("universal", 0.5, 1.0), ("specific", 3.0, 1.0), ("joint", 0.5, 0.1))
    config = tiny(**FIELDS | {"train.stages": stages, "train.max_steps": 0})
    stopped = train(config, tmp_path, progress=Stopping())
    assert not stopped.finished
    assert not (tmp_path / "joint").exists()
    assert load_run(tmp_path).config.finetune.trainable == ("u2s",)
    assert stopped.step < 6
    assert train(config, tmp_path).finished
    assert (tmp_path / "joint" / "checkpoints" / "1").is_dir()


def test_a_run_of_one_stage_refuses_several(config, tmp_path):
    with pytest.raises(ValueError, match=r"train\.stages must be empty for a run of one stage .* received 3 stages"):
        train_run(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folds_are_not_trained_in_one_run(config, tmp_path):
    folds = dataclasses.replace(config, data=dataclasses.replace(config.data, folds=("a",)))
    with pytest.raises(ValueError, match=r"data\.folds must be empty for one run"):
        train(folds, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("last", [False, True])
def test_a_signal_in_the_last_step_of_a_stage_lets_no_other_begin(tiny, tmp_path, last):
    class Stopping(LoggingProgress):
        stage, texts = "", ()

        def message(self, text):
            self.stage = text if text.startswith("Stage") else self.stage
            self.texts = (*self.texts, text)

        def epoch(self, step, summary):
            if ("specific" if last else "universal") in self.stage:
                signal.raise_signal(signal.SIGTERM)

    stages = (("universal", 0.5, 1.0), ("specific", 0.5, 1.0))
    config, progress = tiny(**FIELDS | {"train.stages": stages, "train.max_steps": 0}), Stopping()
    stopped = train(config, tmp_path, progress=progress)
    assert stopped.finished == last
    assert (tmp_path / "specific").exists() == last
    assert ("Stopped by a signal behind the stage universal; the same command goes on." in progress.texts) != last
    assert train(config, tmp_path).finished


def test_what_u2s_cannot_go_around_is_refused_before_the_first_stage(tiny, tmp_path):
    fields = {**FIELDS, "model.name": "slowfast_r50_4x16", "data.num_frames": 8, "data.crop_size": 32}
    with pytest.raises(ValueError, match="must have one array behind stage4"):
        train(tiny(**fields, **{"data.short_side": (32, 32)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"PK\x03\x04 and then nothing", b"\x93NUMPY\x01\x00", "npy"])
def test_a_file_that_is_no_similarity_is_refused_before_the_first_stage(tiny, tmp_path, content):
    if content == "npy":
        with (tmp_path / "x.npz").open("wb") as file:
            np.save(file, np.eye(3))
    else:
        (tmp_path / "x.npz").write_bytes(content)
    config = tiny(**FIELDS | {"model.u2s.similarity": str(tmp_path / "x.npz")})
    with pytest.raises(ValueError, match=r"model\.u2s\.similarity must be an npz with 'confusing' and 'class_names'"):
        train(config, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"model\.u2s\.similarity must be a file"):
        train(load(config, {"model.u2s.similarity": str(tmp_path / "y.npz")}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train.stages": (("specific", 1.0, 1.0),)}, "some of universal, specific, joint in this order"),
        ({"train.stages": (("universal", 0.0, 1.0),)}, "of > 0 epochs and a factor > 0"),
        ({"train.stages": (("first", 1.0, 1.0),)}, "train.stages must be"),
        ({"model.u2s.enabled": False, "model.u2s.num_confusing": 0.0}, "only be set with model.u2s.enabled=true"),
        ({"finetune.trainable": ("head",)}, "finetune.trainable must not be set with train.stages"),
        ({"train.stages": (), "finetune.trainable": ("head",), "finetune.draws": 2}, "draws must be 0 with model.u2s"),
        ({"schedule.warmup_epochs": 1.5}, "warmup_epochs must be <= the epochs of each of train.stages"),
        ({"model.class_regularization.enabled": True}, "model.u2s.enabled must be false with"),
        ({"model.u2s.oracle": True, "model.u2s.variant": "no_mask"}, "model.u2s.oracle must be false unless"),
        (
            {"model.u2s.similarity": "x.npz", "model.u2s.variant": "no_mask"},
            "model.u2s.similarity must be empty unless",
        ),
        ({"model.u2s.top_accuracy": 0.0}, r"top_accuracy must be in \(0, 1\]"),
    ],
)
def test_impossible_recipes(tiny, fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**FIELDS | fields)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"class_names": np.array(["a", "b", "c"])}, "must be of this run's 3 classes"),
        ({"confusing": np.zeros((3, 3))}, "at least 0 and 1 on the diagonal"),
        ({"confusing": np.eye(2)}, r"\[2, 2\]"),
        ({"confusing": None}, "must be an npz with 'confusing'"),
    ],
)
def test_a_similarity_that_does_not_fit(tiny, tmp_path, arrays, message):
    whole = {"confusing": np.eye(3), "class_names": np.array(["bend", "clap", "wave"]), **arrays}
    np.savez(tmp_path / "own.npz", **{name: array for name, array in whole.items() if array is not None})
    own = tiny(**{"model.u2s.enabled": True, "model.u2s.similarity": str(tmp_path / "own.npz")})
    with pytest.raises(ValueError, match=message):
        train(own, tmp_path / "run")
