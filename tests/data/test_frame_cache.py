"""Decoded frames in memory: the same pixels, the same order, the same bad videos; only less is decoded."""

import gc
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxvid.data import frame_cache
from jaxvid.data.clips import EvalClips, TrainClips, load_clip
from jaxvid.data.decode import VideoReader
from jaxvid.data.frame_cache import FrameCache
from jaxvid.data.pipeline import eval_batches, train_batches
from jaxvid.data.quarantine import Quarantine
from jaxvid.data.records import BadVideoError, VideoDataset, VideoRecord

STREAMS = {
    "H.264, B-frames without reference": {"g": 12, "bf": 3},
    "H.264, open groups": {"g": 12, "bf": 3, "x264-params": "open-gop=1:scenecut=0:keyint=12:min-keyint=12"},
    "H.264, AVI without times": {"container": "avi", "g": 12, "bf": 3},
    "MPEG-4, B-frames": {"codec": "mpeg4", "g": 12, "bf": 2},
    "VP8, hidden references": {"container": "webm", "codec": "libvpx", "g": 20, "auto-alt-ref": 1, "lag-in-frames": 16},
    "VP9": {"container": "webm", "codec": "libvpx-vp9", "g": 20, "cpu-used": 8},
    "HEVC": {"codec": "libx265", "g": 12, "x265-params": "log-level=none:bframes=3:open-gop=1"},
}
PLENTY = 2**30
NUM_FRAMES = 20
TRAIN = TrainClips(6, 2, "random", (20, 22), 16, flip=True, mirror=(1, 0))
EVAL = EvalClips(6, 2, num_clips=2, num_crops=1, short_side=20, crop_size=16)


def record_of(video, id: int = 0, **stretch) -> VideoRecord:
    return VideoRecord(id=id, label=id % 2, video=video, name=f"{id}", **stretch)


@pytest.fixture
def opened(monkeypatch):
    """What is opened for decoding, in order."""
    videos = []

    class Spy(VideoReader):
        def __init__(self, video, **stretch):
            videos.append(video)
            super().__init__(video, **stretch)

    monkeypatch.setattr(frame_cache, "VideoReader", Spy)
    return videos


