"""Frame k is frame k: on every container, with B-frames, variable frame rate, seeks, stretches, rotations."""

import itertools
import random
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from jaxvid.data import packets
from jaxvid.data.container import LENIENT
from jaxvid.data.decode import VideoReader
from jaxvid.data.records import BadVideoError

X264 = {
    "gop12": {"g": 12, "bf": 3},
    "gop250": {"g": 250, "bf": 3},
    "pyramid": {"g": 30, "bf": 4, "x264-params": "b-pyramid=normal:ref=4:scenecut=0"},
    "open": {"g": 12, "bf": 3, "x264-params": "open-gop=1:scenecut=0:keyint=12:min-keyint=12"},
    "refresh": {"g": 20, "bf": 0, "x264-params": "intra-refresh=1:scenecut=0"},
    "all-intra": {"g": 1, "bf": 0},
}
ALTREF = {"auto-alt-ref": 1, "lag-in-frames": 16, "cpu-used": 8}  # frames that are stored and never shown
CASES = {
    **{f"mp4 {name}": {"container": "mp4", "codec": "libx264", **options} for name, options in X264.items()},
    **{f"mkv {name}": {"container": "matroska", "codec": "libx264", **X264[name]} for name in ("gop12", "open")},
    "mov fragments": {"container": "mov", "mux": {"movflags": "frag_keyframe+empty_moov"}, **X264["gop12"]},
    "ts": {"container": "mpegts", "codec": "libx264", **X264["gop12"]},
    "ts refresh": {"container": "mpegts", "codec": "libx264", **X264["refresh"]},
    "mkv refresh": {"container": "matroska", "codec": "libx264", **X264["refresh"]},
    "flv": {"container": "flv", "codec": "libx264", **X264["gop12"]},
    "raw h264": {"container": "h264", "codec": "libx264", **X264["gop12"]},
    "avi h264 B": {"container": "avi", "codec": "libx264", **X264["gop12"]},
    "avi mpeg4": {"container": "avi", "codec": "mpeg4", "g": 12, "bf": 0},
    "avi mpeg4 B": {"container": "avi", "codec": "mpeg4", "g": 12, "bf": 2},
    "mp4 mpeg4 B": {"container": "mp4", "codec": "mpeg4", "g": 12, "bf": 2},
    "mpg mpeg1 B": {"container": "mpeg", "codec": "mpeg1video", "g": 12, "bf": 2},
    "mpg mpeg2 B": {"container": "mpeg", "codec": "mpeg2video", "g": 12, "bf": 2},
    "webm vp8": {"container": "webm", "codec": "libvpx", "g": 20, **ALTREF},
    "webm vp9": {"container": "webm", "codec": "libvpx-vp9", "g": 20, **ALTREF},
    "mp4 hevc": {"container": "mp4", "codec": "libx265", "g": 12, "x265-params": "log-level=none:bframes=3:open-gop=1"},
    "gif": {"container": "gif", "codec": "gif"},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("keep", [True, False], ids=["in memory", "read again"])
def test_any_frames_are_those_of_decoding_in_order(name, keep, encode, numbers, monkeypatch):
    monkeypatch.setattr(packets, "MAX_KEPT_BYTES", 2**25 if keep else 0)
    data = encode(60, **CASES[name])
    rng = np.random.default_rng(0)
    with VideoReader(data) as reader:
        assert (reader.num_frames, reader.height, reader.width) == (60, 64, 80)
        every = reader.read(np.arange(60))
        assert numbers(every) == list(range(60))
        choices = [rng.integers(60, size=8) for _ in range(4)]
        choices += [np.arange(start, 60, stride) for start, stride in ((0, 7), (5, 4), (59, 1), (3, 2), (30, 29))]
        choices += [np.asarray([40, 3, 3, 59, 40])]
        for indices in choices:
            np.testing.assert_array_equal(reader.read(indices), every[indices], err_msg=str(indices))


def test_a_new_reader_and_a_used_one_and_bytes_and_a_file_agree(encode, tmp_path):
    data = encode(40, **X264["gop12"])
    path = tmp_path / "ünï cödé %d #1.mp4"
    path.write_bytes(data)
    with VideoReader(data) as reader, VideoReader(str(path)) as other:
        reader.read([39, 2])
        np.testing.assert_array_equal(reader.read([20, 21]), other.read([20, 21]))


def test_only_what_is_needed_is_decoded(encode, monkeypatch):
    """Near the end of a video with key frames every 12, the decoder sees one group of pictures, not the whole video."""
    seen = []
    original = VideoReader._decode
    monkeypatch.setattr(
        VideoReader,
        "_decode",
        lambda self, codec, packet, floor=None: seen.append(packet) or original(self, codec, packet, floor),
    )
    with VideoReader(encode(120, **X264["gop12"])) as reader:
        reader.read([100, 101])
        assert len(seen) <= 8
        seen.clear()
        reader.read([0, 118])
        assert len(seen) <= 1 + 12 + 2, "a jump over a hundred packets"
        seen.clear()
        reader.read([10, 13])
        assert 13 <= len(seen) <= 17, "too near to jump"


def test_frames_that_nothing_refers_to_are_passed_by(encode, monkeypatch):
    brought = []
    original = VideoReader._decode

    def spy(self, *args, **keywords):
        frames = original(self, *args, **keywords)
        brought.extend(frames)
        return frames

    monkeypatch.setattr(VideoReader, "_decode", spy)
    with VideoReader(encode(60, g=60, bf=3, **{"x264-params": "b-pyramid=none:b-adapt=0:scenecut=0"})) as reader:
        reader.read([0, 59])
    assert len(brought) < 30, "three of four frames are B-frames"


def test_variable_frame_rate(encode, numbers):
    gaps = [random.Random(0).choice([10, 33, 40, 250]) for _ in range(40)]
    times = [0, *itertools.accumulate(gaps[:-1])]

    def milliseconds(stream):
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)

    for container in ("mp4", "matroska"):
        data = encode(40, container=container, times=times, prepare=milliseconds, **X264["gop12"])
        with VideoReader(data) as reader:
            assert numbers(reader.read(range(40))) == list(range(40))
            np.testing.assert_allclose(reader.times, np.asarray(times) / 1000, atol=2e-3)
            assert numbers(reader.read([30, 5])) == [30, 5]
            inside = [k for k, t in enumerate(times) if 1000 <= t < 2000]
        with VideoReader(data, start=1.0, end=2.0) as reader:
            assert numbers(reader.read(range(len(reader)))) == inside


