"""The flow of a data set: the same names and readers, runs that were killed, broken videos, and what is refused."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvid.data import DATASETS, VideoDataset, VideoRecord, open_dataset
from jaxvid.data import flow_files as flow_lib
from jaxvid.data.datasets.motion import make_motion
from jaxvid.data.decode import VideoReader
from jaxvid.data.flow import FlowSettings
from jaxvid.data.flow_files import make_flow, make_flow_file
from jaxvid.data.records import BadVideoError
from jaxvid.data.sources.listing import VIDEO_SUFFIXES, holds_flow
from jaxvid.data.workers import WorkerDiedError
from jaxvid.files import only_one

SMALL = FlowSettings(short_side=16)
SPLITS = ("train", "val")


def draw(seed):
    """Coarse blocks that move to the right."""
    blocks = np.random.default_rng(seed).integers(0, 230, (4, 5, 3), np.uint8)
    picture = np.kron(blocks, np.ones((6, 6, 1))).astype(np.uint8)
    return lambda k, height, width: np.roll(picture, k, axis=1)[:height, :width]


@pytest.fixture(scope="module")
def clip(encode):
    return lambda seed=0, n=3: encode(n, size=(24, 30), draw=draw(seed), rate=10)


@pytest.fixture
def videos(tmp_path, clip):
    """``SPLIT/CLASS/FILE`` of two classes, whose suffixes are of several kinds."""
    root = tmp_path / "videos"
    for seed, name in enumerate(("train/clap/a.mp4", "train/wave/b.avi", "val/clap/c.webm", "val/wave/d.mp4")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(clip(seed))
    return root


def folder(root, **options):
    return [open_dataset("folder", str(root), split, **options) for split in SPLITS]


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def digest(root):
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in files(root)}


def same_records(found, expected):
    """All but the places of the files."""
    assert [dataset.class_names for dataset in found] == [dataset.class_names for dataset in expected]
    for one, other in zip(found, expected, strict=True):
        assert [(r.id, r.label, r.name, r.start, r.end) for r in one] == [
            (r.id, r.label, r.name, r.start, r.end) for r in other
        ]


def test_the_same_reader_reads_the_same_names_labels_and_lengths(videos, tmp_path):
    calls = []
    report = make_flow(folder(videos), tmp_path / "flow", SMALL, num_workers=0, progress=lambda *c: calls.append(c))
    assert (report.num_videos, report.num_made, report.num_kept, report.broken) == (4, 4, 0, ())
    assert calls == [(k, 4) for k in range(1, 5)]
    assert files(tmp_path / "flow") == sorted([*files(videos), "flow.json", ".lock"])
    same_records(folder(tmp_path / "flow"), folder(videos))
    assert (holds_flow(tmp_path / "flow"), holds_flow(videos), holds_flow("")) == (True, False, False)
    for dataset in folder(tmp_path / "flow"):
        for record in dataset:
            with VideoReader(record.video) as reader:
                assert (reader.num_frames, reader.height, reader.width, reader.fps) == (3, 16, 20, 10)
                assert (np.median(reader.read([0, 1, 2])[..., 0]), reader.nbytes(1)) > (128, 0)
    told = json.loads((tmp_path / "flow" / "flow.json").read_text())
    assert {name: told[name] for name in ("data", "version", "method", "bound", "short_side", "channels")} == {
        "data": "folder", "version": 1, "method": "tvl1", "bound": 20.0, "short_side": 16,
        "channels": ["u", "v", "magnitude"]}  # fmt: skip
    assert told["parameters"]["attachment"] == 15
    assert told["scikit-image"]


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_a_file_is_read_whatever_its_suffix_says(suffix, clip, tmp_path):
    video = tmp_path / "videos" / f"a{suffix}"
    video.parent.mkdir()
    video.write_bytes(clip(n=2))
    flow = tmp_path / "flow" / video.name
    assert make_flow_file(flow_lib.FlowJob(str(video), str(flow), SMALL)) == ("made", "", None)
    assert make_flow_file(flow_lib.FlowJob(str(video), str(flow), SMALL)) == ("kept", "", None)
    with VideoReader(str(flow)) as reader:
        assert reader.read([1, 0]).shape == (2, 16, 20, 3)


def test_a_held_out_share_is_the_same(clip, tmp_path):
    root = tmp_path / "videos"
    for i in range(6):
        (root / "wave").mkdir(parents=True, exist_ok=True)
        (root / "wave" / f"{i}.mp4").write_bytes(clip(i, n=2))
    make_flow(folder(root, val_fraction=0.5), tmp_path / "flow", SMALL, num_workers=0)
    same_records(folder(tmp_path / "flow", val_fraction=0.5), folder(root, val_fraction=0.5))


def test_our_own_files_beside_the_classes_are_no_strays(clip, tmp_path, caplog):
    root = tmp_path / "videos"
    (root / "wave").mkdir(parents=True)
    for name, content in {"a.mp4": clip(0, n=2), "b.mp4": clip(1, n=2), "c.mp4": b"no video"}.items():
        (root / "wave" / name).write_bytes(content)
    make_flow(folder(root, val_fraction=0.5), tmp_path / "flow", SMALL, num_workers=0)
    assert (tmp_path / "flow" / "quarantine.jsonl").exists()
    folder(tmp_path / "flow", val_fraction=0.5)
    assert not caplog.records


def test_finished_files_are_kept_and_others_are_made(videos, tmp_path):
    flow = tmp_path / "flow"
    make_flow(folder(videos), flow, SMALL, num_workers=0)
    before = digest(flow)
    stamps = {name: (flow / name).stat().st_mtime_ns for name in before}
    (flow / "train/clap/a.mp4").unlink()
    (flow / "val/clap/c.webm").write_bytes((flow / "val/clap/c.webm").read_bytes()[:-40])
    (flow / "val/wave/.d.mp4.999.part").write_bytes(b"half")
    report = make_flow(folder(videos), flow, SMALL, num_workers=0)
    assert (report.num_made, report.num_kept) == (2, 2)
    assert digest(flow) == before
    changed = {name for name in before if (flow / name).stat().st_mtime_ns != stamps[name]}
    assert changed - {".lock"} == {"train/clap/a.mp4", "val/clap/c.webm"}


def test_another_video_of_the_name_is_another_flow(videos, clip, tmp_path):
    make_flow(folder(videos), tmp_path / "flow", SMALL, num_workers=0)
    (videos / "val/wave/d.mp4").write_bytes(clip(9, n=5))
    report = make_flow(folder(videos), tmp_path / "flow", SMALL, num_workers=0)
    assert (report.num_made, report.num_kept) == (1, 3)
    with VideoReader(str(tmp_path / "flow/val/wave/d.mp4")) as reader:
        assert reader.num_frames == 5


def test_a_broken_video_is_named_and_keeps_its_place(videos, clip, tmp_path):
    (videos / "val/clap/e.mp4").write_bytes(clip(5)[:-50])
    report = make_flow(folder(videos), tmp_path / "flow", SMALL, num_workers=0)
    (broken,) = report.broken
    assert (report.num_videos, report.num_made) == (5, 4)
    assert (broken.split, broken.name) == ("val", "val/clap/e.mp4")
    assert "is cut off" in broken.error
    assert "\n" not in broken.error
    (line,) = (tmp_path / "flow/quarantine.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["path"], entry["split"], entry["id"]) == (str(videos / "val/clap/e.mp4"), "val", 1)
    assert report.to_text().splitlines() == [
        "5 videos: flow of 4 made, of 0 there already, of 1 impossible:",
        f"  val: val/clap/e.mp4: {broken.error}",
    ]
    assert report.to_json()["broken"][0]["name"] == "val/clap/e.mp4"
    same_records(folder(tmp_path / "flow"), folder(videos))
    with pytest.raises(BadVideoError, match="must not be empty"):
        VideoReader(str(tmp_path / "flow/val/clap/e.mp4"))
    again = make_flow(folder(videos), tmp_path / "flow", SMALL, num_workers=0)
    assert (again.num_made, again.num_kept, again.broken) == (0, 4, report.broken)
    assert len((tmp_path / "flow/quarantine.jsonl").read_text().splitlines()) == 1
    (videos / "val/clap/e.mp4").write_bytes(clip(5))
    assert make_flow(folder(videos), tmp_path / "flow", SMALL, num_workers=0).num_made == 1


def test_a_video_with_one_frame_is_named(videos, clip, tmp_path):
    (videos / "val/clap/e.mp4").write_bytes(clip(5, n=1))
    (broken,) = make_flow(folder(videos), tmp_path / "flow", SMALL, num_workers=0).broken
    assert "has 1 frame, as an image has" in broken.error


def test_a_listed_video_that_is_not_there_stays_absent(clip, tmp_path):
    root = tmp_path / "videos"
    (root / "run").mkdir(parents=True)
    (root / "run" / "x_000000_000001.mp4").write_bytes(clip(1))
    rows = ["label,youtube_id,time_start,time_end,split", "run,x,0,1,train", "run,y,0,1,train", "run,x,0,1,val"]
    (root / "annotations").mkdir()
    (root / "annotations" / "k_train.csv").write_text("\n".join(rows[:3]) + "\n")
    (root / "annotations" / "k_val.csv").write_text("\n".join([rows[0], rows[3]]) + "\n")
    datasets = [open_dataset("kinetics", str(root), split) for split in SPLITS]
    report = make_flow(datasets, tmp_path / "flow", SMALL, num_workers=0)
    assert (report.num_videos, report.num_made, len(report.broken)) == (2, 1, 1), "one file in two splits is one"
    assert not (tmp_path / "flow" / report.broken[0].name).exists()
    same_records([open_dataset("kinetics", str(tmp_path / "flow"), split) for split in SPLITS], datasets)


def test_stretches_of_one_file_have_the_flow_of_the_whole(clip, tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    (root / "x.mp4").write_bytes(clip(1, n=20))
    rows = ["label,id,time_start,time_end,split", "run,x,0,1,train", "run,x,1,2,train"]
    (root / "hacs_train.csv").write_text("\n".join(rows) + "\n")
    dataset = open_dataset("srtg_csv", str(root), "train", annotations="hacs_train.csv")
    assert make_flow([dataset], tmp_path / "flow", SMALL, annotations="hacs_train.csv", num_workers=0).num_made == 1
    found = open_dataset("srtg_csv", str(tmp_path / "flow"), "train", annotations="hacs_train.csv")
    same_records([found], [dataset])
    lengths = []
    for record in found:
        with VideoReader(record.video, start=record.start, end=record.end) as reader:
            lengths.append(reader.num_frames)
    assert lengths == [10, 10]


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_split_files_are_copied(name, beside, clip, tmp_path):
    root, lists = tmp_path / "data" / "videos", "ucfTrainTestlist" if name == "ucf101" else "testTrainMulti_7030_splits"
    (root / "run").mkdir(parents=True)
    place = root.parent / lists if beside else root / lists
    place.mkdir()
    for file in "ab":
        (root / "run" / f"{file}.avi").write_bytes(clip(ord(file)))
    texts = {
        "ucf101": {"classInd.txt": "1 run\n", "trainlist01.txt": "run/a.avi 1\n", "testlist01.txt": "run/b.avi\n"},
        "hmdb51": {"run_test_split1.txt": "a.avi 1\nb.avi 2\n"},
    }[name]
    for file, text in texts.items():
        (place / file).write_text(text)
    datasets = [open_dataset(name, str(root), split) for split in ("train", "test")]
    make_flow(datasets, tmp_path / "flow", SMALL, num_workers=0)
    same_records([open_dataset(name, str(tmp_path / "flow"), split) for split in ("train", "test")], datasets)


@pytest.mark.slow
def test_motion_is_read_as_motion(tmp_path):
    """The whole way of the embedded set, with its flow drawn up instead of computed: that is tested elsewhere."""
    root = make_motion(tmp_path / "motion", num_train_per_class=1, num_val_per_class=1, num_workers=0)
    datasets = [DATASETS["motion"](str(root), split) for split in SPLITS]
    flow = tmp_path / "flow"
    for dataset in datasets:
        for record in dataset:
            (flow / record.name).parent.mkdir(parents=True, exist_ok=True)
            (flow / record.name).write_bytes(Path(record.video).read_bytes())
    (flow / "flow.json").write_text(json.dumps({"data": "motion", **FlowSettings().to_json()}))
    report = make_flow(datasets, flow, num_workers=0)
    assert (report.num_made, report.num_kept) == (0, 24)
    same_records([DATASETS["motion"](str(flow), split, make=False) for split in SPLITS], datasets)
    assert (flow / "val/regions.npz").read_bytes() == (root / "val/regions.npz").read_bytes()
    with pytest.raises(ValueError, match="the optical flow of one that was made from something else"):
        make_motion(flow, num_train_per_class=2, num_val_per_class=1, num_workers=0)
    assert (flow / datasets[0][0].name).exists(), "nothing of it was deleted"


def refused(datasets, output, sentence, settings=SMALL):
    with pytest.raises(ValueError) as caught:
        make_flow(datasets, output, settings, num_workers=0)
    assert sentence in str(caught.value)


def test_two_settings_do_not_mix(videos, tmp_path):
    flow = tmp_path / "flow"
    make_flow(folder(videos), flow, SMALL, num_workers=0)
    before = digest(flow)
    refused(folder(videos), flow, "made with bound=20.0, and bound=15.0 now.", FlowSettings(15.0, 16))
    refused(folder(videos), flow, "made with short_side=16, and short_side=256 now.", FlowSettings())
    told = json.loads((flow / "flow.json").read_text())
    for field, value in {"data": "motion", "version": 0, "method": "other", "parameters": {}}.items():
        (flow / "flow.json").write_text(json.dumps(told | {field: value}))
        refused(folder(videos), flow, f"made with {field}={value!r}, and {field}=")
    (flow / "flow.json").write_text("[")
    refused(folder(videos), flow, "must say how the flow beside it was computed")
    (flow / "flow.json").write_text(json.dumps(told, indent=2) + "\n")
    assert digest(flow) == before


def test_a_folder_of_something_else_is_left_alone(videos, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    refused(folder(videos), tmp_path / "mine", "which holds thesis.tex.")
    assert files(tmp_path / "mine") == ["thesis.tex"]
    for output in (videos, videos / "flow", tmp_path):
        refused(folder(videos), output, "output must lie beside the data set and not in or around it")
    (tmp_path / "link").symlink_to(videos)
    refused(folder(videos), tmp_path / "link", "output must lie beside the data set")


def test_what_has_no_flow_is_refused(tmp_path, clip):
    def dataset(*records):
        return [VideoDataset("mine", "train", ("run",), records)]

    (tmp_path / "a.png").write_bytes(b"")
    refused(dataset(), tmp_path / "flow", "at least 1 video, received 0")
    image = VideoRecord(0, 0, str(tmp_path / "a.png"), "a.png")
    refused(dataset(image), tmp_path / "flow", "a.png: an image has no flow")
    refused(dataset(VideoRecord(0, 0, clip(), "a.mp4")), tmp_path / "flow", "received 'mine' data, which are not.")
    refused(dataset(VideoRecord(0, 0, "/x/a.mp4", "b.mp4")), tmp_path / "flow", "must lie at its name under the root")
    assert not (tmp_path / "flow").exists()


def test_another_video_of_the_same_name_gets_another_flow(videos, tmp_path):
    flow = tmp_path / "flow"
    make_flow(folder(videos), flow, SMALL, num_workers=0)
    before = digest(flow)
    os.utime(videos / "train" / "clap" / "a.mp4", (time.time() + 60,) * 2)
    report = make_flow(folder(videos), flow, SMALL, num_workers=0)
    assert (report.num_made, report.num_kept) == (1, 3)
    assert digest(flow) == before


def test_a_file_is_no_folder(videos, tmp_path):
    (tmp_path / "file").touch()
    refused(folder(videos), tmp_path / "file", "which is a file.")
    refused(folder(videos), tmp_path / "file" / "flow", "output must be a folder that can be made")


def test_only_one_process_writes(videos, tmp_path):
    (tmp_path / "flow").mkdir()
    with only_one(tmp_path / "flow" / ".lock", ""):
        refused(folder(videos), tmp_path / "flow", "output must be written by one process at a time")


@pytest.mark.slow
def test_processes_make_the_same_bytes(videos, tmp_path):
    for workers in (0, 2):
        make_flow(folder(videos), tmp_path / str(workers), SMALL, num_workers=workers)
    assert digest(tmp_path / "0") == digest(tmp_path / "2")


def test_a_process_that_dies_costs_one_video(videos, tmp_path, monkeypatch):
    def dies(function, items, *, num_workers):
        yield from ((i, WorkerDiedError("a process died over this item (exit code 7).") if i == 3 else function(item))
                    for i, item in enumerate(items))  # fmt: skip

    monkeypatch.setattr(flow_lib, "map_unordered", dies)
    report = make_flow(folder(videos), tmp_path / "flow", SMALL, num_workers=1)
    assert report.num_made == 3
    (broken,) = report.broken
    assert (broken.name, "a process died over this item" in broken.error) == ("val/wave/d.mp4", True)


@pytest.mark.slow
def test_a_killed_run_goes_on(clip, tmp_path):
    root = tmp_path / "videos"
    for seed in range(12):
        path = root / SPLITS[seed % 2] / "wave" / f"{seed}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip(seed, n=12))
    config = Path(__file__).resolve().parents[2] / "configs" / "folder.py"
    command = [sys.executable, "-m", "jaxvid.cli", "data", "flow", f"--config={config}", f"--config.data.root={root}",
               f"--output={tmp_path / 'flow'}", "--num_workers=1", "--short_side=24"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "flow").glob("*/wave/*.mp4"))) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(list((tmp_path / "flow").glob("*/wave/*.mp4")))
    assert 3 <= done < 12
    finished = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    kept = int(finished.stdout.split("of ")[2].split()[0])
    assert kept >= done
    make_flow(folder(root), tmp_path / "undisturbed", FlowSettings(short_side=24), num_workers=0)
    assert digest(tmp_path / "flow") == digest(tmp_path / "undisturbed")
