"""Sizes, corners, crops and flips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvid.data import augment
from jaxvid.data.flow import quantise


def coordinates(height: int, width: int) -> np.ndarray:
    """``[2 H W 2]``: every pixel holds its own row and column."""
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1).astype(np.uint8)
    return np.stack([grid, grid])


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), short_side=st.integers(1, 600))
@settings(max_examples=200, deadline=None)
def test_resizing_keeps_the_shape_to_half_a_pixel(height, width, short_side):
    new_height, new_width = augment.resized_size(height, width, short_side)
    assert min(new_height, new_width) == short_side
    assert abs(new_height * width - new_width * height) <= max(height, width) / 2 + min(height, width) / 2
    assert augment.resized_size(width, height, short_side) == (new_width, new_height)


def test_resizing_rounds_to_the_nearest_pixel():
    assert augment.resized_size(240, 320, 112) == (112, 149)  # 149.33
    assert augment.resized_size(2, 3, 3) == (3, 5)  # 4.5
    assert augment.resized_size(1080, 1920, 1080) == (1080, 1920)


@pytest.mark.parametrize("name", ["height", "width", "short_side"])
def test_a_size_below_one_is_named(name):
    sizes = {"height": 4, "width": 4, "short_side": 4} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be >= 1, received {name}=0"):
        augment.resized_size(**sizes)


def test_random_corners_reach_every_place_equally_often():
    rng = np.random.Generator(np.random.Philox(0))
    corners = [augment.random_corner(6, 8, 5, rng) for _ in range(1600)]
    kinds, counts = np.unique(corners, axis=0, return_counts=True)
    assert kinds.tolist() == [[top, left] for top in range(2) for left in range(4)]
    assert np.sum((counts - 200) ** 2 / 200) < 24.3  # 99.9 % quantile of chi-square with 7 degrees of freedom


def test_a_crop_as_large_as_the_frame_has_one_place():
    rng = np.random.default_rng(0)
    assert augment.random_corner(7, 7, 7, rng) == (0, 0)
    assert augment.eval_corners(7, 7, 7, 3) == ((0, 0), (0, 0), (0, 0))


def test_three_crops_touch_both_ends_of_the_longer_side():
    assert augment.eval_corners(10, 20, 8, 3) == ((1, 0), (1, 6), (1, 12))
    assert augment.eval_corners(20, 10, 8, 3) == ((0, 1), (6, 1), (12, 1))
    assert augment.eval_corners(20, 10, 8, 1) == ((6, 1),)
    assert augment.eval_corners(9, 9, 8, 3)[2] == (0, 1)  # a square counts as a landscape


def test_crops_hold_the_pixels_of_their_place_in_every_frame():
    video = coordinates(12, 17)
    cut = augment.crop(video, (3, 5), 6)
    assert cut.shape == (2, 6, 6, 2)
    assert np.shares_memory(cut, video)
    assert cut[0, 0, 0].tolist() == [3, 5]
    assert cut[1, 5, 5].tolist() == [8, 10]


def test_a_flip_exchanges_left_and_right_only():
    video = coordinates(3, 4)
    flipped = augment.flip(video)
    assert flipped[0, 1].tolist() == [[1, 3], [1, 2], [1, 1], [1, 0]]
    np.testing.assert_array_equal(augment.flip(flipped), video)


@pytest.mark.parametrize(
    "call",
    [
        lambda: augment.random_corner(10, 20, 11, np.random.default_rng(0)),
        lambda: augment.eval_corners(10, 20, 11, 1),
        lambda: augment.crop(coordinates(10, 20), (0, 0), 11),
    ],
)
def test_a_crop_larger_than_the_frame_is_an_error(call):
    with pytest.raises(ValueError, match="crop_size=11 for a frame of 10 x 20 pixels"):
        call()


def test_a_crop_outside_the_frame_is_an_error():
    for corner in [(5, 0), (-1, 0), (0, 13)]:
        with pytest.raises(ValueError, match="must lie inside the frame"):
            augment.crop(coordinates(12, 20), corner, 8)


def test_there_are_one_or_three_crops():
    with pytest.raises(ValueError, match="num_crops must be 1 or 3, received num_crops=2"):
        augment.eval_corners(10, 20, 8, 2)


def test_a_flip_of_flow_negates_what_goes_to_the_side_and_nothing_else():
    video = np.random.default_rng(0).integers(1, 256, (2, 3, 5, 3), np.uint8)
    before = video.copy()
    flipped = augment.flip_flow(video)
    assert flipped.dtype == np.uint8
    np.testing.assert_array_equal(flipped[..., 0], 256 - video[:, :, ::-1, 0].astype(int))
    np.testing.assert_array_equal(flipped[..., 1:], video[:, :, ::-1, 1:])
    np.testing.assert_array_equal(augment.flip_flow(flipped), video)
    np.testing.assert_array_equal(video, before)
    assert augment.flip_flow(np.array([[[[0, 0, 0], [128, 0, 0]]]], np.uint8))[0, 0, :, 0].tolist() == [128, 255]


def test_a_flip_of_flow_is_the_flow_of_the_flipped_video():
    flow = np.random.default_rng(0).uniform(-25, 25, (2, 4, 6, 2))
    mirrored = flow[:, :, ::-1] * np.array([-1, 1])
    np.testing.assert_array_equal(augment.flip_flow(quantise(flow, 20)), quantise(mirrored, 20))
