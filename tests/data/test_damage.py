"""Damaged bytes: noticed at the rates that the docstring of jaxvid.data.decode states, and never any other error."""

import io
import itertools
import random

import av
import numpy as np
import pytest

from jaxvid.data.decode import VideoReader
from jaxvid.data.records import BadVideoError

KINDS = {
    "h264": {"container": "mp4", "codec": "libx264", "g": 12, "bf": 2, "crf": 18, "preset": "veryfast"},
    "mpeg4": {"container": "avi", "codec": "mpeg4", "g": 12, "bf": 0},
    "mpeg4 B": {"container": "avi", "codec": "mpeg4", "g": 12, "bf": 2},
}
FUZZED = {
    **KINDS,
    "mkv": {**KINDS["h264"], "container": "matroska"},
    "mov fragments": {**KINDS["h264"], "container": "mov", "mux": {"movflags": "frag_keyframe+empty_moov"}},
    "ts": {**KINDS["h264"], "container": "mpegts"},
    "mpg": {"container": "mpeg", "codec": "mpeg1video", "g": 12, "bf": 2},
    "vp9": {"container": "webm", "codec": "libvpx-vp9", "g": 12, "cpu-used": 8, "lag-in-frames": 0},
    "gif": {"container": "gif", "codec": "gif"},
}