@pytest.fixture(scope="module")
def paths(encode, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached")
    files = [folder / f"{i}.mp4" for i in range(7)]
    for i, file in enumerate(files):
        draw = lambda k, height, width, i=i: np.full((height, width, 3), 8 * k + 13 * i, np.uint8)  # noqa: E731
        file.write_bytes(encode(NUM_FRAMES, size=(32, 48), g=6, bf=2, draw=draw))
    return [str(file) for file in files]


def dataset_of(videos, split: str = "train") -> VideoDataset:
    return VideoDataset("test", split, ("left", "right"), [record_of(video, id) for id, video in enumerate(videos)])


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("stretch", [{}, {"start": 0.5, "end": 1.3}], ids=["whole", "stretch"])
def test_kept_frames_are_those_of_decoding(name, stretch, encode, opened):
    record = record_of(encode(40, **STREAMS[name]), **stretch)
    cache = FrameCache(PLENTY)
    with VideoReader(record.video, **stretch) as reader:
        length = reader.num_frames
    rng = np.random.default_rng(0)
    for indices in (np.arange(length), *(rng.integers(length, size=8) for _ in range(3)), [length - 1, 2, 2, 0]):
        with VideoReader(record.video, **stretch) as fresh, cache.open(record) as cached:
            assert cached.num_frames == length
            for short_side in (32, 40):
                expected = fresh.read(indices, short_side=short_side)
                np.testing.assert_array_equal(cached.read(indices, short_side=short_side), expected)
    assert len(opened) == 1
    assert len(cache) == 1
    assert cache.nbytes == length * 3 * (32 * 40 + 40 * 50)


def test_another_stretch_and_another_file_are_other_frames(encode):
    one, other = encode(20), encode(20, draw=lambda k, height, width: np.full((height, width, 3), 9 * k, np.uint8))
    cache = FrameCache(PLENTY)
    for record in (record_of(one), record_of(one, start=0.2), record_of(one, start=0.2, end=0.6), record_of(other)):
        for _ in range(2):
            with VideoReader(record.video, start=record.start, end=record.end) as fresh, cache.open(record) as cached:
                indices = np.arange(fresh.num_frames)
                np.testing.assert_array_equal(cached.read(indices, short_side=20), fresh.read(indices, short_side=20))
    assert len(cache) == 4


def test_a_clip_may_be_written_to_and_the_frames_stay_as_they_are(paths):
    cache, record = FrameCache(PLENTY), record_of(paths[0])
    for _ in range(3):
        with cache.open(record) as reader:
            clip = reader.read(range(NUM_FRAMES), short_side=20)
        assert clip.any()
        clip[:] = 0


def test_a_video_much_longer_than_its_clip_is_decoded_in_part(paths, opened):
    cache = FrameCache(PLENTY)
    for indices, kept in (([0, 8], 0), ([5, 5], 0), ([3, 12], 1)):
        with cache.open(record_of(paths[0])) as reader, VideoReader(paths[0]) as fresh:
            expected = fresh.read(indices, short_side=20)
            np.testing.assert_array_equal(reader.read(indices, short_side=20), expected)
        assert len(cache) == kept
    assert len(opened) == 3


def test_the_budget_holds_and_the_first_stay(paths, opened):
    size = NUM_FRAMES * 20 * 30 * 3
    cache = FrameCache(2 * size + size // 2)
    for _ in range(2):
        for id, path in enumerate(paths):
            with cache.open(record_of(path, id)) as reader:
                reader.read(range(NUM_FRAMES), short_side=20)
    assert cache.nbytes == 2 * size
    assert opened == paths + paths[2:]


def test_threads_that_decode_the_same_video_count_it_once(paths, monkeypatch):
    both = threading.Barrier(2, timeout=20)
    whole = frame_cache.CachedReader._whole
    monkeypatch.setattr(frame_cache.CachedReader, "_whole", lambda *a: (both.wait(), whole(*a), both.wait())[1])
    cache = FrameCache(PLENTY)

    def clip(_):
        with cache.open(record_of(paths[0])) as reader:
            return reader.read(range(NUM_FRAMES), short_side=20)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(clip, range(2))
    np.testing.assert_array_equal(one, other)
    assert cache.nbytes == one.nbytes


def test_many_threads_never_exceed_the_budget(paths):
    size = NUM_FRAMES * 20 * 30 * 3
    cache = FrameCache(3 * size)

    def clip(place):
        with cache.open(record_of(paths[place % 7])) as reader:
            return reader.read([0, place % NUM_FRAMES, NUM_FRAMES - 1], short_side=20)

    with ThreadPoolExecutor(8) as pool:
        clips = list(pool.map(clip, range(200)))
    for place, pixels in enumerate(clips):
        with VideoReader(paths[place % 7]) as reader:
            expected = reader.read([0, place % NUM_FRAMES, NUM_FRAMES - 1], short_side=20)
        np.testing.assert_array_equal(pixels, expected)
    assert cache.nbytes == 3 * size


def outcome(record, seed, cache):
    """Pixels and label of a clip, or what is said of a bad video."""
    try:
        pixels, label = load_clip(record, TRAIN, seed=seed, epoch=0, cache=cache)
    except BadVideoError as error:
        return str(error), error.path, error.frame
    return pixels.tobytes(), label


def test_damage_is_reported_as_without_a_cache_also_where_it_is_beside_the_clip(encode):
    """In each of 40 damaged files, some clips cannot be decoded and, in some, others can."""
    partly, cache = 0, FrameCache(PLENTY)
    for case in range(40):
        rng = np.random.default_rng(case)
        data = bytearray(encode(NUM_FRAMES, size=(64, 80), g=5, bf=2))
        place = int(rng.integers(100, len(data) - 100))
        data[place : place + 60] = rng.bytes(60)
        record = record_of(bytes(data))
        without = [outcome(record, seed, None) for seed in range(8)]
        assert [outcome(record, seed, cache) for seed in range(8)] == without
        partly += len({len(result) for result in without}) == 2
    assert partly >= 3
    assert len(cache) < 40


@pytest.fixture(scope="module")
def with_damage(paths, tmp_path_factory):
    """Eight videos; the one with id 7 is cut off."""
    damaged = tmp_path_factory.mktemp("damaged") / "damaged.mp4"
    with open(paths[0], "rb") as file:
        damaged.write_bytes(file.read()[:-200])
    return dataset_of([*paths, str(damaged)])


def stream(dataset, cache, *, position=0, num_workers=0):
    """Three epochs and a bit, from a position on, and how many bad videos were named."""
    quarantine = Quarantine(None, 0.5)
    with train_batches(
        dataset, TRAIN, batch_size=3, seed=4, num_clips_total=3 * len(dataset) + 2, position=position,
        num_workers=num_workers, quarantine=quarantine, cache=cache,
    ) as batches:  # fmt: skip
        return [{name: np.array(value) for name, value in batch.items()} for batch in batches], len(quarantine)


def assert_same_stream(received, expected) -> None:
    (batches, num_bad), (others, others_bad) = received, expected
    assert num_bad == others_bad
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for name in other:
            np.testing.assert_array_equal(batch[name], other[name])


@pytest.mark.parametrize("position", [0, 9])
@pytest.mark.parametrize("max_bytes", [5 * NUM_FRAMES * 22 * 33 * 3, PLENTY], ids=["too small", "enough"])
def test_the_stream_is_the_same_with_and_without(with_damage, position, max_bytes):
    cache = FrameCache(max_bytes)
    expected = stream(with_damage, None, position=position)
    assert_same_stream(stream(with_damage, cache, position=position), expected)
    assert cache.nbytes > 0
    batches, num_bad = expected
    assert num_bad == 1
    bad = [bool(mask) for batch in batches for id, mask in zip(batch["id"], batch["mask"], strict=True) if id == 7]
    assert bad in ([False] * 2, [False] * 3, [False] * 4), "the damaged one is bad in every epoch"


def test_processes_keep_frames_of_their_own(with_damage):
    cache = FrameCache(PLENTY)
    expected = stream(with_damage, None, position=9)
    assert_same_stream(stream(with_damage, cache, position=9, num_workers=2), expected)
    assert len(cache) == 0


def test_one_cache_serves_training_and_every_evaluation(paths, opened):
    clips = TrainClips(6, 2, "random", (20, 20), 16)
    cache = FrameCache(PLENTY)
    with train_batches(dataset_of(paths), clips, batch_size=7, seed=0, num_clips_total=21, cache=cache) as batches:
        assert len(list(batches)) == 3
    assert set(opened) == set(paths)  # batches of two epochs are made at once, so that one may be opened twice
    opened.clear()
    for _ in range(2):
        evaluated = dataset_of(paths[::-1], "val")
        with eval_batches(evaluated, EVAL, batch_size=7, cache=cache) as cached, \
             eval_batches(evaluated, EVAL, batch_size=7) as fresh:  # fmt: skip
            np.testing.assert_array_equal(next(cached)["video"], next(fresh)["video"])
    assert opened == []


def test_nothing_that_is_kept_goes_to_another_process(paths):
    cache = FrameCache(PLENTY)
    with cache.open(record_of(paths[0])) as reader:
        reader.read(range(NUM_FRAMES), short_side=20)
    sent = pickle.dumps(cache)
    assert len(sent) < 200
    copy = pickle.loads(sent)
    assert (copy.max_bytes, copy.nbytes, len(copy)) == (PLENTY, 0, 0)
    assert cache.divided(3).max_bytes == PLENTY // 3


def test_the_frames_end_with_a_stream_that_nobody_else_shares(paths):
    cache = FrameCache(PLENTY)
    alive = weakref.ref(cache)
    batches = train_batches(dataset_of(paths), TRAIN, batch_size=7, seed=0, num_clips_total=70, cache=cache)
    next(batches)
    del cache
    assert alive() is not None
    batches.close()
    gc.collect()
    assert alive() is None


def test_a_negative_budget_is_refused():
    with pytest.raises(ValueError, match=r"max_bytes must be >= 0, received max_bytes=-1\."):
        FrameCache(-1)
