"""Streams of batches from real H.264 files: order, resuming, hosts, workers, damage, and a clean end."""

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import av
import numpy as np
import pytest

from jaxvid.data import clips as clips_module
from jaxvid.data import pipeline
from jaxvid.data.pipeline import (
    EvalClips,
    TrainClips,
    WorkerDiedError,
    eval_batches,
    load_clip,
    load_views,
    train_batches,
)
from jaxvid.data.quarantine import Quarantine, TooManyBadVideosError
from jaxvid.data.records import VideoDataset, VideoRecord

TRAIN = TrainClips(4, 2, "random", (20, 24), 16, flip=True, mirror=(1, 0))
EVAL = EvalClips(4, 2, num_clips=2, num_crops=1, short_side=20, crop_size=16)


def write_video(path, seed: int, num_frames: int = 12) -> str:
    """32 x 48 pixels of a coarse random pattern that drifts: any two videos, and any two frames, differ."""
    rng = np.random.default_rng(seed)
    pattern = np.kron(rng.integers(0, 256, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "6"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for t in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(pattern, 2 * t, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def dataset_of(paths, split: str = "train") -> VideoDataset:
    records = [VideoRecord(id, id % 2, str(path), os.path.basename(path)) for id, path in enumerate(paths)]
    return VideoDataset("test", split, ("left", "right"), records)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> VideoDataset:
    folder = tmp_path_factory.mktemp("videos")
    return dataset_of([write_video(folder / f"{i:02d}.mp4", i) for i in range(11)])


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> VideoDataset:
    """100 records, 5 of which are damaged, each in another way."""
    folder = tmp_path_factory.mktemp("damaged")
    good = [write_video(folder / f"good{i}.mp4", i) for i in range(5)]
    whole = (folder / "good0.mp4").read_bytes()
    middle = len(whole) // 2
    contents = {
        "truncated.mp4": whole[:middle],
        "empty.mp4": b"",
        "garbage.mp4": whole[: middle - 300] + np.random.default_rng(0).bytes(600) + whole[middle + 300 :],
        "text.mp4": b"This is no video.\n" * 50,
        "missing.mp4": None,
    }
    paths = [good[id % 5] for id in range(100)]
    for place, (name, content) in zip((3, 17, 42, 68, 99), contents.items(), strict=True):
        paths[place] = str(folder / name)
        if content is not None:
            (folder / name).write_bytes(content)
    return dataset_of(paths)


DAMAGED_IDS = [3, 17, 42, 68, 99]


def workers_alive() -> list:
    return [child for child in multiprocessing.active_children() if "prefetch" in child.name]


def arrays_in_shared_memory() -> list:
    return [thing for thing in gc.get_objects() if type(thing).__name__ == "SharedMemoryArray"]


def train(dataset, total, *, batch_size=4, **options) -> list:
    with train_batches(dataset, TRAIN, batch_size=batch_size, seed=5, num_clips_total=total, **options) as batches:
        return list(batches)


def assert_equal(received, expected) -> None:
    assert len(received) == len(expected)
    for one, other in zip(received, expected, strict=True):
        assert one.keys() == other.keys() == {"video", "label", "id", "mask"}
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def rows(batches) -> dict:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_batches_are_what_the_contract_says(dataset):
    (batch, *_) = train(dataset, 22)
    assert batch["video"].shape == (4, 4, 16, 16, 3)
    assert {name: batch[name].dtype.name for name in batch} == {
        "video": "uint8",
        "label": "int32",
        "id": "int32",
        "mask": "bool",
    }
    views = next(iter(eval_batches(dataset, EVAL, batch_size=4)))["video"]
    assert views.shape == (4, 2, 4, 16, 16, 3)


def test_the_stream_is_one_permutation_after_the_other(dataset):
    stream = rows(train(dataset, 31))
    assert len(stream["id"]) == 32
    first, second, third = np.split(stream["id"][:31], [11, 22])
    assert sorted(first) == sorted(second) == list(range(11))
    assert first.tolist() != second.tolist()
    assert len(set(third)) == 9
    assert stream["mask"].tolist() == [True] * 31 + [False]
    assert stream["id"][31] == -1
    assert not stream["video"][31].any()
    other = train_batches(dataset, TRAIN, batch_size=11, seed=6, num_clips_total=11)
    assert next(other)["id"].tolist() != first.tolist()
    other.close()


def test_the_pixels_of_a_row_are_those_of_its_record_and_epoch(dataset):
    stream = rows(train(dataset, 22))
    for row, id in enumerate(stream["id"][:22]):
        video, label = load_clip(dataset[int(id)], TRAIN, seed=5, epoch=row // 11)
        np.testing.assert_array_equal(stream["video"][row], video)
        assert stream["label"][row] == label
    assert len({row.tobytes() for row in stream["video"][:22]}) == 22


@pytest.mark.parametrize("position", [0, 4, 8, 20, 24])
def test_resuming_yields_the_tail(dataset, position):
    assert_equal(train(dataset, 27, position=position), train(dataset, 27)[position // 4 :])


def test_resuming_goes_on_inside_a_batch_and_with_another_batch_size(dataset):
    whole = rows(train(dataset, 27))
    tail = rows(train(dataset, 27, position=7, batch_size=5))
    for name in whole:
        np.testing.assert_array_equal(tail[name], whole[name][7:27])


@pytest.mark.parametrize("position", [27, 40])
def test_nothing_is_left_after_the_end(dataset, position):
    assert train(dataset, 27, position=position) == []
    assert train(dataset, 0) == []


def test_hosts_hold_contiguous_rows_of_the_global_batches(dataset):
    whole = train(dataset, 26)
    hosts = [train(dataset, 26, shard=(index, 2)) for index in range(2)]
    assert_equal([dict(rows(parts).items()) for parts in zip(*hosts, strict=True)], whole)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_evaluation_shows_every_record_once_on_any_number_of_hosts(dataset, count):
    hosts = [list(eval_batches(dataset, EVAL, batch_size=8, shard=(index, count))) for index in range(count)]
    assert [len(host) for host in hosts] == [2] * count
    stream = rows([dict(rows(parts)) for parts in zip(*hosts, strict=True)])
    assert stream["id"].tolist() == [*range(11), -1, -1, -1, -1, -1]
    assert stream["mask"].tolist() == [True] * 11 + [False] * 5
    assert stream["label"][:11].tolist() == [record.label for record in dataset]
    for record in dataset:
        np.testing.assert_array_equal(stream["video"][record.id], load_views(record, EVAL))


def test_an_empty_split_is_evaluated_in_no_batches(dataset):
    assert list(eval_batches(dataset_of([]), EVAL, batch_size=8)) == []


def test_workers_change_nothing_and_damage_is_named_once(damaged, tmp_path):
    streams, lists = [], []
    for num_workers in (0, 2):
        path = tmp_path / f"{num_workers}.jsonl"
        quarantine = Quarantine(path, 0.05)
        streams.append(train(damaged, 250, batch_size=16, num_workers=num_workers, quarantine=quarantine))
        lists.append([json.loads(line) for line in path.read_text().splitlines()])
        assert workers_alive() == []
        assert arrays_in_shared_memory() == []
    assert_equal(*streams)
    assert lists[0] == lists[1]
    assert sorted(entry["id"] for entry in lists[0]) == DAMAGED_IDS
    for entry in lists[0]:
        assert entry["split"] == "train"
        assert entry["path"] == damaged[entry["id"]].video
        assert entry["path"] in entry["error"]

    stream = rows(streams[0])
    bad = np.isin(stream["id"], DAMAGED_IDS)
    assert len(stream["id"]) == 256
    assert bad[:100].sum() == 5
    np.testing.assert_array_equal(stream["mask"], ~bad & (stream["id"] >= 0))
    assert not stream["video"][bad].any()
    assert stream["video"][stream["mask"]].any(axis=(1, 2, 3, 4)).all()
    np.testing.assert_array_equal(stream["label"][bad], stream["id"][bad] % 2)


def test_evaluation_keeps_its_size_with_damage_and_a_worker(damaged, tmp_path):
    streams = []
    for num_workers in (0, 1):
        quarantine = Quarantine(tmp_path / "quarantine.jsonl", 0.05)
        batches = eval_batches(damaged, EVAL, batch_size=16, num_workers=num_workers, quarantine=quarantine)
        streams.append(list(batches))
    assert_equal(*streams)
    stream = rows(streams[0])
    assert stream["id"].tolist() == [*range(100)] + [-1] * 12
    assert np.flatnonzero(~stream["mask"]).tolist() == [*DAMAGED_IDS, *range(100, 112)]
    entries = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in entries] == DAMAGED_IDS  # the second pass found them in the list


def test_too_much_damage_ends_the_stream(damaged):
    batches = eval_batches(damaged, EVAL, batch_size=10, quarantine=Quarantine(None, 0.02))
    received = []
    with pytest.raises(TooManyBadVideosError, match=r"^3 of 100 videos of the split 'train' \(3.0%\)"):
        received.extend(batches)
    assert len(received) == 4  # the fifth batch holds the third bad video
    assert list(batches) == []


def test_without_a_quarantine_damage_is_logged_once(damaged, caplog):
    list(eval_batches(dataset_of([damaged[99].video] * 6), EVAL, batch_size=2))
    assert sum("cannot be decoded" in record.getMessage() for record in caplog.records) == 1


def test_a_video_in_memory_goes_by_its_name(tmp_path):
    record = VideoRecord(0, 0, b"no video", "shard 3, key 17")
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", 1.0)
    (batch,) = eval_batches(VideoDataset("test", "val", ("a",), [record]), EVAL, batch_size=1, quarantine=quarantine)
    assert not batch["mask"].any()
    assert json.loads((tmp_path / "quarantine.jsonl").read_text())["path"] == "shard 3, key 17"


def test_a_batch_belongs_to_its_receiver(dataset):
    expected = [{name: array.copy() for name, array in batch.items()} for batch in train(dataset, 24)]
    received = []
    for batch in train_batches(dataset, TRAIN, batch_size=4, seed=5, num_clips_total=24):
        for array in batch.values():
            assert array.flags.owndata
            assert array.flags.writeable
        received.append({name: array.copy() for name, array in batch.items()})
        batch["video"][:] = 255
        batch["id"][:] = 7
    assert_equal(received, expected)


class _Broken:
    """A reader with a bug, or on a machine without memory."""

    error: Exception

    def __init__(self, *_, **__):
        raise self.error


@pytest.mark.parametrize("error", [MemoryError("no room"), KeyError("bug"), ValueError("bug"), OSError("stale handle")])
def test_a_bug_is_not_a_bad_video(dataset, monkeypatch, error):
    monkeypatch.setattr(clips_module, "VideoReader", type("Reader", (_Broken,), {"error": error}))
    quarantine = Quarantine(None, 1.0)
    batches = eval_batches(dataset, EVAL, batch_size=4, quarantine=quarantine)
    with pytest.raises(type(error)) as caught:
        next(batches)
    assert any("while loading 00.mp4 (id 0, epoch 0)" in note for note in caught.value.__notes__)
    assert len(quarantine) == 0
    assert list(batches) == []


def test_threads_decode_the_clips_of_one_batch_at_the_same_time(dataset, monkeypatch):
    both = threading.Barrier(2, timeout=20)  # breaks unless two clips are being loaded at once
    monkeypatch.setattr(clips_module, "load_views", None)
    monkeypatch.setattr(pipeline, "num_threads", lambda num_workers: 2)

    def load(record, clips, *, seed, cache):
        both.wait()
        return np.zeros(clips.shape, np.uint8)

    monkeypatch.setattr(pipeline, "load_views", load)
    (batch,) = eval_batches(dataset_of([record.video for record in dataset][:2]), EVAL, batch_size=2)
    assert batch["mask"].all()


def test_a_stream_that_is_cut_short_is_an_error(dataset):
    batches = eval_batches(dataset, EVAL, batch_size=4)
    batches._left += 1
    received = []
    with pytest.raises(RuntimeError, match="3 batches of test must all arrive, received all but 1"):
        received.extend(batches)
    assert len(received) == 3


def test_closing_ends_threads_and_processes(dataset):
    before = threading.active_count()
    batches = train_batches(dataset, TRAIN, batch_size=4, seed=5, num_clips_total=4000)
    next(batches)
    batches.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    assert next(batches, None) is None
    batches.close()  # twice is once


def test_a_killed_worker_is_an_error_and_closing_ends_the_other_one(dataset):
    batches = train_batches(dataset, TRAIN, batch_size=4, seed=5, num_clips_total=4000, num_workers=2)
    next(batches)
    children = workers_alive()
    assert len(children) == 2
    os.kill(children[0].pid, signal.SIGTERM)  # of a terminal or a scheduler: not for the workers
    next(batches)
    os.kill(children[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="a decoding process ended unexpectedly with exit code -9"):
        list(batches)
    assert workers_alive() == []
    assert next(batches, None) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_survive_a_signal_while_they_start(dataset, number):
    def signal_each_new_worker():
        told = set()
        while len(told) < 2 and time.monotonic() < deadline:
            for child in workers_alive():
                if child.pid not in told:
                    os.kill(child.pid, number)  # before the interpreter of the worker has begun
                    told.add(child.pid)

    deadline = time.monotonic() + 30
    thread = threading.Thread(target=signal_each_new_worker)
    with train_batches(dataset, TRAIN, batch_size=4, seed=5, num_clips_total=16, num_workers=2) as batches:
        thread.start()
        assert len(list(batches)) == 4
    thread.join()
    assert time.monotonic() < deadline
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # here it is received as before


def test_workers_end_with_a_killed_parent(dataset, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(
        textwrap.dedent("""
        import multiprocessing, os, signal, sys
        from jaxvid.data.pipeline import EvalClips, eval_batches
        from jaxvid.data.records import VideoDataset, VideoRecord

        if __name__ == "__main__":
            dataset = VideoDataset("test", "val", ("a",), [VideoRecord(i, 0, sys.argv[1], "v") for i in range(500)])
            batches = eval_batches(dataset, EvalClips(4, 1, 1, 1, 20, 16), batch_size=1, num_workers=1)
            next(batches)
            print(multiprocessing.active_children()[0].pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """)
    )
    done = run_script(script, dataset, stdout=subprocess.PIPE)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(int(done.stdout))


def test_an_iterator_that_nobody_closes_leaves_no_shared_memory(dataset, tmp_path):
    """Python's resource tracker reports what is left, after the interpreter's end; without the wait, in 2 of 3 runs."""
    script = tmp_path / "early.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        from jaxvid.data.pipeline import EvalClips, eval_batches
        from jaxvid.data.records import VideoDataset, VideoRecord

        if __name__ == "__main__":
            dataset = VideoDataset("test", "val", ("a",), [VideoRecord(i, 0, sys.argv[1], "v") for i in range(50)])
            batches = eval_batches(dataset, EvalClips(8, 1, 1, 1, 64, 56), batch_size=4, num_workers=2)
            next(batches)
        """)
    )
    done = run_script(script, dataset, capture_output=True)
    assert done.returncode == 0
    assert "leaked shared_memory" not in done.stderr


def run_script(script, dataset, **streams):
    """An interpreter of its own, given a video of the data set; it imports from where this one does."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(script), dataset[0].video]
    return subprocess.run(command, env=environment, text=True, timeout=60, **streams)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1 and divisible by the number of hosts, received batch_size=0"),
        ({"batch_size": 5, "shard": (0, 2)}, "received batch_size=5 and 2 hosts"),
        ({"shard": (2, 2)}, r"shard must be \(index, count\) with 0 <= index < count, received shard=\(2, 2\)"),
        ({"seed": -1}, "seed must be >= 0, received seed=-1"),
        ({"position": -4}, "position must be >= 0, received position=-4"),
        ({"num_clips_total": -4}, "num_clips_total must be >= 0"),
        ({"num_workers": -1}, "num_workers must be >= 0, received num_workers=-1"),
        ({"clips": TrainClips(4, 2, "random", (20, 24), 16, mirror=(0, 2, 1))}, "one label for each of the 2 classes"),
        ({"dataset": dataset_of([])}, "dataset must hold at least 1 record, received 0 in the split 'train'"),
    ],
)
def test_arguments_of_the_training_stream_are_checked(dataset, change, message):
    arguments = {"dataset": dataset, "clips": TRAIN, "batch_size": 4, "seed": 0, "num_clips_total": 8}
    with pytest.raises(ValueError, match=message):
        train_batches(**(arguments | change))


@pytest.mark.parametrize("name", ["seed", "num_workers"])
def test_arguments_of_the_evaluation_stream_are_checked(dataset, name):
    with pytest.raises(ValueError, match=f"{name} must be >= 0, received {name}=-1"):
        eval_batches(dataset, EVAL, batch_size=4, **{name: -1})