@pytest.fixture(scope="module")
def noisy(encode):
    """Videos whose packets are mostly picture: 24 frames of a moving texture, the H.264 ones larger than the others."""
    texture = np.random.default_rng(0).integers(255, size=(60, 60, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    rng = np.random.default_rng(1)

    def draw(k, height, width):
        grain = rng.integers(-6, 7, (height, width, 1))
        return np.clip(texture[2 * k : 2 * k + height, 3 * k : 3 * k + width] + grain, 0, 255).astype(np.uint8)

    sizes = {name: (240, 320) if options["codec"] == "libx264" else (96, 128) for name, options in FUZZED.items()}
    return {name: encode(24, size=sizes[name], draw=draw, **options) for name, options in FUZZED.items()}


def damaged(data, where, how, rng):
    spoilt = bytearray(data)
    if how == "bit":
        spoilt[where] ^= 1 << rng.randrange(8)
    else:
        spoilt[where : where + 64] = bytes(64) if how == "zeros" else rng.randbytes(64)
    return bytes(spoilt)


def pictures(data):
    """Where the encoded pictures begin and end in the file, roughly."""
    start = data.index(b"mdat") + 60 if b"mdat" in data else data.index(b"movi") + 60
    end = data.rindex(b"moov") if b"mdat" in data else data.rindex(b"idx1")
    return start, end - 120


def read_all(data, most=100):
    with VideoReader(data) as reader:
        count = min(len(reader), most)
        assert reader.fps >= 0
        assert reader.duration >= 0
        clip = reader.read(range(count), short_side=32)
        assert len(clip) == count
        return clip


def attempt(data, most=100):
    """The clip, or else the error; anything but a BadVideoError fails the test."""
    try:
        return read_all(data, most), None
    except BadVideoError as error:
        return None, error


@pytest.mark.parametrize("how", ["zeros", "noise"])
@pytest.mark.parametrize(("name", "least"), [("h264", 0.6), ("mpeg4", 0.95), ("mpeg4 B", 0.95)])
def test_damage_in_the_middle_is_noticed(name, least, how, noisy):
    data = noisy[name]
    clean = read_all(data)
    rng = random.Random(0)
    noticed = unnoticed = 0
    for _ in range(30):
        clip, error = attempt(damaged(data, rng.randrange(*pictures(data)), how, rng))
        noticed += error is not None
        unnoticed += error is None and (clip.shape != clean.shape or not np.array_equal(clip, clean))
    assert noticed + unnoticed >= 25, "the damage is real"
    assert noticed >= least * (noticed + unnoticed), f"{noticed} noticed, {unnoticed} not"


def test_damage_behind_the_wanted_frames_harms_nothing_and_damage_before_them_does(noisy):
    data = noisy["mpeg4"]
    start, end = pictures(data)
    with VideoReader(data) as reader:
        clean = reader.read([0, 1, 2, 3])
    spoilt = damaged(data, start + (end - start) * 8 // 10, "zeros", random.Random(0))
    with VideoReader(spoilt) as reader:
        np.testing.assert_array_equal(reader.read([0, 1, 2, 3]), clean)
        with pytest.raises(BadVideoError, match=r"damaged") as caught:
            reader.read([23])
        assert caught.value.frame is not None
        assert 12 <= caught.value.frame < 24
        np.testing.assert_array_equal(reader.read([0, 1, 2, 3]), clean, err_msg="the rest is still good")


def test_a_damaged_reference_is_noticed_at_frames_that_refer_to_it(noisy):
    """The frame itself is not asked for, only one that is built on it."""
    data = noisy["mpeg4"]
    start, end = pictures(data)
    spoilt = damaged(data, start + (end - start) // 6, "noise", random.Random(1))
    with VideoReader(spoilt) as reader, pytest.raises(BadVideoError):
        reader.read([11])


@pytest.mark.parametrize("how", ["bit", "zeros", "noise"])
@pytest.mark.parametrize("name", FUZZED)
def test_whatever_is_damaged_there_is_a_clip_or_one_sentence(name, how, noisy):
    """Everywhere in the file, headers and index too."""
    data, rng = noisy[name], random.Random(name + how)
    for trial in range(25):
        where = rng.randrange(600) if trial % 3 == 0 else rng.randrange(len(data))
        where = len(data) - 1 - rng.randrange(600) if trial % 3 == 1 else where
        _, error = attempt(damaged(data, where, how, rng), most=30)
        if error is not None:
            assert str(error).endswith(".")
            assert "\n" not in str(error)


@pytest.mark.parametrize("spoilt", [1.0, 0.2], ids=["all of it", "its end"])
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_damaged_first_key_picture_does_not_shorten_the_video(container, spoilt, encode):
    data = bytearray(encode(12, container=container, g=6))
    with av.open(io.BytesIO(data)) as video:
        first, second = itertools.islice((packet.pos for packet in video.demux(video=0) if packet.size), 2)
    data[second - int(spoilt * (second - first - 40)) : second - 20] = bytes(int(spoilt * (second - first - 40)) - 20)
    with pytest.raises(BadVideoError, match="is damaged"):
        read_all(bytes(data))


VPX = {"g": 12, "cpu-used": 8, "lag-in-frames": 0}
STRETCHED = {
    "vp8 webm": {"container": "webm", "codec": "libvpx", **VPX},
    "vp8 live": {"container": "webm", "codec": "libvpx", "mux": {"live": "1"}, **VPX},
    "vp9 webm": {"container": "webm", "codec": "libvpx-vp9", **VPX},
    "vp8 mkv": {"container": "matroska", "codec": "libvpx", **VPX},
    "h264 mkv": {"container": "matroska", "g": 12, "bf": 2, "preset": "veryfast"},
    "mpeg4 avi": {"container": "avi", "codec": "mpeg4", "g": 12, "bf": 0},
    "h264 avi": {"container": "avi", "g": 12, "bf": 0, "preset": "veryfast"},
}


@pytest.fixture(scope="module")
def grainy(encode):
    rng = np.random.default_rng(0)

    def draw(k, height, width):
        return rng.integers(60, 190, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)

    return {name: encode(60, size=(64, 80), draw=draw, **options) for name, options in STRETCHED.items()}


@pytest.mark.parametrize("how", ["zeros", "noise"])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("name", STRETCHED)
def test_no_stretch_of_damage_shortens_a_video(name, share, how, grainy):
    data, rng = grainy[name], random.Random(1)
    length = int(share * len(data))
    with VideoReader(data) as reader:
        assert len(reader) == 60, "whole, it is not refused"
    refused = 0
    for _ in range(12):
        where = rng.randrange(len(data) - length)
        spoilt = data[:where] + (bytes(length) if how == "zeros" else rng.randbytes(length)) + data[where + length :]
        clip, error = attempt(spoilt)
        refused += error is not None
        assert error is not None or len(clip) == 60, f"{len(clip)} frames are left, damage at {where}"
    if "avi" not in name:  # there, so much may lie in the sound, or in the index behind the frames
        assert refused == 12


@pytest.mark.parametrize("container", ["webm", "matroska"])
def test_a_frame_whose_header_is_lost_leaves_no_gap(container, grainy):
    """The chain is whole: only the first bytes of one VP8 frame are zero, which says "key frame, not shown"."""
    data = bytearray(grainy["vp8 webm" if container == "webm" else "vp8 mkv"])
    with av.open(io.BytesIO(data)) as video:
        packet = next(itertools.islice(video.demux(video=0), 5, None))
        at = data.index(bytes(packet))
    data[at : at + 16] = bytes(16)
    with pytest.raises(BadVideoError, match=r"is damaged: the header of its packet 5 is not one of VP8\.$"):
        VideoReader(bytes(data))