@pytest.mark.parametrize(
    "name", ["mp4 gop12", "mkv open", "mp4 gop250", "ts", "avi mpeg4", "avi mpeg4 B", "raw h264", "webm vp9"]
)
def test_a_stretch(name, encode, numbers):
    data = encode(75, rate=25, **CASES[name])
    for start, end, expected in (
        (1.0, 2.0, range(25, 50)),
        (None, 0.5, range(13)),
        (2.5, None, range(63, 75)),
        (1.01, 1.09, range(26, 28)),
        (0.0, float("inf"), range(75)),
        (2.9, 100.0, range(73, 75)),
    ):
        with VideoReader(data, start=start, end=end) as reader:
            assert len(reader) == len(expected)
            assert numbers(reader.read(range(len(reader)))) == list(expected), (start, end)
            np.testing.assert_allclose(reader.times, np.asarray(expected) / 25, atol=1.1e-3)
            assert reader.duration == pytest.approx(len(expected) / 25, abs=2e-3)
    with pytest.raises(BadVideoError, match=r"has no frame between 3 s and 4 s\.$"):
        VideoReader(data, start=3.0, end=4.0)


def test_a_stretch_of_a_long_video_reads_only_its_packets(encode):
    with VideoReader(encode(500, **X264["gop12"]), start=10.0, end=11.0) as reader:
        assert len(reader) == 25
        assert len(reader._packets.pts) < 50


