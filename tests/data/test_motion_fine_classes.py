"""The laws of `motion_fine`: what the two of a pair share, where they differ, and what their frames cannot say."""

import numpy as np
import pytest

from jaxvid.data.datasets.motion_classes import MOTION
from jaxvid.data.datasets.motion_courses import DIMENSIONS, NUM_FRAMES, NUM_VALUES
from jaxvid.data.datasets.motion_fine_classes import CLASS_NAMES, MOTION_FINE, PAIRS

RUNNING = {"approach": "size", "move": "across", "recede": "size", "turn": "tilt"}
DETAIL = {"approach": "size", "move": "across", "recede": "size", "turn": "light"}
NUM_DIFFERENT = {"approach": 8, "move": 4, "recede": 8, "turn": 6}
SEEDS = range(12)


def orders(name, seed):
    return MOTION_FINE.orders(CLASS_NAMES.index(name), np.random.default_rng(seed))


def column(name, table):
    return DIMENSIONS.index(table[name.split("_")[0]])


def course(name, dimension, seed):
    """One dimension's course by itself, without drawing the others."""
    return MOTION_FINE.movements[name][dimension[name.split("_")[0]]](np.random.default_rng(seed))


def detail(name, seed):
    """The course of the dimension that the detail is in."""
    return course(name, DETAIL, seed)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_any_16_frames_hold_the_same_values_in_both_classes_of_a_pair(pair):
    for seed in SEEDS:
        one, two = (orders(name, seed) for name in pair)
        for start in range(NUM_FRAMES - NUM_VALUES + 1):
            first, second = (np.sort(values[start : start + NUM_VALUES], axis=0) for values in (one, two))
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_the_middle_holds_every_value_once_in_every_class(name):
    for seed in SEEDS:
        assert (np.sort(orders(name, seed)[1:-1], axis=0) == np.arange(NUM_VALUES)[:, None]).all()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_the_two_of_a_pair_are_one_clip_but_for_a_detail(pair):
    label = [CLASS_NAMES.index(name) for name in pair]
    for seed in SEEDS:
        one, two = (MOTION_FINE.courses(k, np.random.default_rng(seed)) for k in label)
        different = np.argwhere(np.abs(one - two) > 1e-9)
        assert {k for _, k in different} == {column(pair[0], DETAIL)}
        frames = [frame for frame, _ in different]
        assert len(frames) == NUM_DIFFERENT[pair[0].split("_")[0]]
        assert min(frames) >= 2
        assert max(frames) <= 15


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_the_movement_is_the_same_with_and_without_its_detail(name):
    """It begins and ends as the class of `motion` does, and in between is never further off than a hop's half."""
    plain = next(short for short in MOTION.class_names if name.startswith(short))
    for seed in SEEDS:
        run = orders(name, seed)[:, column(name, RUNNING)]
        whole = MOTION.orders(MOTION.class_names.index(plain), np.random.default_rng(0))[:, column(name, RUNNING)]
        assert (run[[0, 1, 16, 17]] == whole[[0, 1, 16, 17]]).all()
        assert np.abs(run - whole).max() <= 4
        assert np.corrcoef(run[1:-1], whole[1:-1])[0, 1] >= 0.94


def test_whether_a_hop_is_there_is_the_detail_of_the_places():
    for name, sign in (("move_right", 1), ("move_left", -1)):
        begins = set()
        for seed in range(200):
            assert (sign * np.diff(detail(name, seed)) == 1).all()
            steps = (sign * np.diff(detail(f"{name}_hop", seed))).tolist()
            first = steps.index(4)
            assert steps[first : first + 5] == [4, -1, -1, -1, 4]
            assert steps[:first] + steps[first + 5 :] == [1] * 12
            begins.add(first)
        assert begins == set(range(1, 12))  # the step into frame 2 .. 12


def test_when_a_hop_comes_is_the_detail_of_the_sizes():
    for name, sign in (("approach", 1), ("recede", -1)):
        for when, middles in (("early", {4, 5, 6}), ("late", {11, 12, 13})):
            found = set()
            for seed in range(50):
                back = np.flatnonzero(sign * np.diff(detail(f"{name}_hop_{when}", seed)) < 0)
                assert len(back) == 4
                found.add(back.mean() + 0.5)
            assert found == middles


def test_how_often_it_flashes_is_the_detail_of_the_turns():
    for name in ("turn_clockwise", "turn_counterclockwise"):
        begins = set()
        for seed in range(100):
            one, two = (np.flatnonzero(detail(f"{name}_{n}", seed) >= 12) for n in ("one_flash", "two_flashes"))
            assert np.diff(one).tolist() == [1, 1, 1]
            assert np.diff(two).tolist() == [1, 3, 1]
            assert one.mean() == two.mean()
            begins.add(int(two[0]))
        assert begins == set(range(2, 11))


REVERSED = [
    ("move_left", "move_right"),
    ("move_left_hop", "move_right_hop"),
    ("approach_hop_early", "recede_hop_late"),
    ("approach_hop_late", "recede_hop_early"),
    ("turn_clockwise_one_flash", "turn_counterclockwise_one_flash"),
    ("turn_clockwise_two_flashes", "turn_counterclockwise_two_flashes"),
]


@pytest.mark.parametrize(("name", "back"), REVERSED)
def test_played_backwards_a_class_is_one_of_the_other_direction(name, back):
    """The courses that occur, of the dimension that runs and of the light's flashes, are the same sets."""

    def occurring(name, step):
        found = set()
        for seed in range(200):
            run, values = course(name, RUNNING, seed)[::step], detail(name, seed)[::step]
            flashes = np.where(values >= 12, values, 0) if name.startswith("turn") else ()
            found.add((*run, *flashes))
        return found

    assert occurring(name, -1) == occurring(back, 1)


def test_who_orders_the_frames_of_a_turn_by_their_tilt_counts_the_flashes():
    """What the docstring admits: the dimensions together say more than each by itself."""
    for seed in SEEDS:
        for count, name in ((1, "turn_clockwise_one_flash"), (2, "turn_counterclockwise_two_flashes")):
            shuffled = np.random.default_rng(seed).permutation(orders(name, seed)[1:-1])
            by_tilt = shuffled[np.argsort(shuffled[:, DIMENSIONS.index("tilt")])]
            bright = by_tilt[:, DIMENSIONS.index("light")] >= 12
            assert bright[0] + np.count_nonzero(~bright[:-1] & bright[1:]) == count


def test_streams_pairs_and_mirrors():
    assert MOTION_FINE.first_stream >= MOTION.first_stream + len(MOTION.class_names)
    assert len(CLASS_NAMES) == 12
    assert [name for pair in PAIRS for name in pair] == list(CLASS_NAMES)
    mirrored = [name for pair in MOTION_FINE.mirror for name in pair.split("=")]
    assert sorted(mirrored) == [name for name in CLASS_NAMES if name.startswith(("move", "turn"))]
