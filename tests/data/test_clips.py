"""Clips and views of one record, seen through a reader whose pixels tell where they come from."""

import dataclasses

import numpy as np
import pytest

from jaxvid.data import clips as module
from jaxvid.data.augment import resized_size
from jaxvid.data.clips import EvalClips, TrainClips, clip_rng, epoch_order, load_clip, load_views
from jaxvid.data.records import VideoRecord


class FakeReader:
    """50 frames of 40 x 60 pixels. A pixel holds (number of the frame, row, column) of the resized frame."""

    opened = 0

    def __init__(self, video, *, start=None, end=None):
        assert video == "fake.mp4"
        self.num_frames = 50 if start is None else int(10 * (end - start))
        FakeReader.opened += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        FakeReader.opened -= 1

    def read(self, indices, *, short_side):
        height, width = resized_size(40, 60, short_side)
        frame = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
        numbers = np.broadcast_to(np.reshape(indices, (-1, 1, 1, 1)), (len(indices), height, width, 1))
        return np.concatenate([numbers, np.broadcast_to(frame, (*numbers.shape[:3], 2))], axis=-1).astype(np.uint8)


@pytest.fixture(autouse=True)
def _fake_reader(monkeypatch):
    FakeReader.opened = 0
    monkeypatch.setattr(module, "VideoReader", FakeReader)
    yield
    assert FakeReader.opened == 0, "every reader is closed"


def record(id: int = 0, **fields) -> VideoRecord:
    return VideoRecord(id=id, label=1, video="fake.mp4", name="fake.mp4", **fields)


TRAIN = TrainClips(4, 3, "random", (20, 24), 16, flip=True, mirror=(0, 2, 1))
EVAL = EvalClips(4, 3, num_clips=2, num_crops=3, short_side=20, crop_size=16)


def test_all_frames_of_a_clip_have_one_place_one_size_and_one_flip():
    flips, corners, starts = set(), set(), set()
    for id in range(40):
        video, label = load_clip(record(id), TRAIN, seed=0, epoch=0)
        assert video.shape == TRAIN.shape == (4, 16, 16, 3)
        numbers, rows, columns = np.moveaxis(video.astype(int), -1, 0)
        assert (numbers == numbers[:, :1, :1]).all()
        assert (np.diff(numbers[:, 0, 0]) == 3).all()
        assert (rows == rows[:1, :, :1]).all()
        assert (np.diff(rows[0, :, 0]) == 1).all()
        assert (columns == columns[:1, :1]).all()
        direction = set(np.diff(columns[0, 0]))
        assert direction in ({1}, {-1})
        flipped = direction == {-1}
        assert label == (2 if flipped else 1)
        flips.add(flipped)
        corners.add((rows.min(), columns.min()))
        starts.add(numbers[0, 0, 0])
    assert flips == {True, False}
    assert len(corners) > 15
    assert len(starts) > 15


def test_a_clip_is_a_function_of_seed_epoch_and_id():
    def clip(id, seed, epoch):
        return load_clip(record(id), TRAIN, seed=seed, epoch=epoch)[0]

    reference = clip(3, 1, 2)
    np.testing.assert_array_equal(reference, clip(3, 1, 2))
    for other in [(4, 1, 2), (3, 2, 2), (3, 1, 3), (2, 1, 3), (1, 3, 2)]:
        assert not np.array_equal(reference, clip(*other))


def test_without_flip_no_clip_is_mirrored_and_the_rest_stays_as_it_is():
    unflipped = TrainClips(4, 3, "random", (20, 24), 16)
    for id in range(12):
        video, label = load_clip(record(id), unflipped, seed=0, epoch=0)
        other, _ = load_clip(record(id), TRAIN, seed=0, epoch=0)
        assert label == 1
        assert video[0, 0, 0, 2] < video[0, 0, 1, 2]
        np.testing.assert_array_equal(np.sort(video, axis=2), np.sort(other, axis=2))


def test_a_flip_of_flow_mirrors_its_direction_too():
    """The reader's first channel is the frame's number, which a flip negates around 128; the others are as ever."""
    flow = dataclasses.replace(TRAIN, modality="flow")
    flips = set()
    for id in range(12):
        (video, label), (other, same) = (load_clip(record(id), clips, seed=0, epoch=0) for clips in (TRAIN, flow))
        assert label == same
        flips.add(flipped := label == 2)
        np.testing.assert_array_equal(other[..., 1:], video[..., 1:])
        expected = np.where(video[..., 0] == 0, 255, 256 - video[..., 0].astype(int)) if flipped else video[..., 0]
        np.testing.assert_array_equal(other[..., 0], expected)
    assert flips == {True, False}
    with pytest.raises(ValueError, match="modality must be one of rgb, flow, received modality='depth'"):
        dataclasses.replace(TRAIN, modality="depth")


def test_a_flip_without_a_mirror_keeps_the_label():
    flipping = TrainClips(4, 3, "random", (20, 24), 16, flip=True)
    assert {load_clip(record(id), flipping, seed=0, epoch=0)[1] for id in range(12)} == {1}


