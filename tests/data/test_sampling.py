"""Samplers: literal clips, laws that hold for every length, and the distributions that they promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvid.data import sampling
from jaxvid.data.sampling import SAMPLERS, reorder

SIZES = {"num_frames": st.integers(1, 40), "stride": st.integers(1, 9), "length": st.integers(1, 200)}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def chi_square_is_plausible(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Pearson's statistic below its 99.9 % quantile (Wilson and Hilferty's approximation)."""
    assert expected.min() >= 5, "the approximation needs at least 5 expected draws in each cell"
    statistic = np.sum((counts - expected) ** 2 / expected)
    degrees = len(counts) - 1
    return statistic < degrees * (1 - 2 / (9 * degrees) + 3.09 * math.sqrt(2 / (9 * degrees))) ** 3


@pytest.mark.parametrize("name", SAMPLERS)
@given(seed=st.integers(0, 2**32), **SIZES)
@settings(max_examples=60, deadline=None)
def test_frames_exist_and_never_run_backwards(name, seed, num_frames, stride, length):
    frames = SAMPLERS[name](num_frames, stride, length, rng(seed))
    assert frames.shape == (num_frames,)
    assert np.issubdtype(frames.dtype, np.integer)
    assert frames.min() >= 0
    assert frames.max() <= length - 1
    assert (np.diff(frames) >= 0).all()
    again = SAMPLERS[name](num_frames, stride, length, rng(seed))
    np.testing.assert_array_equal(frames, again)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_video_of_one_frame_is_that_frame(name):
    assert SAMPLERS[name](5, 3, 1, rng()).tolist() == [0] * 5


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("wrong", [(0, 1, 9), (4, 0, 9), (4, 1, 0)])
def test_sizes_below_one_are_named(name, wrong):
    field = ("num_frames", "frame_stride", "length")[wrong.index(0)]
    with pytest.raises(ValueError, match=f"{field} must be >= 1, received {field}=0"):
        SAMPLERS[name](*wrong, rng())


@pytest.mark.parametrize("name", ["random", "normal"])
@given(seed=st.integers(0, 2**32), **SIZES)
@settings(max_examples=60, deadline=None)
def test_strided_samplers_keep_the_stride_until_the_video_ends_and_then_hold(name, seed, num_frames, stride, length):
    frames = SAMPLERS[name](num_frames, stride, length, rng(seed))
    unlimited = frames[0] + stride * np.arange(num_frames)
    np.testing.assert_array_equal(frames, np.minimum(unlimited, length - 1))
    if length >= (num_frames - 1) * stride + 1:
        np.testing.assert_array_equal(frames, unlimited)
    else:
        assert frames[0] == 0


def test_random_starts_are_uniform_over_all_that_fit():
    generator = rng(1)
    starts = [SAMPLERS["random"](4, 3, 20, generator)[0] for _ in range(3000)]
    counts = np.bincount(starts, minlength=11)
    assert len(counts) == 11  # 20 - (3 * 3 + 1) + 1 starts
    assert chi_square_is_plausible(counts, np.full(11, 3000 / 11))


def test_one_random_frame_is_uniform_over_the_whole_video():
    generator = rng(2)
    counts = np.bincount([SAMPLERS["random"](1, 5, 8, generator)[0] for _ in range(2000)], minlength=8)
    assert chi_square_is_plausible(counts, np.full(8, 250.0))


