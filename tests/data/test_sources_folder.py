"""Folders of classes: layouts, the held-out part, and everything that can be wrong with them."""

import logging
import os

import pytest

from jaxvid.data import open_dataset
from jaxvid.data.records import DatasetError
from jaxvid.data.sources.folder import read_folder


def fill(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return str(root)


def names(dataset):
    return [record.name for record in dataset]


def test_splits_are_folders(tmp_path):
    root = fill(
        tmp_path,
        "train/run/b.mp4",
        "train/run/a.AVI",
        "train/jump/c.webm",
        "val/run/x.mkv",
        "test/jump/y.mov",
        "README.md",
    )
    train = open_dataset("folder", root, "train", annotations="", val_fraction=0.0)
    assert train.class_names == ("jump", "run")
    assert names(train) == ["train/jump/c.webm", "train/run/a.AVI", "train/run/b.mp4"]
    assert [record.label for record in train] == [0, 1, 1]
    assert [record.id for record in train] == [0, 1, 2]
    assert train[0].video == os.path.join(root, "train/jump/c.webm")
    val = read_folder(root, "val")
    assert val.class_names == train.class_names, "also when a class has no clip in val"
    assert [(r.name, r.label) for r in val] == [("val/run/x.mkv", 1)]
    assert names(read_folder(root, "test")) == ["test/jump/y.mov"]


def many(root, **counts):
    return fill(root, *(f"{c}/{k:03d}.mp4" for c, n in counts.items() for k in range(n)))


def test_held_out_part_is_stratified_disjoint_and_fixed(tmp_path):
    root = many(tmp_path, a=20, b=10, c=2, d=1)
    train, val = (read_folder(root, split, val_fraction=0.2) for split in ("train", "val"))
    assert sorted(names(train) + names(val)) == sorted(
        f"{c}/{k:03d}.mp4" for c, n in zip("abcd", (20, 10, 2, 1), strict=True) for k in range(n)
    )
    assert [sum(r.label == k for r in val) for k in range(4)] == [4, 2, 1, 0]
    assert [sum(r.label == k for r in train) for k in range(4)] == [16, 8, 1, 1]
    assert train.class_names == val.class_names == ("a", "b", "c", "d")
    assert names(val) == names(read_folder(root, "val", val_fraction=0.2))
    assert names(val) != names(read_folder(root, "val", val_fraction=0.2, seed=1))
    assert names(val) != sorted(names(val))[:7] or names(val)[:4] != [f"a/{k:03d}.mp4" for k in range(4)], (
        "not the first"
    )


def test_the_part_depends_on_names_only_and_grows_with_the_fraction(tmp_path):
    small = many(tmp_path / "one", a=20)
    other = many(tmp_path / "two", a=20, b=5)
    chosen = [set(names(read_folder(root, "val", val_fraction=0.2))) for root in (small, other)]
    assert chosen[0] == {name for name in chosen[1] if name.startswith("a/")}
    assert chosen[0] < set(names(read_folder(small, "val", val_fraction=0.5)))


def test_held_out_of_a_train_folder(tmp_path):
    root = fill(tmp_path, *(f"train/a/{k}.mp4" for k in range(10)))
    train, val = (read_folder(root, split, val_fraction=0.3) for split in ("train", "val"))
    assert (len(train), len(val)) == (7, 3)
    assert all(name.startswith("train/a/") for name in names(val))


def test_another_name_for_training_and_classes_named_like_splits(tmp_path):
    root = fill(tmp_path, "fit/a/1.mp4", "val/a/2.mp4")
    assert names(read_folder(root, "fit", train_split="fit")) == ["fit/a/1.mp4"]
    assert names(read_folder(root, "val", train_split="fit")) == ["val/a/2.mp4"]
    other = many(tmp_path / "vehicles", train=4, plane=4)
    assert read_folder(other, "train", val_fraction=0.25).class_names == ("plane", "train")


@pytest.mark.parametrize(
    ("files", "split", "options", "match"),
    [
        ((), "train", {}, r"must hold at least 1 video as CLASS/FILE, received 0"),
        (("train/a/x.txt",), "train", {}, r"train.a: a class must hold at least 1 video, received 0"),
        (("train/a/1.mp4", "val/a/.keep"), "val", {}, "split 'val' must hold at least 1 video"),
        (("train/a/1.mp4", "val/b/1.mp4"), "val", {}, "val.b: a class of split 'val' must also be one of 'train'"),
        (("train/a/1.mp4", "train/2.mp4"), "train", {}, "train.2.mp4: a video must lie in its class's folder"),
        (("train/a/1.mp4", "train/a/deep/2.mp4"), "train", {}, "must hold its videos directly, received a folder"),
        (("a/1.mp4",), "val", {}, "split 'val' must be a folder of .*, or 'val' with val_fraction > 0"),
        (("train/a/1.mp4",), "test", {"val_fraction": 0.5}, "split 'test' must be a folder"),
        (("val/a/1.mp4",), "val", {}, "train must exist beside 'val': its folders are the class names"),
        (("train/a/1.mp4",), "val", {"val_fraction": 0.5}, "split 'val' must hold at least 1 video"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(files, split, options, match, tmp_path):
    with pytest.raises(DatasetError, match=match):
        read_folder(fill(tmp_path, *files), split, **options)


def test_all_problems_come_at_once(tmp_path):
    root = fill(tmp_path, "train/a/1.mp4", "train/b/none.txt", "train/2.mp4", "val/c/1.mp4", "val/d/1.mp4")
    with pytest.raises(DatasetError, match=r"^4 problems:") as caught:
        read_folder(root, "val")
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"annotations": "a.csv"}, "annotations must not be given for 'folder' data, received annotations='a.csv'"),
        ({"val_fraction": 1.0}, r"val_fraction must lie in \[0, 1\), received val_fraction=1.0"),
        ({"val_fraction": -0.1}, r"val_fraction must lie in"),
        ({"val_fraction": 0.5}, r"val_fraction must be 0 when .*val exists"),
    ],
)
def test_options_that_make_no_sense(options, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        read_folder(fill(tmp_path, "train/a/1.mp4", "val/a/1.mp4"), "train", **options)


@pytest.mark.parametrize("root", ["", "/nowhere/at/all"])
def test_the_root_must_be_a_folder(root):
    with pytest.raises(DatasetError, match=r"data\.root must be"):
        read_folder(root, "train")


def test_stray_files_are_reported_and_hidden_ones_are_not(tmp_path, caplog):
    root = fill(
        tmp_path, "train/a/1.mp4", "train/a/notes.txt", "train/a/.DS_Store", "train/a/._1.mp4", "train/list.csv"
    )
    with caplog.at_level(logging.WARNING):
        assert len(read_folder(root, "train")) == 1
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("2 files are no videos")
    assert "notes.txt" in message


def test_stray_files_are_reported_once_for_all_splits(tmp_path, caplog):
    root = fill(tmp_path, *(f"run/{k}.mp4" for k in range(4)), "run/a.webp")
    with caplog.at_level(logging.WARNING):
        for split in ("train", "val", "train"):
            read_folder(root, split, val_fraction=0.5)
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("1 files are no videos")
    assert "a.webp" in message


def test_links_to_folders_and_odd_names(tmp_path):
    fill(tmp_path / "disk", "a/1.mp4")
    (tmp_path / "root" / "train").mkdir(parents=True)
    (tmp_path / "root" / "train" / "a").symlink_to(tmp_path / "disk" / "a")
    odd = os.fsdecode(b"caf\xe9 100% #1.mp4")
    (tmp_path / "disk" / "a" / odd).touch()
    dataset = read_folder(str(tmp_path / "root"), "train", val_fraction=0.5)
    assert len(dataset) == 1
    assert len(read_folder(str(tmp_path / "root"), "val", val_fraction=0.5)) == 1


def test_images_are_samples_where_there_are_no_videos(tmp_path):
    files = ("train/cat/b.JPG", "train/cat/a.png", "train/dog/c.jpeg", "val/dog/d.webp", "val/cat/e.bmp")
    train, val = (read_folder(fill(tmp_path, *files), split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("cat", "dog")
    assert [(r.name, r.label) for r in train] == [
        ("train/cat/a.png", 0),
        ("train/cat/b.JPG", 0),
        ("train/dog/c.jpeg", 1),
    ]
    assert [(r.name, r.label) for r in val] == [("val/cat/e.bmp", 0), ("val/dog/d.webp", 1)]
    assert train[2].video == os.path.join(tmp_path, "train", "dog", "c.jpeg")
    held_out = read_folder(fill(tmp_path / "flat", *(f"a/{k}.png" for k in range(10))), "val", val_fraction=0.3)
    assert len(held_out) == 3


def test_images_beside_videos_are_strays_and_so_are_videos_of_other_splits(tmp_path, caplog):
    root = fill(tmp_path, "train/a/1.mp4", "train/a/1.jpg", "train/sheet.png", "val/a/2.mp4", "val/a/2.jpg")
    with caplog.at_level(logging.WARNING):
        assert names(read_folder(root, "train")) == ["train/a/1.mp4"]
        assert names(read_folder(root, "val")) == ["val/a/2.mp4"]
    first, second = [record.message for record in caplog.records]
    assert first.startswith("2 files are no videos")
    assert second.startswith("1 files are no videos")
    root = fill(tmp_path / "other", "train/a/1.jpg", "train/demo.mp4", "val/a/2.jpg", "val/a/2.mp4")
    assert names(read_folder(root, "train")) == ["train/a/1.jpg"]
    assert names(read_folder(root, "val")) == ["val/a/2.jpg"]


@pytest.mark.parametrize(
    ("files", "split", "match"),
    [
        (("train/a/1.jpg", "train/b/x.txt"), "train", "train.b: a class must hold at least 1 image, received 0"),
        (("train/a/1.jpg", "train/b.png"), "train", "b.png: an image must lie in its class's folder"),
        (("train/a/1.jpg", "train/a/c/1.jpg"), "train", "must hold its images directly, received a folder"),
        (("train/a/1.jpg", "val/a/1.mp4"), "val", "split 'val' must hold at least 1 image as CLASS/FILE, received 0"),
    ],
)
def test_what_is_wrong_with_images_is_said(files, split, match, tmp_path):
    with pytest.raises(DatasetError, match=match):
        read_folder(fill(tmp_path, *files), split)
