"""`check_dataset`: counts, spreads, broken videos with reasons, and what is there twice."""

import json
import os

import numpy as np
import pytest

from jaxvid.data import parallel
from jaxvid.data.check import BrokenVideo, Spread, check_dataset, check_video
from jaxvid.data.records import VideoDataset, VideoRecord


def drawn(seed):
    """Pictures that differ from seed to seed and hardly from frame to frame."""

    def draw(k, height, width):
        coarse = np.random.default_rng(seed).integers(0, 230, (8, 10, 3), np.uint8)
        return coarse.repeat(height // 8, 0).repeat(width // 10, 1) + np.uint8(k % 20)

    return draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encode):
    folder = tmp_path_factory.mktemp("videos")
    for name, options in {
        "a": {"n": 10, "draw": drawn(1)},
        "b": {"n": 20, "draw": drawn(2), "size": (96, 80)},
        "c": {"n": 30, "draw": drawn(3), "rate": 10},
        "d": {"n": 10, "draw": drawn(4)},
        "a_again": {"n": 10, "draw": drawn(1), "crf": 33, "size": (128, 160)},
    }.items():
        (folder / f"{name}.mp4").write_bytes(encode(**options))
    (folder / "a_copy.mp4").write_bytes((folder / "a.mp4").read_bytes())
    (folder / "cut.mp4").write_bytes((folder / "c.mp4").read_bytes()[:900])
    (folder / "text.mp4").write_text("no video")
    return folder


def dataset(folder, split, names, classes=("run", "walk", "none")):
    records = []
    for name in names:
        name, *stretch = name.split("@")
        start, end = (float(t) for t in stretch[0].split("-")) if stretch else (None, None)
        path = str(folder / f"{name}.mp4")
        records.append(VideoRecord(len(records), len(records) % 2, path, f"{name}.mp4", start, end))
    return VideoDataset("mine", split, classes, tuple(records))


def test_a_sound_split(folder):
    report = check_dataset(dataset(folder, "train", "abc"), num_workers=0)
    (split,) = report.splits
    assert (split.dataset, split.split, split.num_videos, split.num_broken) == ("mine", "train", 3, 0)
    assert split.class_counts == {"run": 2, "walk": 1, "none": 0}
    assert split.num_frames == Spread(10, 20, 30)
    assert (split.duration.min, split.duration.median, split.duration.max) == pytest.approx((0.4, 0.8, 3.0))
    assert split.fps == Spread(10, 25, 25)
    assert split.height == Spread(64, 64, 96)
    assert (report.broken, report.duplicates, report.near_duplicates) == ((), (), ())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_videos_are_named_with_their_reasons(folder, num_workers):
    calls = []
    splits = [dataset(folder, "train", ["a", "cut", "b"]), dataset(folder, "val", ["text", "gone"])]
    report = check_dataset(splits, num_workers=num_workers, progress=lambda *call: calls.append(call))
    assert calls == [(k, 5) for k in range(1, 6)]
    assert [(b.split, b.name) for b in report.broken] == [
        ("train", "cut.mp4"),
        ("val", "text.mp4"),
        ("val", "gone.mp4"),
    ]
    assert all(b.name in b.error for b in report.broken)
    assert [split.num_broken for split in report.splits] == [1, 2]
    assert report.splits[0].num_frames == Spread(10, 15, 20)
    assert report.splits[1].num_frames == Spread(0, 0, 0)
    assert report.splits[1].class_counts["run"] == 1  # broken ones count: the set's size does not change


def test_damage_in_the_middle_is_found_though_nothing_reads_there_in_a_run(folder, tmp_path):
    data = bytearray((folder / "b.mp4").read_bytes())
    start = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[start : start + 400] = os.urandom(400)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    assert check_video(VideoRecord(0, 0, str(path), "damaged.mp4")).error


def test_identical_files_are_leaks_only_across_splits(folder):
    splits = [dataset(folder, "train", ["a", "b", "d"]), dataset(folder, "val", ["c", "a_copy"])]
    report = check_dataset(splits, num_workers=0)
    assert report.duplicates == report.leaks == (("train: a.mp4", "val: a_copy.mp4"),)
    assert report.near_duplicates == ()  # said already
    within = check_dataset(dataset(folder, "train", ["a", "a_copy"]), num_workers=0)
    assert within.duplicates == (("train: a.mp4", "train: a_copy.mp4"),)
    assert within.leaks == ()


def test_stretches_of_one_file_are_not_identical(folder):
    one = dataset(folder, "train", ["c@0-1", "c@1-2"])
    assert check_dataset(one, num_workers=0).duplicates == ()
    other = dataset(folder, "val", ["c@0-1"])
    assert check_dataset([one, other], num_workers=0).leaks == (("train: c.mp4", "val: c.mp4"),)
    assert check_dataset(one, num_workers=0).splits[0].num_frames == Spread(10, 10, 10)


def test_another_encoding_looks_alike(folder):
    splits = [dataset(folder, "train", ["a", "b"]), dataset(folder, "val", ["c", "a_again"])]
    report = check_dataset(splits, num_workers=0)
    assert report.duplicates == ()
    assert report.near_duplicates == (("train: a.mp4", "val: a_again.mp4"),)


def test_videos_as_bytes(folder):
    data = (folder / "a.mp4").read_bytes()
    records = (VideoRecord(0, 0, data, "one"), VideoRecord(1, 0, data, "two"))
    report = check_dataset(VideoDataset("packed", "train", ("run",), records), num_workers=0)
    assert report.duplicates == (("train: one", "train: two"),)


def test_a_decoder_that_kills_its_process_is_a_broken_video(folder, monkeypatch):
    def dies(function, items, *, num_workers):
        for index in range(len(items)):
            items[index]
            yield index, parallel.WorkerDiedError("a process died over this item (exit code -11).")

    monkeypatch.setattr("jaxvid.data.check.map_unordered", dies)
    report = check_dataset(dataset(folder, "train", "a"))
    assert report.broken == (BrokenVideo("train", "a.mp4", "a process died over this item (exit code -11).", None),)


def test_text_and_json(folder):
    splits = [dataset(folder, "train", ["a", "cut"]), dataset(folder, "val", ["a_copy"])]
    report = check_dataset(splits, num_workers=0)
    text = report.to_text()
    for part in (
        "mine, split 'train': 2 videos, 1 of them broken",
        "3 classes: run 1, walk 1, none 0",
        "1 broken videos:\n  train: cut.mp4: ",
        "1 identical videos in different splits:\n  train: a.mp4 = val: a_copy.mp4",
        "0 identical videos in one split",
    ):
        assert part in text
    decoded = json.loads(json.dumps(report.to_json()))
    assert decoded["splits"][0]["duration"] == pytest.approx({"min": 0.4, "median": 0.4, "max": 0.4})
    assert decoded["broken"][0]["name"] == "cut.mp4"


def test_no_records_and_equal_splits(folder):
    empty = check_dataset(dataset(folder, "train", []), num_workers=0)
    assert empty.splits[0].num_videos == 0
    assert empty.splits[0].duration == Spread(0, 0, 0)
    with pytest.raises(ValueError, match="splits must differ from each other"):
        check_dataset([dataset(folder, "train", "a")] * 2, num_workers=0)