def test_short_sides_are_drawn_from_the_closed_range(monkeypatch):
    seen = []
    read = FakeReader.read
    monkeypatch.setattr(
        FakeReader,
        "read",
        lambda self, i, *, short_side: seen.append(short_side) or read(self, i, short_side=short_side),
    )
    for id in range(60):
        load_clip(record(id), TRAIN, seed=0, epoch=0)
    assert set(seen) == {20, 21, 22, 23, 24}


def test_views_are_stretches_times_crops_in_that_order():
    views = load_views(record(), EVAL)
    assert views.shape == EVAL.shape == (6, 4, 16, 16, 3)
    assert views.dtype == np.uint8
    assert views[:, :, 0, 0, 0].tolist() == [[0, 3, 6, 9]] * 3 + [[40, 43, 46, 49]] * 3
    assert views[:, 0, 0, 0, 1].tolist() == [2] * 6
    assert views[:, 0, 0, 0, 2].tolist() == [0, 7, 14] * 2


def test_views_of_a_stretch_of_a_video():
    views = load_views(record(start=1.0, end=2.0), EvalClips(4, 3, 1, 1, 20, 16))
    assert views[0, :, 0, 0, 0].tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize(
    ("order", "expected"), [("reversed", [29, 26, 23, 20]), ("frozen", [26] * 4), ("natural", [20, 23, 26, 29])]
)
def test_views_in_another_order(order, expected):
    views = load_views(record(), EvalClips(4, 3, 1, 1, 20, 16, frame_order=order))
    assert views[0, :, 0, 0, 0].tolist() == expected


def test_shuffled_views_hold_the_same_frames_and_follow_the_seed():
    shuffled = EvalClips(8, 2, 1, 1, 20, 16, frame_order="shuffled")
    natural = load_views(record(), EvalClips(8, 2, 1, 1, 20, 16))
    one, same, other = (load_views(record(), shuffled, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, natural)
    np.testing.assert_array_equal(np.sort(one, axis=1), natural)


def test_views_follow_the_sampler_of_the_training():
    views = load_views(record(), EvalClips(5, 1, 1, 1, 20, 16, sampler="segments"))
    assert views[0, :, 0, 0, 0].tolist() == [5, 15, 25, 35, 45]


def test_the_order_of_an_epoch_is_a_permutation_of_its_own():
    orders = [epoch_order(seed, epoch, 50) for seed in (0, 1) for epoch in (0, 1, 2)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(50))
    assert len({tuple(order) for order in orders}) == 6
    assert epoch_order(0, 0, 1).tolist() == [0]


def test_orders_and_clips_never_change_between_versions():
    """Literals: a run that is resumed with another NumPy must go on with the same data."""
    assert epoch_order(0, 0, 8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert clip_rng(0, 0, 0).integers(1000, size=4).tolist() == [975, 813, 297, 751]


def test_every_record_comes_first_equally_often():
    first = np.bincount([epoch_order(0, epoch, 6)[0] for epoch in range(1200)], minlength=6)
    assert np.sum((first - 200) ** 2 / 200) < 20.5  # 99.9 % quantile of chi-square with 5 degrees of freedom


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_the_seed_is_checked(seed):
    with pytest.raises(ValueError, match=rf"seed must be >= 0 and < 2\*\*64, received seed={seed}"):
        clip_rng(seed, 0, 0)
    clip_rng(2**64 - 1, 0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 0}, "num_frames must be >= 1, received num_frames=0"),
        ({"frame_stride": 0}, "frame_stride must be >= 1"),
        ({"crop_size": 0}, "crop_size must be >= 1"),
        ({"sampler": "regular"}, "sampler must be one of random, normal, segments, uniform, dense, received"),
        (
            {"short_side": (15, 20)},
            r"short_side must be \(low, high\).*received short_side=\(15, 20\) and crop_size=16",
        ),
        ({"short_side": (24, 20)}, "short_side must be"),
        ({"mirror": (1, 2, 0)}, r"mirror must exchange pairs of classes.*received \(1, 2, 0\)"),
        ({"mirror": (0, 3)}, "mirror must exchange"),
    ],
)
def test_training_clips_are_checked(change, message):
    fields = {"num_frames": 4, "frame_stride": 1, "sampler": "random", "short_side": (20, 24), "crop_size": 16}
    TrainClips(**fields)
    with pytest.raises(ValueError, match=message):
        TrainClips(**(fields | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 0}, "num_frames must be >= 1"),
        ({"num_clips": 0}, "num_clips must be >= 1, received num_clips=0"),
        ({"num_crops": 2}, "num_crops must be one of 1, 3, received num_crops=2"),
        ({"crop_size": 21}, "crop_size must be <= short_side, received crop_size=21 and short_side=20"),
        ({"frame_order": "random"}, "frame_order must be one of natural, shuffled, reversed, frozen, received"),
        ({"sampler": "x"}, "sampler must be one of"),
    ],
)
def test_evaluation_clips_are_checked(change, message):
    fields = {"num_frames": 4, "frame_stride": 1, "num_clips": 1, "num_crops": 1, "short_side": 20, "crop_size": 16}
    EvalClips(**fields)
    with pytest.raises(ValueError, match=message):
        EvalClips(**(fields | change))