def test_start_and_end_are_checked(encode):
    with pytest.raises(ValueError, match=r"0 <= start < end, received start=2, end=1\."):
        VideoReader(b"", start=2, end=1)


def test_fps_and_duration(encode):
    with VideoReader(encode(50, rate=25)) as reader:
        assert reader.fps == 25
        assert reader.duration == pytest.approx(2.0)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (66, 98), (64, 1000)])
@pytest.mark.parametrize("short_side", [None, 31, 64, 100])
def test_the_short_side(height, width, short_side, encode):
    with VideoReader(encode(3, size=(height, width))) as reader:
        clip = reader.read([0, 2], short_side=short_side)
        side = short_side or height
        assert clip.shape == (2, side, (2 * width * side + height) // (2 * height), 3)
        assert clip.dtype == np.uint8
        assert clip.flags.c_contiguous


@pytest.mark.parametrize("size", [(65, 77), (64, 77), (65, 80), (71, 129)])
def test_odd_sizes(size, encode, numbers):
    data = encode(12, container="matroska", codec="libvpx-vp9", size=size, **{"cpu-used": 8, "lag-in-frames": 0})
    with VideoReader(data) as reader:
        clip = reader.read(range(12))
        assert clip.shape == (12, *size, 3)
        assert numbers(clip) == list(range(12))
        edge = clip[:, :, -1].astype(int) - clip[:, :, -2]
        assert np.abs(edge).max() <= 12, "the last column is a picture's column"


def test_resizing_averages_and_keeps_colours(encode):
    """A flat grey stays what it is, and a shrunken picture is the mean of what it covers, up to the filter's width."""
    with VideoReader(encode(1, size=(128, 128), crf=1)) as reader:
        full = reader.read([0]).astype(float)
        small = reader.read([0], short_side=8).astype(float)
        means = full.reshape(1, 8, 16, 8, 16, 3).mean((2, 4))
        assert np.abs(small[:, :, 5:] - means[:, :, 5:]).max() < 3
        assert np.abs(small.mean() - full.mean()) < 3


def test_reading_is_deterministic(encode):
    data = encode(20)
    with VideoReader(data) as one, VideoReader(data) as two:
        np.testing.assert_array_equal(one.read([3, 9], short_side=37), two.read([9, 3], short_side=37)[::-1])


@pytest.mark.parametrize("indices", [[], [[1]], [0.5], [-1], [50], "ab"])
def test_indices_are_checked(indices, encode):
    with VideoReader(encode(50)) as reader, pytest.raises(ValueError, match="indices must"):
        reader.read(indices)


def test_the_short_side_is_checked(encode):
    with VideoReader(encode(2)) as reader, pytest.raises(ValueError, match=r"short_side must be >= 1"):
        reader.read([0], short_side=0)


def test_a_clip_is_bounded(encode):
    with VideoReader(encode(30)) as reader:
        with pytest.raises(BadVideoError, match=r"30 frames of 64 x 80 exceed max_bytes=460799\.$"):
            reader.read(range(30), max_bytes=30 * 64 * 80 * 3 - 1)
        assert reader.read(range(30), max_bytes=30 * 64 * 80 * 3).shape == (30, 64, 80, 3)


def test_4k_is_resized_frame_by_frame(encode, numbers):
    data = encode(10, size=(2160, 3840), preset="ultrafast", g=5)
    with VideoReader(data) as reader:
        assert (reader.height, reader.width) == (2160, 3840)
        tracemalloc.start()
        clip = reader.read(range(0, 10, 2), short_side=72)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert clip.shape == (5, 72, 128, 3)
        assert peak < 4 * clip.nbytes, "NumPy holds the result, not the frames of 25 MB"
        assert numbers(reader.read([4, 8])) == [4, 8]
        with pytest.raises(BadVideoError, match="max_bytes"):
            reader.read(range(10), max_bytes=200_000_000)


ROTATIONS = list(itertools.product((0, 90, 180, 270), (False, True), (False, True)))


@pytest.mark.parametrize(("degrees", "horizontal", "vertical"), ROTATIONS)
def test_rotation_and_mirroring(degrees, horizontal, vertical, encode):
    """FFmpeg's own convention: counter-clockwise by so many degrees, then mirrored."""

    def prepare(stream):
        stream.set_display_rotation(degrees, hflip=horizontal, vflip=vertical)

    with VideoReader(encode(6)) as reader:
        stored = reader.read([1, 5])
    shown = np.rot90(stored, degrees // 90, axes=(1, 2))
    shown = shown[:, :, ::-1] if horizontal else shown
    shown = shown[:, ::-1] if vertical else shown
    with VideoReader(encode(6, prepare=prepare)) as reader:
        assert (reader.height, reader.width) == shown.shape[1:3]
        np.testing.assert_array_equal(reader.read([1, 5]), shown)
        assert reader.read([0], short_side=32).shape[1:3] == ((32, 40) if degrees % 180 == 0 else (40, 32))


def test_an_edit_list_hides_frames(encode, numbers, tmp_path):
    """Cut without encoding anew: frames before the cut are in the file, to be decoded, but not to be shown."""
    source, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    source.write_bytes(encode(50, g=25, bf=0))
    with av.open(str(source)) as whole, av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as output:
        stream = output.add_stream_from_template(whole.streams.video[0])
        offset = 10 * whole.streams.video[0].duration // 50
        for packet in whole.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, stream
                output.mux(packet)
    with av.open(str(cut)) as check:
        assert sum(1 for packet in check.demux(video=0) if packet.is_discard) == 10
    with VideoReader(str(cut)) as reader:
        assert len(reader) == 40
        assert numbers(reader.read([39, 0, 20])) == [49, 10, 30]
    with VideoReader(str(cut), start=0.4) as reader:
        assert numbers(reader.read([0])) == [20]


def test_a_stream_that_starts_between_key_frames(encode, numbers):
    """Recorded from the middle: pictures before the first key frame cannot be decoded and do not count."""
    data = encode(60, container="mpegts", codec="mpeg2video", g=12, bf=0)
    cut = data[len(data) // 4 // 188 * 188 :]
    with VideoReader(cut) as reader:
        shown = numbers(reader.read(range(len(reader))))
        assert shown == list(range(shown[0], 60))
        assert shown[0] % 12 == 0


def test_times_that_mislead_give_way_to_counting(encode, numbers, monkeypatch):
    """AVI stores no presentation times; had the header hidden the B-frames, decoding would still notice."""
    original = packets.PacketReader._arrange

    def trusting(self, rows, fillers):
        original(self, [(pts, dts, key, shown) for pts, dts, key, shown in rows], fillers)
        if not self.timed:
            self.timed, self.shown = True, np.arange(len(rows))

    monkeypatch.setattr(packets.PacketReader, "_arrange", trusting)
    with VideoReader(encode(30, **CASES["avi mpeg4 B"])) as reader:
        assert reader._packets.timed
        assert numbers(reader.read([7, 20, 3])) == [7, 20, 3]
        assert not reader._packets.timed


def test_a_size_that_changes_is_brought_to_the_headers(encode, numbers):
    data = encode(10, container="h264", g=5) + encode(10, container="h264", size=(128, 160), g=5)
    with VideoReader(data) as reader:
        clip = reader.read(range(20))
        assert clip.shape == (20, 64, 80, 3)
        assert numbers(clip[:10]) == list(range(10))


def test_a_size_that_grows_without_bound_is_refused(encode):
    data = encode(10, container="h264", g=5) + encode(1, container="h264", size=(4400, 8200), preset="ultrafast")
    with pytest.raises(BadVideoError, match="is damaged"):
        VideoReader(data)


class Misled:
    """A container whose seeks land after the end, or fail."""

    def __init__(self, container, fails):
        self._container, self._fails = container, fails

    def __getattr__(self, name):
        return getattr(self._container, name)

    def seek(self, offset, *, stream):
        if self._fails:
            raise av.PermissionError(1, "Operation not permitted")
        for _ in self._container.demux(stream):
            pass


@pytest.fixture(params=[False, True], ids=["lands elsewhere", "fails"])
def misled(monkeypatch, request):
    original = packets.open_container
    opened = []

    def once(video, **options):
        opened.append(video)
        return Misled(original(video, **options), request.param) if len(opened) == 1 else original(video)

    monkeypatch.setattr(packets, "open_container", once)
    return opened


def test_a_seek_that_misses_is_noticed(encode, numbers, misled, monkeypatch):
    monkeypatch.setattr(packets, "MAX_KEPT_BYTES", 0)
    with VideoReader(encode(60, **X264["gop12"])) as reader:
        assert numbers(reader.read([40, 50])) == [40, 50]
        assert len(misled) == 2, "opened anew and read from the beginning"


@pytest.mark.parametrize("start", [1.0, 2.0])
def test_a_seek_to_a_stretch_that_misses_is_noticed(start, encode, numbers, misled):
    with VideoReader(encode(60, **X264["gop12"]), start=start, end=start + 0.2) as reader:
        assert numbers(reader.read(range(5))) == list(range(int(25 * start), int(25 * start) + 5))
    assert len(misled) == 2


def test_a_file_that_changes_while_it_is_read_is_refused(encode, monkeypatch):
    monkeypatch.setattr(packets, "MAX_KEPT_BYTES", 0)
    with VideoReader(encode(60, **X264["gop12"])) as reader:
        reader._packets._order[41] = (-1, -1)
        with pytest.raises(BadVideoError, match="gives other packets when it is read again"):
            reader.read([45])


def test_a_promised_frame_that_does_not_come_is_damage(encode, monkeypatch):
    original = VideoReader._decode

    def swallowing(self, codec, packet, floor=None):
        return [frame for frame in original(self, codec, packet, floor) if frame.pts // 512 != 30]

    monkeypatch.setattr(VideoReader, "_decode", swallowing)
    with VideoReader(encode(60, **X264["gop12"])) as reader:
        with pytest.raises(BadVideoError, match=r"is damaged at frame 30: .*promises 60 frames and holds 59") as caught:
            reader.read([29, 30])
        assert caught.value.frame == 30
        assert reader.read([29, 31]).shape[0] == 2


@pytest.mark.data
def test_real_videos_decode_or_fail_with_one_sentence(shared):
    broken = {"decord_corrupted.mp4": 28}
    for path in sorted(shared("data", "decode_samples").iterdir()):
        if path.suffix == ".md":
            continue
        if path.name in broken:
            with VideoReader(path) as reader:
                good = reader.read(range(20), short_side=64)
                assert good.shape[0] == 20
                with pytest.raises(BadVideoError, match=r"^[^\n]*\.$") as caught:
                    reader.read(range(len(reader)), short_side=64)
            assert caught.value.path == str(path)
            assert caught.value.frame >= broken[path.name]
            continue
        with av.open(str(path), **LENIENT) as container:
            count = sum(1 for _ in container.decode(video=0))
        with VideoReader(path) as reader:
            assert reader.num_frames == count, path.name
            every = reader.read(np.arange(count), short_side=48)
            for indices in (np.arange(count - 1, 0, -count // 7), np.arange(count // 2, count // 2 + 16)):
                np.testing.assert_array_equal(reader.read(indices, short_side=48), every[indices])


@pytest.mark.data
@pytest.mark.parametrize("part", range(4))
def test_no_false_alarm_on_120_real_clips(shared, part):
    paths = sorted(shared("data", "ut_interaction").glob("*/*.avi"))
    assert len(paths) == 120
    for path in paths[part::4]:
        with VideoReader(path) as reader:
            last = reader.num_frames - 1
            assert 48 <= last + 1 <= 183
            assert reader.read([last, 0, last // 2], short_side=32).shape[0] == 3