def test_normal_starts_follow_the_clipped_normal_distribution():
    length, draws, generator = 60, 4000, rng(3)
    starts = np.array([SAMPLERS["normal"](1, 1, length, generator)[0] for _ in range(draws)])
    assert starts.max() == length // 2  # the thesis draws from 0 .. L/2

    def below(x: float) -> float:
        return 0.5 * (1 + math.erf((x - length / 4) / (length / 6 * math.sqrt(2))))

    edges = [below(x) for x in range(1, length // 2 + 1)]
    probabilities = np.diff([0.0, *edges, 1.0])  # the tails are added to the first and the last start
    assert chi_square_is_plausible(np.bincount(starts, minlength=len(probabilities)), draws * probabilities)


def test_normal_never_starts_where_the_clip_does_not_fit():
    generator = rng(4)
    starts = {int(SAMPLERS["normal"](10, 5, 50, generator)[0]) for _ in range(400)}
    assert min(starts) == 0
    assert max(starts) == 4  # 50 - (9 * 5 + 1)


def test_segments_take_one_uniform_frame_of_each_segment():
    generator = rng(5)
    draws = np.stack([SAMPLERS["segments"](4, 7, 24, generator) for _ in range(1200)])
    for segment in range(4):
        frames = draws[:, segment] - 6 * segment
        assert frames.min() >= 0
        assert frames.max() <= 5
        assert chi_square_is_plausible(np.bincount(frames, minlength=6), np.full(6, 200.0))


def test_segments_of_a_short_video_show_every_frame():
    assert SAMPLERS["segments"](6, 1, 3, rng(6)).tolist() == [0, 0, 1, 1, 2, 2]


def test_uniform_clips_take_one_position_of_all_segments():
    generator = rng(6)
    draws = np.stack([SAMPLERS["uniform"](4, 7, 24, generator) for _ in range(1200)])
    assert (np.diff(draws, axis=1) == 6).all()
    assert chi_square_is_plausible(np.bincount(draws[:, 0], minlength=6), np.full(6, 200.0))
    uneven = np.stack([SAMPLERS["uniform"](4, 1, 22, generator) for _ in range(200)])
    assert set(np.diff(uneven, axis=1).ravel()) == {5, 6}  # 22 / 4, rounded
    assert set(uneven.ravel()) == set(range(22))


def test_dense_clips_have_a_fixed_distance_and_a_uniform_start():
    generator = rng(7)
    draws = np.stack([SAMPLERS["dense"](16, 9, 70, generator) for _ in range(1400)])
    assert (np.diff(draws, axis=1) == 4).all()
    assert chi_square_is_plausible(np.bincount(draws[:, 0], minlength=7), np.full(7, 200.0))
    assert SAMPLERS["dense"](8, 1, 20, rng()).tolist() == [0, 8, 16, 19, 19, 19, 19, 19]
    assert SAMPLERS["dense"](100, 1, 100, rng()).tolist() == list(range(100))


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(num_clips=st.integers(1, 11), **SIZES)
@settings(max_examples=60, deadline=None)
def test_test_clips_are_inside_in_order_and_symmetric_in_time(sampler, num_clips, num_frames, stride, length):
    clips = sampling.test_clips(num_frames, stride, length, num_clips, sampler)
    assert clips.shape == (num_clips, num_frames)
    assert clips.min() >= 0
    assert clips.max() <= length - 1
    assert (np.diff(clips, axis=1) >= 0).all()
    assert (np.diff(clips, axis=0) >= 0).all()
    mirrored = (length - 1) - clips[::-1, ::-1]
    held = clips[0, 0] == 0 and clips[-1, -1] == length - 1 and (num_frames - 1) * stride + 1 > length
    if sampler in ("random", "normal") and not held:
        assert np.abs(clips - mirrored).max() <= 1


def test_test_clips_cover_the_video_from_end_to_end():
    clips = sampling.test_clips(16, 2, 250, 10)
    assert clips[0].tolist() == list(range(0, 32, 2))
    assert clips[-1].tolist() == list(range(219, 250, 2))
    assert set(np.diff(clips[:, 0])) == {24, 25}
    assert sampling.test_clips(16, 2, 251, 1)[0, 0] == 110
    assert sampling.test_clips(4, 2, 3, 2).tolist() == [[0, 2, 2, 2]] * 2


def test_test_clips_of_the_other_samplers():
    assert sampling.test_clips(8, 1, 64, 1, "dense").tolist() == [[3, 11, 19, 27, 35, 43, 51, 59]]
    assert sampling.test_clips(4, 1, 40, 1, "segments").tolist() == [[5, 15, 25, 35]]
    assert sampling.test_clips(4, 1, 40, 2, "segments").tolist() == [[2, 12, 22, 32], [7, 17, 27, 37]]
    assert sampling.test_clips(4, 1, 40, 2, "uniform").tolist() == [[2, 12, 22, 32], [7, 17, 27, 37]]


def test_test_clips_name_what_is_wrong():
    with pytest.raises(ValueError, match="num_clips must be >= 1, received num_clips=0"):
        sampling.test_clips(4, 1, 9, 0)
    with pytest.raises(
        ValueError, match="sampler must be one of random, normal, segments, uniform, dense, received sampler='x'"
    ):
        sampling.test_clips(4, 1, 9, 1, "x")
    with pytest.raises(ValueError, match="length must be >= 1"):
        sampling.test_clips(4, 1, 0, 1)


@pytest.mark.parametrize(
    ("order", "expected"),
    [("natural", [3, 5, 5, 9, 11]), ("reversed", [11, 9, 5, 5, 3]), ("frozen", [5, 5, 5, 5, 5])],
)
def test_orders(order, expected):
    indices = np.array([3, 5, 5, 9, 11])
    generator = rng()
    before = generator.bit_generator.state
    result = reorder(indices, order, generator)
    assert result.tolist() == expected
    assert not np.shares_memory(result, indices)
    np.testing.assert_equal(generator.bit_generator.state, before)  # only a shuffle draws


def test_shuffles_are_uniform_over_all_orders():
    generator = rng(8)
    names = ["".join(map(str, reorder(np.arange(3), "shuffled", generator))) for _ in range(1200)]
    kinds, counts = np.unique(names, return_counts=True)
    assert len(kinds) == 6
    assert chi_square_is_plausible(counts, np.full(6, 200.0))


def test_an_unknown_order_is_named():
    with pytest.raises(ValueError, match=r"frame_order must be one of natural, .*, received frame_order='random'"):
        reorder(np.arange(3), "random", rng())


def test_the_registry_is_read_only():
    with pytest.raises(TypeError):
        SAMPLERS["mine"] = None
