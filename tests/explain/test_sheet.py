"""Sheets and films: colours are where the map is, frames stay as they are, and sizes suit an encoder."""

import dataclasses

import numpy as np
import pytest

from jaxvid.explain.sheet import Heated, draw_film, draw_sheet, overlay, scaled


def heated(T=3, H=20, W=30, names=("mean", "own"), seed=0):
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (T, H, W, 3), np.uint8)
    maps = np.zeros((T, H, W, len(names)), np.float32)
    maps[:, : H // 2, : W // 2] = 2.0
    return Heated(video, maps, names, ("clip.mp4", "universal: a (61%)"))


def test_red_is_where_the_map_is_and_blue_where_it_is_not():
    video = np.full((2, 4, 6, 3), 128, np.uint8)
    heat = np.zeros((2, 4, 6))
    heat[1, :2, :3] = 0.9
    drawn = overlay(video, heat).astype(int)
    hot = heat > 0.5
    assert (drawn[hot][:, 0] > drawn[hot][:, 2] + 60).all()
    assert (drawn[~hot][:, 2] >= drawn[~hot][:, 0] - 5).all()
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 2


def test_a_map_that_is_the_same_everywhere_has_no_colour():
    video = heated().video
    drawn = overlay(video, scaled(np.full(video.shape[:3], 3.0)))
    assert (drawn == drawn[..., :1]).all()
    white = overlay(np.full((1, 1, 1, 3), 255, np.uint8), np.full((1, 1, 1), np.nan))
    assert white.ravel().tolist() == [255] * 3


@pytest.mark.parametrize("value", [0.0, -1.63, 1e6])
def test_rounding_noise_has_no_colour_and_is_told_as_one_number(value):
    video = heated().video
    maps = np.full((*video.shape[:3], 1), value)
    maps[0, 0, 0] += 0.9e-5 * max(1.0, abs(value))
    assert np.isnan(scaled(maps)).all()
    maps[0, 0, 0] += 0.2e-5 * max(1.0, abs(value))
    assert (scaled(maps).min(), scaled(maps).max()) == (0, 1)


def test_what_the_numbers_are_is_a_line_of_its_own():
    given = heated()
    assert given.values == "masks before the sigmoid"
    bare = dataclasses.replace(given, heading=given.heading[:1])
    assert len(draw_sheet(given)) == len(draw_sheet(bare)) + 19
    a, b = draw_sheet(given), draw_sheet(dataclasses.replace(given, values="gradients"))
    rows = np.flatnonzero((a != b).any(axis=(1, 2)))
    assert (rows.min() >= 8 + 2 * 19, rows.max() < 8 + 3 * 19) == (True, True), "below the two lines of the heading"


@pytest.mark.parametrize("values", [np.array([-3.0, 1.0, 5.0]), np.array([1e6, 1e6 + 11])])
def test_scaling_fills_0_to_1_and_keeps_the_order(values):
    got = scaled(values)
    assert (got.min(), got.max()) == (0, 1)
    np.testing.assert_allclose(got, scaled(7 * values - 2), atol=1e-9)


def find(sheet, tile):
    """Where a picture holds another one, as (top, left) of each place."""
    h, w = tile.shape[:2]
    corners = np.argwhere((sheet[: len(sheet) - h + 1, : sheet.shape[1] - w + 1] == tile[0, 0]).all(axis=-1))
    return [(int(t), int(left)) for t, left in corners if (sheet[t : t + h, left : left + w] == tile).all()]


def test_a_sheet_has_the_frames_and_below_them_each_map_over_them():
    given = heated()
    sheet = draw_sheet(given)
    zoom = 6  # of 20 pixels to about 112
    under = overlay(given.video, scaled(given.maps[..., 0]))
    for t in range(3):
        ((top, left),) = find(sheet, given.video[t].repeat(zoom, 0).repeat(zoom, 1))
        below = find(sheet, under[t].repeat(zoom, 0).repeat(zoom, 1))
        assert [place[1] for place in below] == [left, left], "both maps are the same here"
        assert top < below[0][0] < below[1][0]


def test_of_a_long_clip_frames_are_spread_over_it():
    given = heated(T=40)
    sheet = draw_sheet(given)
    shown = [t for t in range(40) if find(sheet, given.video[t].repeat(6, 0).repeat(6, 1))]
    assert shown == [0, 6, 11, 17, 22, 28, 33, 39]


@pytest.mark.parametrize(("T", "H", "W", "maps"), [(1, 9, 7, 1), (3, 20, 30, 6), (2, 301, 225, 2)])
def test_a_film_has_every_frame_and_even_sides(T, H, W, maps):
    given = heated(T, H, W, tuple(f"map {n}" for n in range(maps)))
    frames = list(draw_film(given))
    assert len(frames) == T
    assert len({frame.shape for frame in frames}) == 1
    height, width, colours = frames[0].shape
    assert (height % 2, width % 2, colours) == (0, 0, 3)
    zoom, step = max(1, round(112 / min(H, W))), max(1, round(min(H, W) / 224))
    for t, frame in enumerate(frames):
        assert len(find(frame, given.video[t, ::step, ::step].repeat(zoom, 0).repeat(zoom, 1))) == 1


def test_names_of_any_kind_are_drawn_and_change_the_picture_only_where_they_stand():
    plain, odd = heated(names=("a", "b")), heated(names=("$x_1$ é 日本 \udcff", "y" * 500))
    a, b = draw_sheet(plain), draw_sheet(odd)
    assert a.shape == b.shape
    assert (a != b).any()
    assert (a[:, 240:] == b[:, 240:]).all()


@pytest.mark.parametrize(
    ("video", "maps", "sentence"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 4, 4, 1)), "video must be uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 5, 1)), r"maps must be \[T H W C\] with the clip's"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 2)), "C=1, the number of names, received"),
    ],
)
def test_what_does_not_fit_is_refused(video, maps, sentence):
    with pytest.raises(ValueError, match=sentence):
        Heated(video, maps, ("one",))
