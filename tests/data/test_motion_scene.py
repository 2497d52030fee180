"""The pictures: the object is where the courses say, and the splits share no appearance."""

import itertools

import numpy as np
import pytest

from jaxvid.data.datasets.motion_courses import DIMENSIONS
from jaxvid.data.datasets.motion_scene import HEIGHT, PALETTES, PATTERNS, WIDTH, draw_appearance, render


def clip(seed=0, num_frames=3, split="train", **values):
    courses = np.zeros((num_frames, len(DIMENSIONS)))
    for name, column in values.items():
        courses[:, DIMENSIONS.index(name)] = column
    return render(draw_appearance(split, np.random.default_rng(seed)), courses)


def centres(mask):
    grid = np.mgrid[:HEIGHT, :WIDTH]
    return np.array([[axis[frame].mean() for axis in grid] for frame in mask])


def test_shapes_and_types():
    frames, mask = clip()
    assert frames.shape == (3, HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8
    assert mask.shape == (3, HEIGHT, WIDTH)
    assert mask.dtype == bool


@pytest.mark.parametrize(("name", "axis"), [("down", 0), ("across", 1)])
def test_places_move_the_object_by_pixels(name, axis):
    shift = np.diff(centres(clip(**{name: [-0.5, 0, 0.5], "size": -0.8})[1]), axis=0)
    assert shift[:, axis] == pytest.approx(0.5 * 0.18 * HEIGHT, abs=2.8)  # shaking moves each end by up to 1.2
    assert np.abs(shift[:, 1 - axis]).max() < 2.8


def test_size_grows_the_area_exponentially():
    area = clip(size=[-1, 0, 1])[1].sum((1, 2))
    assert area[1] / area[0] == pytest.approx(np.exp(2 * 0.38), rel=0.1)
    assert area[2] / area[1] == pytest.approx(np.exp(2 * 0.38), rel=0.1)


def test_positive_tilt_is_clockwise():
    tilts = np.array([-0.5, 0.0, 0.5])
    mask = clip(seed=1, tilt=tilts)[1]
    for frame, tilt in zip(mask, tilts, strict=True):
        rows, columns = np.nonzero(frame)
        covariance = np.cov(columns, -rows)  # up is positive
        axis = np.linalg.eigh(covariance)[1][:, 1]
        axis = axis * np.sign(axis[1])  # the upper end of the longer axis
        assert np.arctan2(axis[0], axis[1]) == pytest.approx(tilt * np.pi / 3, abs=0.15)  # to the right is clockwise


def test_light_flashes_and_darkens_the_object_only():
    frames, mask = clip(light=[-1, 0, 1])
    inside = np.logical_and.reduce(mask)
    dark, plain, light = (frame[inside].mean() for frame in frames)
    assert dark < 50 < plain < 205 < light
    outside = ~np.logical_or.reduce(mask)
    assert frames[:, outside].mean((1, 2)) == pytest.approx(frames[1, outside].mean(), abs=3)


def test_pictures_repeat_with_their_seed_and_the_camera_shakes():
    one, same = clip(seed=4)[0], clip(seed=4)[0]
    assert (one == same).all()
    assert len({frame.tobytes() for frame in one}) == 3
    assert np.abs(one[0].astype(float) - one[1]).mean() > 1


def test_appearance_is_drawn_from_the_palette_of_its_split():
    for split, palette in PALETTES.items():
        for seed in range(50):
            drawn = draw_appearance(split, np.random.default_rng(seed))
            assert {drawn.pattern, drawn.background_pattern} <= set(palette.patterns) <= set(PATTERNS)
            for value, intervals in (
                *((hue, palette.hues) for hue in drawn.hues),
                (drawn.exponent, palette.exponents),
                (drawn.aspect, palette.aspects),
                (abs(drawn.taper), palette.tapers),
            ):
                assert any(low <= value <= high for low, high in intervals)
            assert np.abs(drawn.colors.mean(0) - drawn.background_colors.mean(0)).sum() >= 120


def test_splits_share_no_appearance():
    train, val = PALETTES["train"], PALETTES["val"]
    assert not set(train.patterns) & set(val.patterns)
    for name in ("hues", "exponents", "aspects", "tapers"):
        for (a, b), (c, d) in itertools.product(getattr(train, name), getattr(val, name)):
            assert b < c or d < a, f"{name}: [{a}, {b}] and [{c}, {d}] overlap"


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_patterns_fill_their_range(name):
    field = PATTERNS[name]((72, 80), 14.0, np.random.default_rng(0))
    assert field.shape == (72, 80)
    assert -1 <= field.min() < -0.4
    assert 0.4 < field.max() <= 1
