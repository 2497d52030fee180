"""`digits` on disk: scikit-learn's pixels in real files, the split between two forms, whole or absent."""

import hashlib
import json
import sys

import numpy as np
import pytest
import sklearn.datasets

from jaxvid.data import DATASETS, DatasetError, open_dataset
from jaxvid.data.datasets import digits as digits_lib
from jaxvid.data.datasets.digits import NUM_TRAIN, SCALE, digits, encode, make_digits
from jaxvid.data.decode import VideoReader


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_digits(tmp_path_factory.mktemp("made") / "digits")


@pytest.fixture(scope="module")
def table():
    return sklearn.datasets.load_digits()


def row(record):
    return int(record.name.rsplit("/", 1)[1].removesuffix(".png"))


def test_counts_labels_and_a_disjoint_split(root):
    train, val = (open_dataset("digits", str(root), split) for split in ("train", "val"))
    assert (len(train), len(val)) == (1415, 382)
    assert train.class_names == val.class_names == tuple("0123456789")
    counts = [np.bincount([record.label for record in split]).tolist() for split in (train, val)]
    assert counts == [[140, 143, 140, 144, 142, 143, 142, 141, 139, 141], [38, 39, 37, 39, 39, 39, 39, 38, 35, 39]]
    assert [sum(record.label for record in split) for split in (train, val)] == [6358, 1712]
    assert sorted(map(row, train)) == list(range(1415))
    assert sorted(map(row, val)) == list(range(1415, 1797))
    assert [record.id for record in val] == list(range(382))


def test_pixels_and_labels_are_scikit_learns(root, table):
    assert SCALE * 16 <= 255
    for split in ("train", "val"):
        for record in list(digits(str(root), split))[::17]:
            with VideoReader(record.video) as reader:
                (picture,) = reader.read([0])
            assert (picture == picture[..., :1]).all()
            np.testing.assert_array_equal(picture[..., 0], 15 * table.images[row(record)])
            assert record.label == table.target[row(record)]


def test_the_split_lies_where_a_form_begins(table):
    """The labels are 14 times nearly one sequence; two of the forms begin with digits left out."""
    labels = "".join(map(str, table.target))
    form = labels[:130]
    starts = [at for at in range(len(labels)) if labels.startswith(form[:36], at)]
    assert starts == [0, 130, 256, 386, 516, 646, 776, 1029, 1157, 1287, 1415, 1667]
    assert NUM_TRAIN in starts
    assert labels[1415:1545] == form


def test_it_is_a_folder_data_set_too(root):
    for split in ("train", "val"):
        folder, own = DATASETS["folder"](str(root), split), DATASETS["digits"](str(root), split)
        assert folder.class_names == own.class_names
        assert [(r.label, r.video, r.name) for r in folder] == [(r.label, r.video, r.name) for r in own]


def digest(root):
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).digest() for path in root.rglob("*.*")}


def test_the_same_files_every_time_and_not_made_again(root, tmp_path, monkeypatch):
    assert digest(make_digits(tmp_path / "other")) == digest(root)
    monkeypatch.setattr(digits_lib, "_table", None)
    assert make_digits(root) == root
    assert len(digits(str(root), "val")) == 382


def test_made_at_the_first_use_in_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXVID_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match="must hold version 1 of digits, received None"):
        digits("", "train", make=False)
    assert digits("", "val")[0].video == str(tmp_path / "digits" / "val" / "0" / "1415.png")
    recipe = tmp_path / "digits" / "digits.json"
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"version": 0}))
    (tmp_path / "digits" / "val" / "0" / "1415.png").unlink()
    with pytest.raises(DatasetError, match="must hold version 1 of digits, received version 0"):
        digits("", "train", make=False)
    assert len(digits("", "val")) == 382
    (tmp_path / "digits" / "val" / "0" / "1415.png").unlink()
    with pytest.raises(DatasetError, match=r"1415\.png: must exist, received no file"):
        digits("", "val")


def test_another_table_is_refused(tmp_path, monkeypatch, table):
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda return_X_y: (table.data[::-1], table.target))
    with pytest.raises(DatasetError, match="scikit-learn's digits must have the sha256 6336d3aa"):
        make_digits(tmp_path / "digits")
    assert not (tmp_path / "digits").exists()


def test_without_scikit_learn_the_command_that_brings_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="the data set digits needs scikit-learn: pip install scikit-learn"):
        make_digits(tmp_path / "digits")


def test_options_that_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match="annotations and val_fraction must be empty and 0 for digits"):
        digits(str(tmp_path), "train", val_fraction=0.2)
    with pytest.raises(ValueError, match="split must be one of train, val for digits, received split='test'"):
        digits(str(tmp_path), "test")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="root must be absent, empty or a data set digits"):
        make_digits(tmp_path)


def test_a_picture_of_any_size():
    picture = np.random.default_rng(0).integers(0, 256, (5, 9), dtype=np.uint8)
    with VideoReader(encode(picture)) as reader:
        np.testing.assert_array_equal(reader.read([0])[0, ..., 1], picture)
