"""`motion` on disk: real files, the same every time, whole or absent, and the regions beside them."""

import hashlib
import json
import logging
import subprocess
import sys
import threading

import av
import numpy as np
import pytest

from jaxvid.data import DATASETS, DatasetError
from jaxvid.data.datasets import motion as motion_lib
from jaxvid.data.datasets.motion import make_motion, motion
from jaxvid.data.datasets.motion_classes import CLASS_NAMES
from jaxvid.data.datasets.motion_courses import NUM_FRAMES
from jaxvid.data.datasets.motion_files import FPS, ClipJob, boxes, draw_clip, encode, make_clip
from jaxvid.data.datasets.motion_fine_classes import MOTION_FINE
from jaxvid.data.datasets.motion_regions import read_regions
from jaxvid.data.datasets.motion_scene import HEIGHT, WIDTH
from jaxvid.data.decode import VideoReader

SIZES = {"num_train_per_class": 2, "num_val_per_class": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_motion(tmp_path_factory.mktemp("made") / "motion", **SIZES, num_workers=0)


def digest(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_labels_and_ids(root):
    train, val = motion(str(root), "train"), motion(str(root), "val")
    assert (len(train), len(val)) == (24, 12)
    assert train.class_names == val.class_names == CLASS_NAMES
    assert [record.id for record in train] == list(range(24))
    assert [record.label for record in train] == [label for label in range(12) for _ in range(2)]
    assert train[3].name == f"train/{CLASS_NAMES[1]}/0001.mp4"
    assert train[3].video == str(root / train[3].name)


def test_files_are_h264_and_hold_what_was_drawn(root):
    record = motion(str(root), "val")[7]
    with av.open(record.video) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == FPS
        keys = [packet.is_keyframe for packet in container.demux(stream) if packet.size]
    assert (
        2 <= sum(keys) <= NUM_FRAMES // 3
    )  # one a second and at cuts, such as a flash; not all frames stand alone: seeking has something to do
    with VideoReader(record.video) as reader:
        decoded = reader.read(range(reader.num_frames))
    drawn, _ = draw_clip(ClipJob("", "val", 7, 0, seed=0))
    assert decoded.shape == drawn.shape == (NUM_FRAMES, HEIGHT, WIDTH, 3)
    # Chroma is stored at half size, so brightness says more than colours do.
    assert np.abs(decoded.mean(-1) - drawn.mean(-1)).mean() < 4


def test_it_is_a_folder_data_set_too(root):
    folder, own = DATASETS["folder"](str(root), "train"), DATASETS["motion"](str(root), "train")
    assert folder.class_names == own.class_names
    assert [(r.label, r.video) for r in folder] == [(r.label, r.video) for r in own]


def test_regions_lie_beside_the_clips(root):
    for split, count in (("train", 24), ("val", 12)):
        regions = read_regions(root, split)
        assert len(regions) == count
        assert regions.boxes.shape == (count, NUM_FRAMES, 4)
        assert regions.visible.all()
        for record in motion(str(root), split):
            row = regions.index(record.name)
            mask = regions.mask(row)
            assert mask.shape == (NUM_FRAMES, HEIGHT, WIDTH)
            assert (boxes(mask) == regions.boxes[row]).all()
    with pytest.raises(KeyError, match="no regions of 'train/nothing/0000"):
        regions.index("train/nothing/0000.mp4")


def test_regions_are_where_something_moves(root):
    regions = read_regions(root, "val")
    for record in motion(str(root), "val"):
        with VideoReader(record.video) as reader:
            video = reader.read(range(reader.num_frames)).astype(np.float32)
        change = np.abs(video - np.median(video, axis=0)).mean(-1)
        mask = regions.mask(regions.index(record.name))
        assert change[mask].mean() > 2 * change[~mask].mean()


def test_a_box_around_nothing_is_zero():
    assert boxes(np.zeros((2, 4, 6), bool)).tolist() == [[0] * 4] * 2


def test_processes_make_the_same_bytes(root, tmp_path):
    calls = []
    other = make_motion(tmp_path / "other", **SIZES, num_workers=2, progress=lambda *c: calls.append(c))
    assert digest(other) == digest(root)
    assert calls == [(k, 36) for k in range(1, 37)]


def test_encoding_does_not_depend_on_what_was_in_memory():
    frames, _ = draw_clip(ClipJob("", "val", 1, 0, seed=0))
    rng = np.random.default_rng(0)
    encodings = set()
    for fill in range(6):
        junk = [np.full(size, fill, np.uint8) for size in rng.integers(1_000, 300_000, 60)]
        del junk[::2]
        encodings.add(encode(frames))
    assert len(encodings) == 1


def test_seeds_splits_and_numbers_give_other_clips():
    jobs = [
        ClipJob("", *values)
        for values in (("train", 0, 0, 0), ("train", 0, 0, 1), ("train", 0, 1, 0), ("val", 0, 0, 0))
    ]
    assert len({draw_clip(job)[0].tobytes() for job in jobs}) == 4


def test_the_clips_of_version_1_are_these():
    """With what a machine's sines may round in another way; the files themselves depend on the encoder too."""
    for label, colour, area in (
        (0, [108.006, 124.672, 28.232], 16292),
        (5, [131.901, 85.413, 94.373], 13980),
        (7, [93.051, 71.390, 182.873], 12613),
    ):
        frames, mask = draw_clip(ClipJob("", "val", label, 3, seed=0))
        assert frames[9].mean((0, 1)) == pytest.approx(colour, abs=0.02)
        assert mask.sum() == pytest.approx(area, abs=5)


def test_the_fine_set_has_its_own_name_classes_and_clips(tmp_path):
    root = make_motion(tmp_path / "fine", name="motion_fine", num_train_per_class=1, num_val_per_class=1, num_workers=0)
    assert json.loads((root / "motion_fine.json").read_text())["class_names"] == list(MOTION_FINE.class_names)
    fine = DATASETS["motion_fine"](str(root), "val", make=False)
    assert (fine.name, fine.class_names, len(fine)) == ("motion_fine", MOTION_FINE.class_names, 12)
    assert read_regions(root, "val").index(fine[3].name) == 3
    with VideoReader(fine[3].video) as reader:
        decoded = reader.read(range(reader.num_frames)).mean(-1)
    own, other = (draw_clip(ClipJob("", "val", 3, 0, 0, name))[0].mean(-1) for name in ("motion_fine", "motion"))
    assert np.abs(decoded - own).mean() < 4 < 20 < np.abs(decoded - other).mean()
    with pytest.raises(DatasetError, match="must hold version 1 of motion, received None"):
        motion(str(root), "val", make=False)
    with pytest.raises(ValueError, match="root must be absent, empty or a data set motion"):
        small(root)
    with pytest.raises(ValueError, match="name must be one of motion, motion_fine, received name='fine'"):
        make_motion(tmp_path / "other", name="fine")


def test_a_set_that_is_made_at_its_first_use_shows_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(motion_lib, "map_unordered", lambda f, items, num_workers: enumerate(map(f, items)))
    monkeypatch.setattr(motion_lib, "DEFAULT_TRAIN", 1)
    monkeypatch.setattr(motion_lib, "DEFAULT_VAL", 1)
    calls = []
    motion(str(tmp_path / "motion"), "val", progress=lambda *c: calls.append(c))
    assert calls == [(k, 24) for k in range(1, 25)]


def test_an_existing_set_is_not_made_again(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    calls = []
    assert make_motion(root, **SIZES, progress=lambda *c: calls.append(c)) == root
    assert len(motion(str(root), "val")) == 12
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert not calls


def small(folder, num_workers=0):
    return make_motion(folder, num_train_per_class=1, num_val_per_class=1, num_workers=num_workers)


def test_an_interrupted_making_leaves_nothing_and_is_done_again(tmp_path, monkeypatch):
    made = []

    def stops(job):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(job)
        return make_clip(job)

    with monkeypatch.context() as patch:
        patch.setattr(motion_lib, "make_clip", stops)
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path / "motion")
    assert not (tmp_path / "motion").exists()
    assert (tmp_path / "motion.making").exists()
    small(tmp_path / "motion")
    assert not (tmp_path / "motion.making").exists()
    assert len(motion(str(tmp_path / "motion"), "val", make=False)) == 12


@pytest.mark.parametrize("change", [{"version": 0}, {"class_names": ["old"]}])
def test_a_stale_set_is_made_again_in_its_sizes_with_a_message(tmp_path, change, caplog, monkeypatch):
    root = small(tmp_path / "motion")
    path = root / "motion.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (root / "val" / "old").mkdir()
    with pytest.raises(DatasetError, match="must hold version 1 of motion"):
        motion(str(root), "val", make=False)
    monkeypatch.setattr(motion_lib, "map_unordered", lambda f, items, num_workers: enumerate(map(f, items)))
    with caplog.at_level(logging.WARNING, "jaxvid"):
        assert len(motion(str(root), "val")) == 12
    assert "is made again" in caplog.text
    assert not (root / "val" / "old").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="root must be absent, empty or a data set motion"):
        small(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_two_at_once_make_one(tmp_path):
    roots = []
    threads = [threading.Thread(target=lambda: roots.append(small(tmp_path / "motion"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert roots == [tmp_path / "motion"] * 2
    assert len(motion(str(tmp_path / "motion"), "train", make=False)) == 12


def test_missing_files_are_named(tmp_path):
    root = small(tmp_path / "motion")
    lost = root / "val" / CLASS_NAMES[2] / "0000.mp4"
    lost.unlink()
    with pytest.raises(DatasetError, match="must exist, received no file") as error:
        motion(str(root), "val")
    assert str(lost) in str(error.value)
    assert "delete this folder" in str(error.value)


def test_the_default_folder_is_that_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXVID_DATA", str(tmp_path / "cache"))
    with pytest.raises(DatasetError, match="must hold version"):
        motion("", "train", make=False)
    assert small("") == tmp_path / "cache" / "motion"
    assert len(motion("", "train", make=False)) == 12


def test_a_script_without_a_guard_can_make_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom jaxvid.data.datasets.motion import make_motion\n"
        "make_motion(sys.argv[1], num_train_per_class=1, num_val_per_class=1, num_workers=2)\n"
    )
    done = subprocess.run([sys.executable, script, tmp_path / "motion"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(motion(str(tmp_path / "motion"), "val", make=False)) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train_per_class": 0}, "num_train_per_class must be >= 1, received num_train_per_class=0"),
        ({"num_val_per_class": -1}, "num_val_per_class must be >= 1, received num_val_per_class=-1"),
        ({"seed": -1}, "seed must be >= 0, received seed=-1"),
    ],
)
def test_wrong_numbers(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_motion(tmp_path / "motion", **arguments)


def test_options_without_a_meaning(root):
    with pytest.raises(ValueError, match="annotations and val_fraction must be empty and 0 for motion"):
        motion(str(root), "train", val_fraction=0.2)
    with pytest.raises(ValueError, match="split must be one of train, val for motion, received split='test'"):
        motion(str(root), "test")
