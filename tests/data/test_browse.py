"""The contact sheet holds the very pixels that the network gets."""

import numpy as np
import pytest
from PIL import Image

from jaxvid.data.browse import contact_sheet
from jaxvid.data.clips import EvalClips, TrainClips, epoch_order, load_clip, load_views
from jaxvid.data.records import VideoDataset, VideoRecord

CROP = 32
ZOOM = 4  # 112 / 32, rounded to even
TRAIN = TrainClips(8, 1, "random", (40, 48), CROP, flip=True, mirror=(1, 0))
EVAL = EvalClips(8, 1, num_clips=1, num_crops=1, short_side=40, crop_size=CROP)


@pytest.fixture(scope="module")
def dataset(encode):
    names = ("to the left", "to the right")
    data = [encode(n) for n in (12, 20, 30)]
    records = tuple(VideoRecord(k, k % 2, video, f"clips/{k}.mp4") for k, video in enumerate(data))
    return VideoDataset("mine", "train", names, records)


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def found(sheet, frame):
    """Whether an enlarged frame is in the sheet, at any place."""
    big = frame.repeat(ZOOM, 0).repeat(ZOOM, 1)
    corner = (sheet[: -len(big) + 1, : -big.shape[1] + 1] == big[0, 0]).all(-1)
    return any(
        (sheet[top : top + len(big), left : left + big.shape[1]] == big).all() for top, left in np.argwhere(corner)
    )


def test_training_clips_are_drawn_as_a_run_sees_them(dataset, tmp_path):
    path = contact_sheet(dataset, TRAIN, tmp_path / "new" / "sheet.png", seed=5, rows=2, columns=3)
    sheet = pixels(path)
    step = CROP * ZOOM + 4
    assert sheet.shape == (34 + 2 * step, 230 + 3 * step, 3)
    first, second, left_out = epoch_order(5, 0, 3)
    for index in (first, second):
        video, _ = load_clip(dataset[int(index)], TRAIN, seed=5, epoch=0)
        assert all(found(sheet, video[k]) for k in (0, 4, 7))
    video, _ = load_clip(dataset[int(left_out)], TRAIN, seed=5, epoch=0)
    assert not found(sheet, video[0])


def test_evaluation_clips_too(dataset, tmp_path):
    sheet = pixels(contact_sheet(dataset, EVAL, tmp_path / "sheet.png", rows=3, columns=2))
    for record in dataset:
        assert found(sheet, load_views(record, EVAL)[0, -1])


def test_the_same_seed_draws_the_same_picture(dataset, tmp_path):
    one, same, other = (pixels(contact_sheet(dataset, TRAIN, tmp_path / "s.png", seed=s)) for s in (1, 1, 2))
    assert (one == same).all()
    assert not np.array_equal(one, other)


def test_fewer_videos_and_frames_than_asked_for(dataset, tmp_path):
    sheet = pixels(contact_sheet(dataset, TRAIN, tmp_path / "s.png", rows=50, columns=50))
    step = CROP * ZOOM + 4
    assert sheet.shape == (34 + 3 * step, 230 + 8 * step, 3)


def test_a_bad_video_is_black_and_says_why(dataset, tmp_path):
    records = (VideoRecord(0, 0, b"no video", "odd \udcff $name$.mp4"),)
    bad = VideoDataset("mine", "train", dataset.class_names, records)
    sheet = pixels(contact_sheet(bad, TRAIN, tmp_path / "s.png", columns=4))
    row = sheet[60:140, 232:340]
    assert (row == 0).all(-1).mean() > 0.5
    assert (sheet[36:60, 232:] > 200).all(-1).any()  # white letters


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"columns": -1}])
def test_wrong_numbers(dataset, tmp_path, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be >= 1, received"):
        contact_sheet(dataset, TRAIN, tmp_path / "s.png", **wrong)


def test_an_empty_split(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"len\(dataset\) must be >= 1"):
        contact_sheet(VideoDataset("mine", "val", ("a",), ()), TRAIN, tmp_path / "s.png")
