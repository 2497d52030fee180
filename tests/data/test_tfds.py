"""TFDS in both directions, without TensorFlow: the builder of `motion`, and the reader of any set of video bytes."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxvid.data import DatasetError, open_dataset
from jaxvid.data.datasets.motion import make_motion, make_tfds, motion
from jaxvid.data.datasets.motion_classes import CLASS_NAMES
from jaxvid.data.datasets.motion_regions import read_regions
from jaxvid.data.decode import VideoReader


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "motion"
    return make_motion(folder, num_train_per_class=2, num_val_per_class=1, num_workers=0)


@pytest.fixture(scope="module")
def built(root):
    return make_tfds(root)


def written(folder, features, examples, name="other"):
    """A TFDS data set with one split, made as anybody would."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        code_path = None

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": iter(enumerate(examples))}

        def _generate_examples(self):
            raise NotImplementedError

    Builder.name = name
    builder = Builder(data_dir=str(folder), file_format="array_record")
    config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
    builder.download_and_prepare(download_dir=str(folder / "d"), download_config=config)
    return Path(builder.data_dir)


def test_motion_survives_the_way_through_tfds(root, built):
    for split, count in (("train", 24), ("val", 12)):
        packed, own = open_dataset("tfds", str(built), split), motion(str(root), split)
        assert len(packed) == len(own) == count
        assert packed.class_names == CLASS_NAMES
        by_name = {record.name: record for record in own}
        assert {record.name for record in packed} == set(by_name)  # TFDS orders by a hash of the key
        for place, record in enumerate(packed):
            source = by_name[record.name]
            assert record.id == place
            assert record.label == source.label
            assert record.video == Path(source.video).read_bytes()


def test_the_fine_set_goes_that_way_too(tmp_path):
    sizes = {"num_train_per_class": 1, "num_val_per_class": 1}
    root = make_motion(tmp_path / "fine", name="motion_fine", **sizes, num_workers=0)
    built = make_tfds(root, name="motion_fine")
    assert built == root / "tfds" / "motion_fine" / "1.0.0"
    packed, own = open_dataset("tfds", str(built), "val"), open_dataset("motion_fine", str(root), "val")
    assert packed.class_names == own.class_names
    assert {(r.name, r.label) for r in packed} == {(r.name, r.label) for r in own}


def test_regions_are_a_feature(root, built):
    source = tfds.builder_from_directory(str(built)).as_data_source(split="val")
    regions = read_regions(root, "val")
    example = source[5]
    assert (example["boxes"] == regions.boxes[regions.index(example["name"].decode())]).all()


def test_bytes_decode(built):
    with VideoReader(open_dataset("tfds", str(built), "val")[0].video) as reader:
        assert reader.read([0, 17]).shape == (2, 72, 80, 3)


def test_records_are_random_access_and_picklable(built):
    dataset = open_dataset("tfds", str(built), "train")
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[7] == dataset[7]
    assert dataset[-1].id == 23
    assert len(pickle.dumps(dataset)) < 2000  # no video travels
    with pytest.raises(IndexError, match=r"index must lie in \[0, 24\), received 24"):
        dataset[24]


def test_splits_are_written_in_the_language_of_tfds(built):
    first, rest = (open_dataset("tfds", str(built), split) for split in ("train[:25%]", "train[25%:]"))
    whole = open_dataset("tfds", str(built), "train")
    assert (len(first), len(rest)) == (6, 18)
    assert [r.name for r in first] + [r.name for r in rest] == [r.name for r in whole]
    assert [r.id for r in rest] == list(range(18))


def test_the_root_may_lie_above(root, built, tmp_path):
    assert open_dataset("tfds", str(root / "tfds"), "val")[0] == open_dataset("tfds", str(built), "val")[0]
    with pytest.raises(DatasetError, match="must hold one TFDS data set"):
        open_dataset("tfds", str(tmp_path), "val")


def test_making_it_again_replaces_it(root, built):
    (built / "features.json").write_text("{}")
    assert make_tfds(root) == built
    assert len(open_dataset("tfds", str(built), "val")) == 12


def test_other_sets_of_bytes(tmp_path):
    features = {
        "clip": tfds.features.Tensor(shape=(), dtype=np.object_),
        "action": tfds.features.ClassLabel(names=["run", "walk"]),
    }
    folder = written(tmp_path, features, [{"clip": b"\x00one", "action": 1}, {"clip": b"two\xff", "action": 0}])
    dataset = open_dataset("tfds", str(folder), "train")
    assert dataset.class_names == ("run", "walk")
    assert {(r.video, r.label) for r in dataset} == {(b"\x00one", 1), (b"two\xff", 0)}
    assert dataset[1].name == "train-00000001"


def test_features_that_leave_a_choice_must_be_named(tmp_path):
    label = tfds.features.ClassLabel(names=["a", "b"])
    features = {"one": tfds.features.Text(), "two": tfds.features.Text(), "fine": label, "coarse": label}
    example = {"one": b"1", "two": b"2", "fine": 0, "coarse": 1}
    folder = str(written(tmp_path, features, [example]))
    with pytest.raises(DatasetError, match="annotations='VIDEO,LABEL' names the features"):
        open_dataset("tfds", folder, "train")
    record = open_dataset("tfds", folder, "train", annotations="two,coarse,one")[0]
    assert (record.video, record.label, record.name) == (b"2", 1, "1")
    with pytest.raises(DatasetError, match=r"a feature of annotations must be among .* received 'three'"):
        open_dataset("tfds", folder, "train", annotations="three,coarse")
    with pytest.raises(ValueError, match="annotations must be VIDEO,LABEL or VIDEO,LABEL,NAME"):
        open_dataset("tfds", folder, "train", annotations="two")


def test_what_is_wrong_is_said(built):
    with pytest.raises(DatasetError, match="split must be made of train, val, received 'test'"):
        open_dataset("tfds", str(built), "test")
    with pytest.raises(ValueError, match="val_fraction must be 0 for tfds"):
        open_dataset("tfds", str(built), "train", val_fraction=0.1)


def test_a_damaged_description_is_named(tmp_path):
    (tmp_path / "features.json").write_text("{")
    with pytest.raises(DatasetError, match="must hold a TFDS data set"):
        open_dataset("tfds", str(tmp_path), "train")


def test_neither_way_brings_tensorflow_or_prints(root, tmp_path):
    program = (
        "import json, sys\nfrom jaxvid.data import open_dataset\n"
        "from jaxvid.data.datasets.motion import make_tfds\n"
        "n = len(open_dataset('tfds', str(make_tfds(sys.argv[1])), 'val'))\n"
        "print(json.dumps([n, [m for m in ('tensorflow', 'torch') if m in sys.modules]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, root], capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout) == [12, []], done.stderr
