"""Records, data sets and the two errors."""

import pickle
import subprocess
import sys

import pytest

from jaxvid.data import DATASETS, open_dataset
from jaxvid.data.records import BadVideoError, DatasetError, VideoDataset, VideoRecord, describe


def record(id=0, label=0, **fields):
    return VideoRecord(id=id, label=label, video=f"/data/{id}.mp4", name=f"{id}.mp4", **fields)


def test_a_dataset_is_a_picklable_sequence():
    dataset = VideoDataset("folder", "train", ["a", "b"], [record(0), record(1, 1, start=0.5, end=2.0)])
    assert len(dataset) == 2
    assert dataset[1].end == 2.0
    assert [r.id for r in dataset] == [0, 1]
    assert dataset.class_names == ("a", "b")
    assert isinstance(dataset.records, tuple)
    assert pickle.loads(pickle.dumps(dataset)) == dataset


def test_lazy_records_are_left_alone():
    class Lazy:
        def __len__(self):
            return 10**9

        def __getitem__(self, index):
            return record(index)

    dataset = VideoDataset("tfds", "train", ("a",), Lazy())
    assert len(dataset) == 10**9
    assert dataset[123_456_789].id == 123_456_789


def test_labels_of_other_class_names():
    dataset = VideoDataset("folder", "val", ("b", "a"), [record(0), record(1, 1, end=2.0)])
    other = dataset.relabelled(["a", "x", "b"])
    assert other.class_names == ("a", "x", "b")
    assert [(r.id, r.label, r.end) for r in other] == [(0, 2, None), (1, 0, 2.0)]
    assert pickle.loads(pickle.dumps(other)) == other
    with pytest.raises(ValueError, match=r"among 2 given names, received 'b', which is not, and 0 others\.$"):
        dataset.relabelled(("a", "x"))


def test_a_record_shows_no_bytes():
    assert "xx" not in repr(VideoRecord(0, 0, b"xx" * 1000, "key"))
    assert describe(b"abc") == "<3 bytes>"
    assert describe("a.mp4") == "a.mp4"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"id": -1}, "id and label must be >= 0, received id=-1"),
        ({"label": -1}, "label=-1"),
        ({"start": -0.1}, "0 <= start < end"),
        ({"start": 2.0, "end": 2.0}, "received start=2.0, end=2.0"),
        ({"end": 0.0}, "0 <= start < end"),
        ({"start": float("inf")}, "0 <= start < end"),
        ({"start": float("nan")}, "0 <= start < end"),
    ],
)
def test_a_record_is_checked(fields, match):
    with pytest.raises(ValueError, match=match):
        record(**fields)


@pytest.mark.parametrize(
    ("class_names", "records", "match"),
    [
        (("a", "a"), (), "received 'a' more than once"),
        (("a",), (record(1),), r"position 0, received id=1 \(1.mp4\)"),
        (("a",), (record(0, 1),), r"label must be < 1, the number of classes, received label=1 \(0.mp4\)"),
    ],
)
def test_a_dataset_is_checked(class_names, records, match):
    with pytest.raises(ValueError, match=match):
        VideoDataset("x", "train", class_names, records)


def test_dataset_error_lists_the_first_problems_and_the_total():
    problems = [f"train.csv:{n}: label must not be empty" for n in range(1, 26)]
    error = DatasetError(problems)
    lines = str(error).splitlines()
    assert lines[0] == "25 problems:"
    assert lines[1:21] == [f"  {problem}" for problem in problems[:20]]
    assert lines[21:] == ["  ... and 5 more"]
    assert error.problems == tuple(problems)
    assert str(DatasetError("one")) == "one"
    assert isinstance(error, ValueError)


def test_errors_survive_pickling():
    bad = pickle.loads(pickle.dumps(BadVideoError("a.mp4 is damaged.", path="a.mp4", frame=3)))
    assert (str(bad), bad.path, bad.frame) == ("a.mp4 is damaged.", "a.mp4", 3)
    error = pickle.loads(pickle.dumps(DatasetError(["x", "y"])))
    assert error.problems == ("x", "y")
    assert str(error) == "2 problems:\n  x\n  y"


def test_datasets_is_read_only_and_names_are_helped():
    with pytest.raises(TypeError):
        DATASETS["mine"] = print
    assert {"folder", "srtg_csv", "kinetics", "ucf101", "hmdb51", "tfds", "motion"} <= set(DATASETS)
    with pytest.raises(ValueError, match=r"received 'kinetic'; did you mean 'kinetics'"):
        open_dataset("kinetic", "", "train")
    with pytest.raises(ValueError, match="the names are digits, folder, hmdb51"):
        open_dataset("zzz", "", "train")


def test_importing_the_room_is_light():
    """Neither jax nor a decoder nor TFDS: a worker process and `jaxvid --help` pay for nothing that they do not use."""
    heavy = {"jax", "flax", "av", "grain", "tensorflow_datasets"}
    code = f"import sys, jaxvid.data; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
