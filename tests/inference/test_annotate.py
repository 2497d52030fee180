"""The copy is the video, frame by frame at its times, with the classes at the top and the seen part marked below."""

import numpy as np
import pytest

from jaxvid.benchmarks.clips import write_clip
from jaxvid.data.decode import VideoReader
from jaxvid.data.records import BadVideoError
from jaxvid.evaluation import mean_scores
from jaxvid.inference import Recognition
from jaxvid.inference.annotate import Copies, annotate

NAMES = ("wave", "手を振る\n" * 40)


def recognition(path):
    logits = np.log(np.array([[0.75, 0.25]], np.float32))
    with VideoReader(path) as reader:
        whole = {"num_frames": reader.num_frames, "duration": reader.duration}
    return Recognition(str(path), NAMES, logits, mean_scores(logits[None])[0], **whole, num_seen=4, seen=(0.5, 1.0))


def read(path, short_side=None):
    with VideoReader(path) as reader:
        return reader.read(range(reader.num_frames), short_side=short_side).astype(int), reader.times


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two seconds of 10 frames each, 50 x 66 pixels."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    return write_clip(path, num_frames=20, height=50, width=66, gop=10, frames_per_second=10)


@pytest.fixture(scope="module")
def copy(video):
    return annotate(recognition(video), video.with_name("copy.mp4"))


def test_frames_times_and_size(video, copy):
    (frames, times), (original, original_times) = read(copy), read(video, short_side=240)
    np.testing.assert_allclose(times, original_times, atol=1e-4)
    assert frames.shape == (20, 240, 316, 3), "at least 240 pixels, even: 317 without its last column"
    middle = slice(60, 225)
    assert abs(frames[:, middle] - original[:, middle, :316]).mean() < 8, "the rest is the video"
    assert not list(copy.parent.glob("*.part"))


def test_classes_are_written_on_a_dark_ground(video, copy):
    (frames, _), (original, _) = read(copy), read(video, short_side=240)
    corner = np.s_[:, 2:12, 250:310]  # beside the short name: only darker, to 45 %
    assert abs(frames[corner].mean() / original[corner].mean() - 0.45) < 0.06
    assert frames[:, :16, :120].max(axis=(1, 2, 3)).min() > 200, "white letters"


def test_the_line_of_time_marks_what_was_seen_and_now(copy):
    frames, times = read(copy)
    line = frames[:, -2]
    for number, time in enumerate(times):
        place = round(316 * time / 2)
        for second in (0.2, 0.75, 1.5):
            at = round(316 * second / 2)
            if abs(at - place) < 12:
                continue
            red, blue = line[number, at, 0], line[number, at, 2]
            assert (red - blue > 90) == (0.5 <= second <= 1.0), f"frame {number}, second {second}"
        assert line[number, max(1, place)].min() > 150, f"frame {number} is marked at {place}"


def test_damage_beside_what_was_seen_is_named_and_leaves_no_half_copy(tmp_path):
    path = write_clip(tmp_path / "v.mp4", num_frames=60, height=64, width=80, gop=12)
    found = recognition(path)
    damaged = bytearray(path.read_bytes())
    start = len(damaged) * 7 // 10
    damaged[start : start + len(damaged) // 10] = bytes(len(damaged) // 10)
    path.write_bytes(damaged)
    with pytest.raises(BadVideoError, match=r"v\.mp4 is damaged"):
        annotate(found, tmp_path / "copy.mp4")
    assert "There is no annotated copy: " in Copies(tmp_path, [str(path)]).write(found)
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]


def test_copies_never_take_a_place_that_is_taken(video, tmp_path):
    twin = write_clip(tmp_path / "v.annotated.mp4", num_frames=2, height=24, width=32, gop=2)
    before = twin.read_bytes()
    copies = Copies(tmp_path, [str(video), str(twin)])
    assert [copies.write(recognition(path)) for path in (video, twin)] == ["", ""]
    assert {file.name for file in tmp_path.iterdir()} == {
        "v.annotated.mp4", "v.annotated-2.mp4", "v.annotated.annotated.mp4",
    }  # fmt: skip
    assert twin.read_bytes() == before


def test_what_could_not_be_decoded_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"only a video that could be decoded can be annotated, received a\.mp4"):
        annotate(Recognition.failed("a.mp4", NAMES, "broken."), tmp_path / "x.mp4")
