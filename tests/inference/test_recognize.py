"""What a run says about videos that are named: what its evaluation says, and of a broken one nothing but why."""

import dataclasses
import shutil
import threading

import flax.linen as nn
import numpy as np
import pytest

from jaxvid.benchmarks.clips import write_clip
from jaxvid.data.clips import load_views
from jaxvid.data.records import VideoRecord
from jaxvid.inference import Recognizer, load_recognizer
from jaxvid.train import assemble, evaluate_run, make_apply

MANY_VIEWS = {"eval.num_clips": 2, "eval.num_crops": 3}


@pytest.fixture(scope="module")
def recognizer(run, small):
    return load_recognizer(run, small)


@pytest.fixture(scope="module")
def clip(videos):
    return videos / "val" / "clap" / "0.mp4"


def test_logits_are_those_of_the_evaluation_bit_for_bit(run, videos, small, tmp_path):
    evaluated = evaluate_run(run, tmp_path, small | MANY_VIEWS | {"data.root": str(videos)})
    found = list(load_recognizer(run, small | MANY_VIEWS).predict(videos / "val"))
    assert [video.path for video in found] == [str(videos / name) for name in evaluated.clip_names]
    assert found[0].logits.shape == (6, 3)
    for row, video in enumerate(found):
        assert not video.error
        np.testing.assert_array_equal(video.logits, evaluated.predictions.logits[row])
        np.testing.assert_array_equal(video.scores, evaluated.predictions.scores[row])
        np.testing.assert_array_equal(video.view_scores, evaluated.predictions.view_scores[row])
        best = video.top(1)[0]
        assert best.name == evaluated.run.class_names[best.label]
        assert best.interval[0] <= best.probability <= best.interval[1]
    assert len({video.logits.tobytes() for video in found}) == 6, "the videos differ"


def test_neither_order_nor_company_matters(recognizer, videos, clip):
    (alone,), whole = recognizer.predict(clip), list(recognizer.predict(videos / "val"))
    (same,) = (video for video in whole if video.path == str(clip))
    np.testing.assert_allclose(alone.logits, same.logits, rtol=1e-5)
    first, between, last = recognizer.predict([clip, videos / "val" / "wave" / "1.mp4", clip])
    np.testing.assert_allclose(first.logits, last.logits, rtol=1e-5)
    assert abs(first.logits - between.logits).max() > 1e-3


@pytest.mark.parametrize("K", [1, 2])
def test_networks_of_one_and_two_classes(recognizer, clip, K):
    """Here the logits are the mean red and green, and views are those of an evaluation."""

    class Means(nn.Module):
        @nn.compact
        def __call__(self, video, train):
            return 255 * video.mean(axis=(1, 2, 3))[:, :K]

    apply = make_apply(Means(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    run = dataclasses.replace(recognizer.run, class_names=("red", "green")[:K], apply=apply, variables={})
    (found,) = Recognizer(run).predict(clip)
    pixels = load_views(VideoRecord(0, 0, str(clip), "clip"), assemble.eval_clips(run.config))
    expected = pixels.mean(axis=(0, 1, 2, 3))[:K]
    np.testing.assert_allclose(found.logits, expected[None], rtol=1e-5)
    shares = np.exp(expected - expected.max()) / np.exp(expected - expected.max()).sum()
    assert sorted(guess.probability for guess in found.top(5)) == pytest.approx(sorted(shares), rel=1e-4)


def test_it_says_what_of_the_video_was_seen(recognizer, clip, tmp_path):
    """Four frames in the middle of eight, at 30 a second; of three frames all."""
    short = write_clip(tmp_path / "short.mp4", num_frames=3, height=24, width=32, gop=4)
    long, short = recognizer.predict([clip, short])
    assert (long.num_frames, long.num_seen, long.num_views) == (8, 4, 1)
    assert long.duration == pytest.approx(8 / 30)
    assert long.seen == pytest.approx((2 / 30, 5 / 30))
    assert (short.num_frames, short.num_seen) == (3, 3)
    assert short.seen == pytest.approx((0, 2 / 30))


def test_a_broken_video_is_named_with_the_reason_and_nothing_is_predicted(recognizer, clip, tmp_path, caplog):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 10)
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:-200])
    shutil.copy(clip, tmp_path / "good.mp4")
    found = {video.path.rpartition("/")[2]: video for video in recognizer.predict(tmp_path)}
    assert list(found) == ["cut.mp4", "empty.mp4", "good.mp4", "text.mp4"]
    assert found["empty.mp4"].error == f"{tmp_path / 'empty.mp4'} must not be empty."
    assert "is cut off" in found["cut.mp4"].error
    assert "is not a video in a known container" in found["text.mp4"].error
    for name in ("cut.mp4", "empty.mp4", "text.mp4"):
        assert (found[name].num_views, found[name].top(), found[name].num_frames) == (0, (), 0)
        assert "\n" not in found[name].error
    (alone,) = recognizer.predict(clip)
    np.testing.assert_allclose(found["good.mp4"].logits, alone.logits, rtol=1e-5)
    assert caplog.text == "", "whoever asked is told, and no log"


def test_a_video_that_vanishes_is_named(recognizer, clip, tmp_path):
    shutil.copy(clip, tmp_path / "a.mp4")
    found = recognizer.predict(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").unlink()
    (video,) = found
    assert "a.mp4 cannot be opened: No such file or directory" in video.error


def test_results_come_batch_by_batch_and_leaving_early_ends_the_threads(recognizer, videos):
    told = []
    found = recognizer.predict(videos / "val", progress=lambda done, total: told.append((done, total)))
    first = next(found)
    assert told == []
    assert [first.path, *(video.path for video in found)] == [v.path for v in recognizer.predict(videos / "val")]
    assert told == [(4, 6), (6, 6)]
    found = recognizer.predict([videos / "val"] * 4)
    next(found)
    found.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("jaxvid-")]


def test_paths_are_looked_for_at_once(recognizer):
    with pytest.raises(FileNotFoundError, match=r"'no\.mp4', which does not exist"):
        recognizer.predict("no.mp4")  # nothing is iterated


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("data.root", "videos", r"data\.root says where a data set's videos are, .* received data\.root='videos'\."),
        ("data.eval_split", "x", r"data\.eval_split says where"),
        ("model.width", 4, r"model\.width may not be changed at evaluation"),
        ("eval.num_clip", 4, r"did you mean eval\.num_clips"),
    ],
)
def test_fields_that_may_not_be_given(run, field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_recognizer(run, {field: value})


def test_an_absent_run_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint must be a run folder with a saved step"):
        load_recognizer(tmp_path)


def test_videos_of_another_modality_are_refused(recognizer, clip, tmp_path):
    """Before anything is decoded: a network of colours says something about flow too."""
    flow = tmp_path / "flow" / "val" / "clap" / "0.mp4"
    flow.parent.mkdir(parents=True)
    shutil.copy(clip, flow)
    (tmp_path / "flow" / "flow.json").write_text("{}")
    with pytest.raises(ValueError, match=r"data.modality='rgb', received '.*/flow/val/clap/0.mp4', which is 'flow'"):
        recognizer.predict([clip, flow])
    config = recognizer.run.config
    of_flow = dataclasses.replace(config, data=dataclasses.replace(config.data, modality="flow"))
    other = Recognizer(dataclasses.replace(recognizer.run, config=of_flow))
    with pytest.raises(ValueError, match=r"data.modality='flow', received '.*', which is 'rgb'"):
        other.predict([clip, flow])
    assert len(list(other.predict(flow))) == 1
