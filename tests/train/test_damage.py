"""A data set of which 5 % cannot be decoded, each file for another reason: the run goes on and says what is bad."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from jaxvid import config as config_lib
from jaxvid.benchmarks.clips import write_clip
from jaxvid.train import evaluate_run, train
from jaxvid.train.writers import read_jsonl

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "folder.py"
CLASSES = ("bend", "clap", "jump", "wave")
PER_CLASS = {"train": 15, "val": 10}  # 100 videos, of which the five below are damaged


def truncated(data: bytes) -> bytes:
    """The first half, as a broken copy leaves it; an MP4's index stands at its end."""
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


def garbage(data: bytes) -> bytes:
    return np.random.default_rng(0).bytes(len(data))


def damaged_in_the_middle(data: bytes) -> bytes:
    """Zeros instead of a third of the pictures; header, index, the first and the last pictures are whole."""
    with av.open(io.BytesIO(data)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    first, last = places[len(places) // 3], places[len(places) * 2 // 3]
    return data[:first] + bytes(last - first) + data[last:]


DAMAGE = {
    "train/bend/03.mp4": (truncated, "is cut off"),
    "train/clap/00.mp4": (empty, "must not be empty"),
    "train/wave/14.mp4": (garbage, "is not a video"),
    "val/bend/09.mp4": (damaged_in_the_middle, "is damaged at"),
    "val/jump/04.mp4": (None, "holds no video stream"),  # a whole file, with sound and no picture
}
"""File -> how it is damaged, and words of the sentence that says so."""


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        for k in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("damaged")
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                seed = 1000 * label + i + (500 if split == "val" else 0)
                write_clip(folder / f"{i:02d}.mp4", num_frames=12, height=32, width=32, gop=6, seed=seed)
    for name, (damage, _) in DAMAGE.items():
        if damage is None:
            write_sound(root / name)
        else:
            (root / name).write_bytes(damage((root / name).read_bytes()))
    return root


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """``run(num_workers)``: the finished smoke run with so many decoding processes; each is trained once."""
    finished = {}

    def run(num_workers):
        if num_workers not in finished:
            overrides = {"data.root": str(root), "data.num_workers": num_workers, "train.tensorboard": False}
            config = config_lib.load(f"{CONFIG}:smoke", overrides)
            finished[num_workers] = train(config, tmp_path_factory.mktemp(f"workers{num_workers}") / "run")
        return finished[num_workers]

    return run


def by_path(root, file):
    """What a quarantine holds: name of the video -> its entry."""
    entries = read_jsonl(file)
    named = {str(Path(entry["path"]).relative_to(root)): entry for entry in entries}
    assert len(named) == len(entries), "each file is named once"
    return named


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_training_goes_on_and_each_bad_file_is_named_once(num_workers, run, root):
    result = run(num_workers)
    assert result.finished
    assert result.step == 8  # 60 clips in batches of 8: no step is lost
    noted = by_path(root, result.workdir / "quarantine.jsonl")
    assert set(noted) == set(DAMAGE)
    for name, (_, words) in DAMAGE.items():
        assert words in noted[name]["error"]
        assert noted[name]["split"] == name.split("/")[0]


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_validation_set_keeps_its_size(num_workers, run):
    result = run(num_workers)
    assert (result.metrics["num_clips"], result.metrics["num_missing"]) == (40, 2)
    (evaluation,) = [line for line in read_jsonl(result.workdir / "metrics.jsonl") if "eval/top1" in line]
    assert (evaluation["eval/num_clips"], evaluation["eval/num_missing"]) == (40, 2)


def test_damaged_clips_stay_in_their_batches_and_train_nothing(run):
    lines = [line for line in read_jsonl(run(0).workdir / "metrics.jsonl") if "loss" in line]
    assert sum(line["num_valid"] for line in lines) == 60 - 3
    assert all(np.isfinite([line["loss"], line["grad_norm"]]).all() for line in lines)


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(run):
    keys = ("step", "batch_sha256", "loss", "grad_norm")
    lines = [read_jsonl(run(num_workers).workdir / "metrics.jsonl") for num_workers in (0, 2)]
    steps = [[tuple(line[key] for key in keys) for line in part if "loss" in line] for part in lines]
    assert len(steps[0]) == 8
    assert steps[0] == steps[1]
    assert run(0).metrics == run(2).metrics


def test_further_evaluations_name_nothing_twice_and_keep_the_size(run, root):
    """They have a list of their own, beside their results, of the bad files that they met."""
    result = run(0)
    before = (result.workdir / "quarantine.jsonl").read_bytes()
    for num_workers in (0, 2):
        done = evaluate_run(result.workdir, overrides={"data.num_workers": num_workers})
        assert done.metrics == result.metrics
        assert done.metrics["num_clips"] == len(done.predictions) == 40
        missing = {name for name, decoded in zip(done.clip_names, done.predictions.decoded, strict=True) if not decoded}
        assert missing == {name for name in DAMAGE if name.startswith("val/")}
        assert set(by_path(root, done.output / "quarantine.jsonl")) == missing
    assert (result.workdir / "quarantine.jsonl").read_bytes() == before
