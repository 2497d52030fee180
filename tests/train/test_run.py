"""Evaluating a checkpoint from its folder alone, and pooling folds."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from jaxvid import evaluation
from jaxvid.train import assemble, cross_validate, evaluate_run, load_run, train
from jaxvid.train.folds import fold_config, pool


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return train(tiny(**{"optimizer.ema_decay": 0.5}), tmp_path_factory.mktemp("run"))


def test_the_evaluation_of_a_checkpoint_is_that_of_the_run(run):
    done = evaluate_run(run.workdir)
    assert {name: done.metrics[name] for name in run.metrics} == run.metrics
    assert done.output == run.workdir / "eval"
    assert json.loads((done.output / "metrics.json").read_text())["top1"] == run.metrics["top1"]
    with np.load(done.output / "predictions.npz") as arrays:
        assert arrays["ids"].tolist() == list(range(6))
        assert arrays["view_scores"].shape == (6, 1, 3)
        np.testing.assert_allclose(arrays["scores"].sum(-1), 1, rtol=1e-6)
    assert (done.output / "confusion.png").stat().st_size > 1000
    assert "clap" in done.table
    assert done.guess_table == ""


def test_multi_view_scores_are_the_mean_over_views(run, tmp_path):
    done = evaluate_run(run.workdir, tmp_path, {"eval.num_clips": 2, "eval.num_crops": 3})
    assert done.predictions.logits.shape == (6, 6, 3)
    np.testing.assert_allclose(done.predictions.view_scores.mean(1), done.predictions.scores, atol=1e-6)


def test_best_and_newest_and_one_step_are_found(run):
    assert load_run(run.workdir).step == run.step
    assert load_run(run.workdir / "checkpoints" / str(run.step)).step == run.step
    assert load_run(run.workdir, best=True).step in (2, 4)


def test_it_may_be_evaluated_on_another_number_of_devices(run, tmp_path):
    one = evaluate_run(run.workdir, tmp_path / "one", {"train.mesh": (("data", 1),)})
    eight = evaluate_run(run.workdir, tmp_path / "eight", {"train.mesh": (("data", 8),)})
    np.testing.assert_allclose(one.predictions.logits, eight.predictions.logits, atol=1e-5)
    fields = {"train.mesh": (("data", 3),), "eval.batch_size": 4}  # four rows on three devices
    three = evaluate_run(run.workdir, tmp_path / "three", fields)
    np.testing.assert_array_equal(three.predictions.ids, one.predictions.ids)
    np.testing.assert_allclose(one.predictions.logits, three.predictions.logits, atol=1e-5)
    assert three.metrics["top1"] == one.metrics["top1"]


def test_an_output_that_is_a_file_is_named(run, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=rf"--output must be a folder, received {file}, which is a file\."):
        evaluate_run(run.workdir, file)


def test_a_data_set_may_hold_some_of_the_classes(run, tmp_path):
    """As Kinetics' weights on a few videos of their own: the labels are the checkpoint's."""
    whole, config = evaluate_run(run.workdir), load_run(run.workdir).config
    name = sorted((Path(config.data.root) / "val").iterdir())[1].name
    for split in ("train", "val"):
        (tmp_path / "videos" / split).mkdir(parents=True)
        (tmp_path / "videos" / split / name).symlink_to(Path(config.data.root) / split / name)
    part = evaluate_run(run.workdir, tmp_path / "out", {"data.root": str(tmp_path / "videos")})
    taken = len({1, *part.predictions.scores.argmax(-1).tolist()})
    assert part.table.endswith(f"(and {3 - taken} classes that no clip is of)") == (taken < 3)
    of_name = whole.predictions.labels == 1
    assert part.predictions.labels.tolist() == [1] * of_name.sum()
    np.testing.assert_allclose(part.predictions.scores, whole.predictions.scores[of_name], atol=1e-6)
    (tmp_path / "videos" / "train" / "unheard").mkdir()
    (tmp_path / "videos" / "train" / "unheard" / "x.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"the 3 classes of the checkpoint \['.*\], or some of them, .*'unheard'"):
        evaluate_run(run.workdir, tmp_path / "out", {"data.root": str(tmp_path / "videos")})


def test_what_the_network_was_trained_with_may_not_change(run):
    with pytest.raises(ValueError, match=r"model\.width may not be changed at evaluation"):
        load_run(run.workdir, {"model.width": 4})
    with pytest.raises(ValueError, match=r"did you mean eval\.num_clips"):
        load_run(run.workdir, {"eval.num_clip": 4})


def test_a_fold_fills_in_both_split_names(tiny):
    config = tiny(**{"data.folds": ("a",), "data.train_split": "train-{fold}", "data.eval_split": "val-{fold}"})
    one = fold_config(config, "a")
    assert (one.data.train_split, one.data.eval_split, one.data.folds) == ("train-a", "val-a", ())


def test_pooled_folds_count_every_clip_once(run):
    part = evaluate_run(run.workdir).predictions
    both = pool([part, part])
    assert both.ids.tolist() == list(range(12))
    assert evaluation.summarize(both, ("a", "b", "c"))["top1"] == evaluation.summarize(part, ("a", "b", "c"))["top1"]


def test_cross_validation_trains_each_fold_and_reports_over_all(tiny, monkeypatch, tmp_path):
    opened = []

    def open_dataset(config, split, progress=None):
        opened.append(split)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, train_split="train"))
        dataset = original(config, split.split("-")[0])
        return dataclasses.replace(dataset, split=split)

    original, evaluate = assemble.open_dataset, evaluation.evaluate
    monkeypatch.setattr(assemble, "open_dataset", open_dataset)
    folds = {"data.folds": ("a", "b"), "data.train_split": "train-{fold}", "data.eval_split": "val-{fold}"}
    config = tiny(**folds, **{"train.num_epochs": 0.5})
    evaluations = []
    monkeypatch.setattr(evaluation, "evaluate", lambda *a, **k: evaluations.append(1) or evaluate(*a, **k))
    result = cross_validate(config, tmp_path)
    assert result.finished
    assert len(evaluations) == 2  # what the training evaluated at its end is not evaluated again
    assert result.metrics["num_clips"] == 12
    assert set(result.per_fold) == {"a", "b"}
    assert result.metrics["fold_mean_top1"] == pytest.approx(sum(result.per_fold.values()) / 2)
    assert json.loads((tmp_path / "metrics.json").read_text())["per_fold"] == result.per_fold
    assert {"train-a", "val-a", "train-b", "val-b"} <= set(opened)
    again = cross_validate(config, tmp_path)
    assert len(evaluations) == 4
    assert again.metrics == pytest.approx(result.metrics)
