"""The law of `motion`: without their order, the values of no dimension say anything about a clip's class."""

import hashlib

import numpy as np
import pytest

from jaxvid.data.datasets.motion_classes import CLASS_NAMES, MIRROR, MOTION
from jaxvid.data.datasets.motion_courses import DIMENSIONS, MAX_TREND, NUM_FRAMES, NUM_VALUES, ClassTable

courses, orders = MOTION.courses, MOTION.orders
LABELS = range(len(CLASS_NAMES))
PAIRS = [
    ("approach", "recede", "size"),
    ("move_right", "move_left", "across"),
    ("move_down", "move_up", "down"),
    ("turn_clockwise", "turn_counterclockwise", "tilt"),
    ("dark_then_flash", "flash_then_dark", "light"),
]


def middle(label, seed):
    return orders(label, np.random.default_rng(seed))[1:-1]


@pytest.mark.parametrize("label", LABELS)
def test_every_dimension_takes_every_value_exactly_once_in_every_class(label):
    for seed in range(20):
        assert (np.sort(middle(label, seed), axis=0) == np.arange(NUM_VALUES)[:, None]).all()


@pytest.mark.parametrize(("up", "down", "dimension"), PAIRS)
def test_the_classes_of_a_pair_run_through_one_dimension_in_opposite_orders(up, down, dimension):
    column = DIMENSIONS.index(dimension)
    run = orders(CLASS_NAMES.index(up), np.random.default_rng(1))[:, column]
    back = orders(CLASS_NAMES.index(down), np.random.default_rng(2))[:, column]
    assert run.tolist() == list(range(-1, 17))
    assert back.tolist() == list(range(16, -2, -1))


def test_no_other_dimension_has_a_trend():
    runs = {name: DIMENSIONS.index(dimension) for up, down, dimension in PAIRS for name in (up, down)}
    time = np.arange(NUM_VALUES)
    for label, name in enumerate(CLASS_NAMES):
        for seed in range(20):
            values = middle(label, seed)
            trend = np.array([np.corrcoef(values[:, k], time)[0, 1] for k in range(len(DIMENSIONS))])
            if name in runs:
                assert abs(trend[runs[name]]) == pytest.approx(1)
            others = [k for k in range(4) if k != runs.get(name)]  # the light, which may blink, is last
            assert np.abs(trend[others]).max() <= MAX_TREND


def test_wandering_is_smooth():
    steps = [np.abs(np.diff(middle(CLASS_NAMES.index("move_up"), seed)[:, 0])).mean() for seed in range(50)]
    # One unit is the slowest that 16 values allow; a shuffled order has 17 / 3.
    assert 1.5 < np.mean(steps) < 3.5


def test_blinking_has_two_periods():
    light = DIMENSIONS.index("light")
    for name, cycles in (("blink_fast", 6), ("blink_slowly", 3)):
        for seed in range(10):
            values = middle(CLASS_NAMES.index(name), seed)[:, light]
            spectrum = np.abs(np.fft.rfft(values - values.mean()))
            assert spectrum.argmax() == cycles


def test_courses_do_not_tell_the_class_without_their_order():
    """Mean, spread and sorted values of each dimension: the classes' averages agree within their errors."""
    clips = 150
    features = []
    for label in LABELS:
        rng = np.random.default_rng((5, label))
        values = np.sort([courses(label, rng)[1:-1] for _ in range(clips)], axis=1)
        flat = values.reshape(clips, -1)
        features.append(np.concatenate([flat, values.mean(1), values.std(1)], axis=1))
    features = np.stack(features)
    centre = features.mean((0, 1))
    error = features.std(1) / np.sqrt(clips)
    deviation = np.abs(features.mean(1) - centre) / error
    assert deviation.max() < 5  # of 12 x 90 numbers, standard errors
    # A statistic that sees the order tells them apart at once.
    time = np.arange(NUM_VALUES) - 7.5
    right, left = (
        np.array([courses(CLASS_NAMES.index(name), np.random.default_rng(s))[1:-1, 0] @ time for s in range(50)])
        for name in ("move_right", "move_left")
    )
    assert right.min() > 10 > -10 > left.max()


def test_one_frame_at_an_unknown_time_does_not_tell_the_class():
    """Each dimension of a frame at a random time is uniform in every class, and uncorrelated with the others."""
    for label in LABELS:
        rng = np.random.default_rng((6, label))
        values = np.stack([middle_frame(label, rng) for _ in range(200)])
        assert np.abs(values.mean(0)).max() < 0.2
        assert np.abs(values.std(0) - np.sqrt((1 - 1 / 256) / 3) * 16 / 15).max() < 0.1
        assert np.abs(np.corrcoef(values.T) - np.eye(5)).max() < 0.35


def middle_frame(label, rng):
    return courses(label, rng)[1 + rng.integers(NUM_VALUES)]


def test_courses_repeat_with_their_seed_and_differ_without():
    one, same, other = (courses(3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (NUM_FRAMES, len(DIMENSIONS))
    assert (one == same).all()
    assert (one != other).all()


def test_class_names_are_sorted_and_mirrors_exist():
    assert list(CLASS_NAMES) == sorted(CLASS_NAMES)
    assert len(CLASS_NAMES) == 12
    assert {name for pair in MIRROR for name in pair.split("=")} <= set(CLASS_NAMES)


def test_the_courses_of_version_1_are_these():
    """A change of these is another data set: it needs another version."""
    found = hashlib.sha256()
    for label in LABELS:
        for seed in range(5):
            rng = np.random.default_rng((seed, label))
            found.update(orders(label, rng).tobytes())
            rng = np.random.default_rng((seed, label))
            found.update(courses(label, rng).tobytes())
    assert MOTION.version == 1
    assert found.hexdigest() == "e0690ac6ff021999dac81dc33336e2379f3d5ef76d548617e2745c74de366977"


def test_a_table_that_is_not_sorted_is_refused():
    with pytest.raises(ValueError, match="movements must be sorted by name, received b, a"):
        ClassTable("x", 1, {"b": {}, "a": {}}, (), 0)
