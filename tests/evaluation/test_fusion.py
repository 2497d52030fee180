"""Several runs as one: the mean by hand, the search of its weights, what is held out, and what is refused."""

import numpy as np
import pytest

from jaxvid.evaluation import Judged, difference_interval
from jaxvid.evaluation.fusion import fuse_judged, fused_scores, stratified_folds, weight_grid

CLASSES = ("clap", "wave")
LABELS = (0, 1, 0, 1, 1, 0, 1, 0)


def softmax(logits):
    powers = np.exp(logits)
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


def test_the_mean_by_hand():
    a, b, c = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.25, 0.75]]), np.array([[0.5, 0.5], [1, 0]])
    fused = fused_scores([a, b, c], [2, 1, 1])
    assert fused.dtype == np.float32
    np.testing.assert_array_equal(fused, [[0.625, 0.375], [0.5625, 0.4375]])


def test_only_proportions_matter_and_weight_zero_leaves_a_network_out():
    rng = np.random.default_rng(0)
    one, other = softmax(rng.normal(size=(2, 7, 5)))
    np.testing.assert_allclose(fused_scores([one, other], [0.6, 0.2]), fused_scores([one, other], [3, 1]), rtol=1e-6)
    np.testing.assert_array_equal(fused_scores([one, other], [1.5e308, 5e307]), fused_scores([one, other], [3, 1]))
    np.testing.assert_array_equal(fused_scores([one, np.full_like(other, np.nan)], [5, 0]), one)
    np.testing.assert_array_equal(fused_scores([one, one], [0.3, 0.7]), one)
    np.testing.assert_allclose(fused_scores([one, other], [1, 2]).sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "weights", "sentence"),
    [
        ([], [], "scores must be float[n K] of one shape, at least one of them"),
        ([(3, 2), (4, 2)], [1, 1], "received the shapes [(3, 2), (4, 2)]"),
        ([(3,), (3,)], [1, 1], "scores must be float[n K]"),
        ([(3, 2), (3, 2)], [1], "weights must be 2 numbers >= 0, one for each array of scores and not all 0"),
        ([(3, 2), (3, 2)], [1, -0.1], "received [1, -0.1]"),
        ([(3, 2), (3, 2)], [0, 0], "not all 0"),
        ([(3, 2), (3, 2)], [1, float("nan")], "weights must be"),
        ([(3, 2), (3, 2)], [1, float("inf")], "weights must be"),
    ],
)
def test_what_does_not_fit_is_refused(shapes, weights, sentence):
    with pytest.raises(ValueError) as caught:
        fused_scores([np.zeros(shape) for shape in shapes], weights)
    assert sentence in str(caught.value)


def judge(run, probabilities, labels=LABELS, names=None, decoded=None, classes=CLASSES):
    """A run of two classes that gives class 1 these probabilities."""
    probabilities, labels = np.array(probabilities), np.array(labels)
    scores = np.stack([1 - probabilities, probabilities], axis=1).astype(np.float32)
    decoded = np.ones(len(labels), bool) if decoded is None else np.array(decoded)
    scores *= decoded[:, None]
    names = tuple(f"v{i}.mp4" for i in range(len(labels))) if names is None else tuple(names)
    return Judged(run, classes, names, labels, decoded, decoded & (scores.argmax(1) == labels)), scores


