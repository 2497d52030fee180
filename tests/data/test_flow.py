"""Optical flow: known translations, its pixels, its files, and what has none."""

import io

import av
import numpy as np
import pytest
from scipy import ndimage

from jaxvid.data.decode import VideoReader
from jaxvid.data.flow import (
    NEUTRAL,
    FlowSettings,
    dequantise,
    encode,
    is_flow_of,
    optical_flow,
    quantise,
    write_flow,
)
from jaxvid.data.records import BadVideoError


def texture(seed=0, size=96):
    """Smooth blobs, grey, in [30, 220]."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), 2.0, mode="wrap")
    return 125 + 95 * noise / np.abs(noise).max()


def moved(u, v, height=48, width=56, seed=0):
    """A window on the texture whose content has moved by ``u`` pixels to the right and ``v`` down."""
    rows, columns = np.mgrid[20 : 20 + height, 20 : 20 + width]
    grey = ndimage.map_coordinates(texture(seed), [rows - v, columns - u], order=3, mode="wrap")
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)[..., None].repeat(3, -1)


def draw(u, v):
    """For the fixture `encode` of videos: frame ``k`` has moved ``k`` times."""
    return lambda k, height, width: moved(k * u, k * v, height, width)


def flow_of(video, **settings):
    file = io.BytesIO()
    write_flow(video, FlowSettings(**settings), file)
    return file.getvalue()


def pixels(video):
    with VideoReader(video) as reader:
        return reader.read(range(reader.num_frames))


def inner(flow):
    """Without the border, beyond which nobody knows what moves."""
    return flow[..., 8:-8, 8:-8, :]


@pytest.mark.parametrize(("u", "v"), [(0, 0), (1.5, 0), (0, -2), (-3.25, 1.0)])
def test_a_known_translation(u, v):
    flow = optical_flow(moved(0, 0), moved(u, v))
    assert flow.shape == (48, 56, 2)
    assert flow.dtype == np.float32
    error = np.abs(inner(flow) - np.array([u, v]))
    assert error.mean() < 0.1
    assert np.quantile(error, 0.95) < 0.3
    assert np.abs(inner(flow).mean((0, 1)) - [u, v]).max() < 0.05


def test_a_mirrored_pair_has_the_mirrored_flow():
    a, b = moved(0, 0), moved(2, 1)
    flow, mirrored = optical_flow(a, b), optical_flow(a[:, ::-1], b[:, ::-1])
    back = mirrored[:, ::-1] * np.array([-1, 1])
    assert np.abs(inner(back) - inner(flow)).mean() < 0.05


def test_pixels_by_hand():
    flow = np.array([[0, 0], [10, 0], [0, -10], [20, 20], [-30, 0], [0.07, 0], [0.09, 0]])
    assert quantise(flow, bound=20).tolist() == [
        [128, 128, 128],
        [192, 128, 192],  # 63.5 rounds to the even 64
        [128, 64, 192],
        [255, 255, 255],
        [1, 128, 255],
        [128, 128, 128],  # a step is 20/127 = 0.157 pixels
        [129, 128, 129],
    ]
    back = dequantise(np.array([[1, 255, 3], [128, 192, 0]], np.uint8), 20)
    np.testing.assert_allclose(back, [[-20, 20], [0, 1280 / 127]], rtol=1e-6)


def test_laws_of_the_pixels():
    flow = np.random.default_rng(0).uniform(-25, 25, (1000, 2))
    stored = quantise(flow, bound=20)
    assert stored.min() >= 1
    np.testing.assert_array_equal(quantise(-flow, 20)[:, :2], 256 - stored[:, :2].astype(int))
    np.testing.assert_array_equal(quantise(-flow, 20)[:, 2], stored[:, 2])
    np.testing.assert_array_equal(quantise(flow / 2, 10), stored)
    inside = np.clip(flow, -20, 20)
    assert np.abs(dequantise(stored, 20) - inside).max() <= 20 / 254 + 1e-6
    np.testing.assert_array_equal(quantise(dequantise(stored, 20), 20)[:, :2], stored[:, :2])


def test_a_video_of_flow_is_its_rgb_video_in_length_times_and_size(encode):
    video = encode(5, size=(48, 56), draw=draw(1.5, -1), crf=10, rate=12)
    flow = flow_of(video)
    with VideoReader(video) as rgb, VideoReader(flow) as reader:
        assert (reader.num_frames, reader.height, reader.width) == (5, 48, 56)
        assert reader.fps == rgb.fps == 12
        np.testing.assert_allclose(reader.times, rgb.times, atol=1e-6)
        assert reader.duration == pytest.approx(rgb.duration, abs=1e-5)
        stored = reader.read(range(5))
    found = inner(dequantise(stored, 20))
    assert np.abs(found.mean((1, 2)) - [1.5, -1]).max() < 0.2
    np.testing.assert_allclose(inner(stored)[..., 2].mean(), 128 + 127 / 20 * np.hypot(1.5, 1), atol=1)
    np.testing.assert_array_equal(stored[4], stored[3]), "the last frame repeats the one before it"
    assert (stored[3] != stored[2]).any()
    assert flow_of(video) == flow, "the same bytes every time"


def test_what_is_still_is_128_exactly(encode):
    stored = pixels(flow_of(encode(3, size=(48, 56), draw=draw(0, 0), crf=0)))
    assert (stored == NEUTRAL).all()


def test_the_bound_clips(encode):
    video = encode(2, size=(48, 56), draw=draw(3, 0), crf=10)
    stored = inner(pixels(flow_of(video, bound=1.0)))
    assert (np.median(stored[..., 0]), np.median(stored[..., 2])) == (255, 255)
    assert np.abs(np.median(stored[..., 1]) - 128) < 20


def test_large_frames_are_shrunk_before_and_small_ones_are_not_enlarged(encode):
    video = encode(2, size=(96, 112), draw=draw(4, 0), crf=10)
    with VideoReader(flow_of(video, short_side=48)) as reader:
        assert (reader.height, reader.width) == (48, 56)
        found = inner(dequantise(reader.read([0]), 20))
    assert found[..., 0].mean() == pytest.approx(2.0, abs=0.2), "in pixels of the flow video"
    with VideoReader(flow_of(video, short_side=200)) as reader:
        assert (reader.height, reader.width) == (96, 112)


def test_no_pixel_changes_in_a_file_and_no_channel_is_mixed_with_another():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 33, 47, 3), np.uint8)
    times = np.array([0, 0.04, 0.5, 1.0])
    file = io.BytesIO()
    encode_file(frames, times, file)
    np.testing.assert_array_equal(pixels(file.getvalue()), frames)
    with VideoReader(file.getvalue()) as reader:
        np.testing.assert_allclose(reader.times, times, atol=1e-6)
        np.testing.assert_array_equal(reader.read([2]), frames[2:3])
    flat = np.full((2, 40, 60, 3), (200, 128, 3), np.uint8)
    file = io.BytesIO()
    encode_file(flat, [0, 1], file)
    with VideoReader(file.getvalue()) as reader:
        for short_side in (13, 30, 55):
            resized = reader.read([0, 1], short_side=short_side)
            assert np.unique(resized.reshape(-1, 3), axis=0).tolist() == [[200, 128, 3]]


def encode_file(frames, times, file):
    encode(frames, np.asarray(times, float), 25.0, file)


@pytest.mark.parametrize("fps", [5, 12, 24000 / 1001, 25, 30000 / 1001, 59.94])
def test_a_fixed_rate_is_exact(fps):
    file, times = io.BytesIO(), np.arange(7) / fps
    encode(np.full((7, 8, 8, 3), 128, np.uint8), times, fps, file)
    with VideoReader(file.getvalue()) as reader:
        np.testing.assert_allclose(reader.times, times, atol=1e-12)
        assert reader.fps == pytest.approx(fps, rel=1e-12)


def test_equal_times_become_different_ones():
    file = io.BytesIO()
    encode_file(np.full((4, 8, 8, 3), 128, np.uint8), [0, 0, 0, 1], file)
    with VideoReader(file.getvalue()) as reader:
        np.testing.assert_allclose(reader.times, [0, 1e-6, 2e-6, 1], atol=1e-9)


def test_every_changed_bit_of_a_picture_is_noticed():
    frames = np.random.default_rng(0).integers(100, 156, (3, 24, 32, 3), np.uint8)
    file = io.BytesIO()
    encode_file(frames, [0, 1, 2], file)
    content = file.getvalue()
    with av.open(io.BytesIO(content)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    rng = np.random.default_rng(1)
    for position, size in packets:
        for _ in range(8):
            damaged = bytearray(content)
            damaged[position + int(rng.integers(size))] ^= 1 << int(rng.integers(8))
            with pytest.raises(BadVideoError):
                pixels(bytes(damaged))


def test_what_has_no_flow_is_a_bad_video(encode):
    with pytest.raises(BadVideoError, match="has 1 frame, as an image has, and flow is what happens between 2"):
        flow_of(encode(1, size=(48, 56), draw=draw(1, 0)))
    thin = io.BytesIO()
    encode_file(np.zeros((2, 5, 1, 3), np.uint8), [0, 1], thin)
    with pytest.raises(BadVideoError, match="must have frames of at least 2 x 2 pixels, received 5 x 1"):
        flow_of(thin.getvalue())


def test_a_video_that_cannot_be_decoded_is_a_bad_video(encode):
    with pytest.raises(BadVideoError, match="cut off"):
        flow_of(encode(5, size=(48, 56), draw=draw(1, 0))[:-30])


def test_whether_a_file_is_the_flow_of_a_video(encode, tmp_path):
    path, settings = tmp_path / "flow.mp4", FlowSettings()
    video = encode(4, size=(48, 56), draw=draw(1, 0))
    assert not is_flow_of(str(path), video, settings)
    path.write_bytes(flow_of(video))
    assert is_flow_of(str(path), video, settings)
    assert not is_flow_of(str(path), encode(5, size=(48, 56), draw=draw(1, 0)), settings), "longer"
    assert not is_flow_of(str(path), encode(4, size=(56, 48), draw=draw(1, 0)), settings), "of another size"
    assert not is_flow_of(str(path), encode(4, size=(48, 56), draw=draw(1, 0), rate=12), settings), "slower"
    assert not is_flow_of(str(path), video, FlowSettings(short_side=32)), "larger than wanted"
    path.write_bytes(path.read_bytes()[:-10])
    assert not is_flow_of(str(path), video, settings), "cut off"
    with pytest.raises(BadVideoError):
        is_flow_of(str(path), b"", settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bound": 0}, "bound must be > 0 and finite, received bound=0."),
        ({"bound": float("inf")}, "bound must be > 0 and finite"),
        ({"bound": float("nan")}, "bound must be > 0 and finite"),
        ({"short_side": 1}, "short_side must be >= 2, received short_side=1."),
    ],
)
def test_settings_out_of_range(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        FlowSettings(**settings)


def test_without_scikit_image_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage", None)
    with pytest.raises(ImportError, match=r'optical flow needs scikit-image: pip install "jaxvid\[flow\]"'):
        optical_flow(moved(0, 0), moved(1, 0))