def random_runs(num_runs=2, n=60, K=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(K, size=n)
    runs = []
    for i in range(num_runs):
        scores = softmax(rng.normal(size=(n, K)) + 1.5 * np.eye(K)[labels] * (rng.random((n, 1)) < 0.7))
        names = tuple(f"v{k}.mp4" for k in range(n))
        classes = tuple(f"class-{k}" for k in range(K))
        runs.append((Judged(f"run-{i}", classes, names, labels, np.ones(n, bool), scores.argmax(1) == labels), scores))
    return runs


def shuffled(run, seed):
    """The same evaluation with its clips and its classes in another order."""
    judged, scores = run
    rng = np.random.default_rng(seed)
    clips, classes = rng.permutation(len(judged.labels)), rng.permutation(len(judged.class_names))
    return Judged(
        judged.run,
        tuple(judged.class_names[k] for k in classes),
        tuple(judged.clip_names[i] for i in clips),
        np.argsort(classes)[judged.labels][clips],
        judged.decoded[clips],
        judged.correct[clips],
    ), scores[clips][:, classes]


def test_all_weights_in_steps_come_from_equal_ones_outwards():
    assert weight_grid(2, 0.5).tolist() == [[1, 1], [2, 0], [0, 2]]
    assert weight_grid(3, 1).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    grid = weight_grid(3, 0.05)
    assert grid.shape == (21 * 22 // 2, 3)
    assert (grid.sum(1) == 20).all()
    assert len({tuple(point) for point in grid.tolist()}) == len(grid)
    distance = ((grid / 20 - 1 / 3) ** 2).sum(1)
    assert (np.diff(distance) > -1e-12).all()
    assert len(weight_grid(2, 0.1)) == 11, "0.1 is no binary fraction, and divides 1 all the same"


@pytest.mark.parametrize("step", [0, -0.1, 0.3, 1.5, float("nan")])
def test_a_step_that_does_not_divide_1_is_refused(step):
    with pytest.raises(ValueError, match=r"step must be in \(0, 1\] and divide 1"):
        weight_grid(2, step)


def test_too_many_weights_are_refused():
    with pytest.raises(ValueError, match=r"received step=0.01, which for 4 runs leaves 176,851\."):
        weight_grid(4, 0.01)


@pytest.mark.parametrize("num_folds", [2, 5, 7])
def test_folds_hold_as_many_of_each_class_as_the_numbers_allow(num_folds):
    (judged, _), *_ = random_runs(n=53)
    folds = stratified_folds(judged, num_folds, seed=3)
    for members in [np.ones(53, bool), *(judged.labels == k for k in range(4))]:
        counts = np.bincount(folds[members], minlength=num_folds)
        assert counts.max() - counts.min() <= 1


def test_folds_depend_on_the_seed_and_the_names_and_on_no_order():
    runs = random_runs()
    folds = stratified_folds(runs[0][0], 5, seed=0)
    assert (stratified_folds(runs[0][0], 5, seed=1) != folds).any()
    other, _ = shuffled(runs[0], seed=1)
    by_name = dict(zip(other.clip_names, stratified_folds(other, 5, seed=0).tolist(), strict=True))
    assert [by_name[name] for name in runs[0][0].clip_names] == folds.tolist()


def naive(runs, grid, folds, fold):
    """The weights that get most clips outside of a fold right, one after the other."""
    labels, best, most = runs[0][0].labels, None, -1
    for point in grid:
        right = 0
        for i in np.flatnonzero(folds != fold):
            mean = sum(w * scores[i].astype(float) for w, (_, scores) in zip(point / point.sum(), runs, strict=True))
            right += int(mean.astype(np.float32).argmax() == labels[i])
        if right > most:
            best, most = point / point.sum(), right
    return best


@pytest.mark.parametrize("num_runs", [2, 3])
def test_no_clip_decides_on_its_own_weights(num_runs):
    runs = random_runs(num_runs, n=40, seed=num_runs)
    found = fuse_judged(runs, step=0.25, num_folds=3)
    folds, grid = stratified_folds(runs[0][0], 3, seed=0), weight_grid(num_runs, 0.25)
    np.testing.assert_array_equal(found.fold_of_clip, folds)
    for fold in range(3):
        expected = naive(runs, grid, folds, fold)
        np.testing.assert_allclose(found.fold_weights[fold], expected, rtol=1e-12)
        chosen = [scores[folds == fold] for _, scores in runs]
        np.testing.assert_array_equal(found.scores[folds == fold], fused_scores(chosen, expected))
    assert len(set(found.fold_weights)) > 1, "the folds do not all choose the same, so that they can be told apart"
    np.testing.assert_allclose(found.weights, naive(runs, grid, folds, -1), rtol=1e-12)
    right = found.scores.argmax(1) == runs[0][0].labels
    assert found.fused.num_correct == right.sum()
    assert found.fused.accuracy == right.mean()
    assert (found.gain.test.b, found.gain.test.c) == (
        (right & ~runs[found.best][0].correct).sum(), (~right & runs[found.best][0].correct).sum())  # fmt: skip


@pytest.mark.parametrize(("wrong", "weight"), [(0.6, 0.5), (0.9, 0.6)])
def test_of_equally_good_weights_the_nearest_to_equal_ones_are_taken(wrong, weight):
    """A gives the truth 0.8 and B a wrong class `wrong`: right if 0.8 w + (1 - wrong) (1 - w) > 0.5."""
    truth = np.where(np.array(LABELS), 1.0, -1.0)
    found = fuse_judged([judge("A", 0.5 + 0.3 * truth), judge("B", 0.5 - (wrong - 0.5) * truth)], num_folds=4)
    assert found.weights == pytest.approx((weight, 1 - weight))
    assert set(found.fold_weights) == {found.weights}
    assert (found.alone[0].accuracy, found.alone[1].accuracy, found.fused.accuracy) == (1.0, 0.0, 1.0)
    assert found.equal.accuracy == float(weight == 0.5)
    assert found.best == 0
    assert found.curve[0] == (0.0, 0.0)
    assert found.curve[-1] == (1.0, 1.0)
    assert [w for w, _ in found.curve] == pytest.approx(np.linspace(0, 1, 21))


def test_two_halves_make_a_whole():
    """A knows the first half of the clips and B the second; each guesses, less surely, where it does not know."""
    labels = np.arange(40) % 2
    truth = np.where(labels, 1.0, -1.0)
    knows = np.arange(40) < 20
    sure = np.where(knows, 0.4, -0.2) * truth, np.where(knows, -0.2, 0.4) * truth
    found = fuse_judged([judge(run, 0.5 + own, labels) for run, own in zip("AB", sure, strict=True)])
    assert (found.alone[0].num_correct, found.alone[1].num_correct, found.fused.num_correct) == (20, 20, 40)
    assert (found.gain.difference, found.gain.test.b, found.gain.test.c, found.best) == (0.5, 20, 0, 0)
    assert found.gain.test.exact_p_value == pytest.approx(2 / 2**20)
    assert found.gain.interval == difference_interval(20, 0, 40)
    assert found.fused.interval == (1.0, 1.0)
    assert found.alone[0].interval == difference_interval(20, 0, 40)


def test_a_run_beside_itself_gains_nothing():
    run = random_runs(1)[0]
    found = fuse_judged([run, run, run], step=0.1)
    assert found.weights == pytest.approx((0.4, 0.3, 0.3)), "the nearest to a third in steps of 0.1"
    assert found.fused == found.equal == found.alone[0]
    assert (found.gain.difference, found.gain.test.exact_p_value) == (0.0, 1.0)
    assert found.curve == ()


def test_the_order_of_clips_and_classes_does_not_matter():
    runs = random_runs(3)
    found = fuse_judged(runs, step=0.25)
    same = fuse_judged([runs[0], shuffled(runs[1], 1), shuffled(runs[2], 2)], step=0.25)
    assert same.to_json() == found.to_json()
    np.testing.assert_array_equal(same.scores, found.scores)
    other = fuse_judged([shuffled(run, i) for i, run in enumerate(runs)], step=0.25)
    assert other.to_json() == found.to_json()


def test_given_weights_search_nothing():
    runs = random_runs(2)
    found = fuse_judged(runs, weights=[3, 1])
    assert (found.weights, found.searched, found.fold_weights, found.curve) == ((0.75, 0.25), False, (), ())
    np.testing.assert_array_equal(found.scores, fused_scores([scores for _, scores in runs], [0.75, 0.25]))
    assert found.to_json()["search"] is None
    only = fuse_judged(runs, weights=[0, 1])
    np.testing.assert_array_equal(only.scores, runs[1][1])
    assert only.fused == only.alone[1]


def test_a_clip_that_could_not_be_decoded_is_wrong_in_all():
    decoded = np.array([True] * 7 + [False])
    truth = np.where(np.array(LABELS), 1.0, -1.0)
    found = fuse_judged([judge(run, 0.5 + 0.3 * truth, decoded=decoded) for run in "AB"], num_folds=2)
    assert found.fused.num_correct == found.equal.num_correct == found.alone[0].num_correct == 7
    assert found.to_json()["num_missing"] == 1
    assert (found.scores[7] == 0).all()


@pytest.mark.parametrize(
    ("count", "options", "sentence"),
    [
        (1, {}, "fusion needs at least 2 runs, received 1."),
        (2, {"num_folds": 1}, "num_folds must be >= 2 and <= 60, the number of clips, received num_folds=1."),
        (2, {"num_folds": 61}, "received num_folds=61."),
        (2, {"seed": -1}, "seed must be >= 0 and < 2**64, received seed=-1."),
        (2, {"step": 0.15}, "received step=0.15."),
        (2, {"step": 1e-320}, "step must be in (0, 1] and divide 1"),
        (2, {"weights": [1]}, "weights must be 2 numbers >= 0"),
        (2, {"weights": [0, 0]}, "not all 0, received [0.0, 0.0]."),
    ],
)
def test_what_cannot_be_fused_is_one_sentence(count, options, sentence):
    with pytest.raises(ValueError) as caught:
        fuse_judged(random_runs(count), **options)
    assert sentence in str(caught.value)


def test_other_clips_are_refused_by_name():
    a, b = judge("A", np.full(8, 0.7)), judge("B", np.full(8, 0.7), names=[*(f"v{i}.mp4" for i in range(7)), "x.mp4"])
    with pytest.raises(ValueError, match=r"received 1 only in A \('v7.mp4'\) and 1 only in B \('x.mp4'\)"):
        fuse_judged([a, b])
