"""Metrics by hand, and the laws of the state that they come from."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvid.evaluation import ClassificationState, Predictions, label_ranks, mean_scores, per_class, summarize


def predictions(logits, labels, decoded=None, first_id=0):
    logits = np.asarray(logits, np.float32)
    logits = logits[:, None] if logits.ndim == 2 else logits
    decoded = np.ones(len(logits), bool) if decoded is None else np.asarray(decoded, bool)
    logits = logits * decoded[:, None, None]
    ids = np.arange(first_id, first_id + len(logits), dtype=np.int32)
    return Predictions(ids, np.asarray(labels, np.int32), decoded, logits, mean_scores(logits) * decoded[:, None])


def random_predictions(n, K, views=2, seed=0, missing=0.2):
    rng = np.random.default_rng(seed)
    return predictions(rng.normal(size=(n, views, K)) * 2, rng.integers(0, K, n), rng.random(n) > missing)


def part(whole, start, stop):
    return Predictions(*(getattr(whole, f)[start:stop] for f in ("ids", "labels", "decoded", "logits", "scores")))


# Three classes: labels 0 0 0 1 (and none of class 2); predictions 0 0 1 1, the second clip not decoded.
HAND = predictions(
    np.log([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [0.25, 0.5, 0.25], [0.125, 0.75, 0.125]]), [0, 0, 0, 1], [1, 0, 1, 1]
)
NAMES = ("walk", "run", "jump")


def test_summary_by_hand():
    found = summarize(HAND, NAMES)
    assert list(found) == ["top1", "top3", "mean_class_accuracy", "loss", "majority", "num_clips", "num_missing"]
    assert found["top1"] == 2 / 4
    assert found["top3"] == 3 / 4  # with three classes every decoded clip is right, and only those
    assert found["mean_class_accuracy"] == pytest.approx((1 / 3 + 1) / 2)  # class 2 has no clips
    assert found["loss"] == pytest.approx(-np.log([0.5, 0.25, 0.75]).mean(), rel=1e-6)  # over the decoded clips
    assert found["majority"] == 3 / 4
    assert (found["num_clips"], found["num_missing"]) == (4, 1)
    assert all(type(value) in (int, float) for value in found.values())


def test_confusion_by_hand():
    state = ClassificationState.from_predictions(HAND)
    assert state.confusion.tolist() == [[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert state.confusion.sum() == len(HAND)


def test_per_class_by_hand():
    rows = per_class(HAND, NAMES)
    assert rows[0] == {
        "class": "walk", "num_clips": 3, "num_correct": 1, "num_missing": 1, "accuracy": 1 / 3,
        "num_predicted": 1, "precision": 1.0, "confused_with": "run", "num_confused": 1,
    }  # fmt: skip
    assert rows[1]["precision"] == 0.5
    assert rows[1]["confused_with"] is None
    assert (rows[2]["accuracy"], rows[2]["precision"], rows[2]["num_clips"]) == (None, None, 0)


def test_one_class_is_always_right_and_two_classes_have_a_top2():
    one = summarize(predictions([[3.0], [-1.0]], [0, 0]), ["only"])
    assert one["top1"] == one["majority"] == one["mean_class_accuracy"] == 1.0
    assert one["loss"] == pytest.approx(0, abs=1e-12)
    assert [name for name in one if name.startswith("top")] == ["top1"]
    two = summarize(predictions([[1.0, 0.0], [1.0, 0.0]], [0, 1]), ["a", "b"])
    assert (two["top1"], two["top2"]) == (0.5, 1.0)


def test_top5_of_many_classes():
    logits = -np.arange(12.0)[None].repeat(12, 0)  # the label k has rank k
    found = summarize(predictions(logits, np.arange(12)), [str(k) for k in range(12)])
    assert (found["top1"], found["top5"]) == (1 / 12, 5 / 12)


def test_a_clip_that_was_not_decoded_is_wrong_even_for_class_0():
    """Its scores are all 0, whose argmax would be class 0."""
    found = summarize(predictions(np.zeros((2, 3)), [0, 0], [False, False]), NAMES)
    assert (found["top1"], found["top3"], found["loss"]) == (0.0, 0.0, None)
    assert (found["num_clips"], found["num_missing"]) == (2, 2)


def test_ties_go_to_the_lower_class_in_top1_and_in_the_ranks():
    scores = np.array([[0.25, 0.25, 0.25, 0.25]])
    assert [int(label_ranks(scores, np.array([k]))[0]) for k in range(4)] == [0, 1, 2, 3]
    assert summarize(predictions(np.zeros((2, 4)), [0, 1]), list("abcd"))["top1"] == 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 6), st.integers(0, 10_000))
def test_ranks_are_positions_in_a_stable_sort(n, K, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (n, K)) / 3  # many ties
    labels = rng.integers(0, K, n)
    order = np.argsort(-scores, axis=1, kind="stable")
    expected = [list(order[i]).index(labels[i]) for i in range(n)]
    assert label_ranks(scores, labels).tolist() == expected
    np.testing.assert_array_equal(label_ranks(scores, labels) == 0, scores.argmax(1) == labels)


def test_loss_is_the_cross_entropy_of_the_mean_score_and_never_infinite():
    random = random_predictions(50, 4, views=3, missing=0)
    expected = -np.log(random.scores[np.arange(50), random.labels].astype(np.float64)).mean()
    assert summarize(random, list("abcd"))["loss"] == pytest.approx(expected, rel=1e-5)
    # The score underflows to 0 in float32; the loss is still the distance of the logits.
    assert summarize(predictions([[0.0, 300.0]], [0]), list("ab"))["loss"] == pytest.approx(300.0)
    two_views = predictions([[[0.0, 300.0], [0.0, 400.0]]], [0])
    assert summarize(two_views, list("ab"))["loss"] == pytest.approx(300 + np.log(2))


def equal(a, b):
    np.testing.assert_array_equal(a.confusion, b.confusion)
    assert a.num_top == b.num_top
    assert a.loss_sum == pytest.approx(b.loss_sum, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 8), st.integers(0, 10_000))
def test_merge_is_associative_commutative_and_gives_the_whole(i, j, K, seed):
    whole = random_predictions(20, K, seed=seed)
    low, high = sorted((i, j))
    states = [ClassificationState.from_predictions(part(whole, a, b)) for a, b in ((0, low), (low, high), (high, 20))]
    a, b, c = states
    equal(a.merge(b).merge(c), a.merge(b.merge(c)))
    equal(a.merge(b), b.merge(a))
    equal(a.merge(ClassificationState.empty(K)), a)
    merged = functools.reduce(ClassificationState.merge, states)
    equal(merged, ClassificationState.from_predictions(whole))
    assert merged.compute() == pytest.approx(summarize(whole, [str(k) for k in range(K)]), rel=1e-12)


def test_merge_leaves_its_operands_alone():
    a, b = (ClassificationState.from_predictions(random_predictions(5, 3, seed=s)) for s in (1, 2))
    before = a.confusion.copy(), b.confusion.copy()
    a.merge(b)
    np.testing.assert_array_equal(a.confusion, before[0])
    np.testing.assert_array_equal(b.confusion, before[1])


def test_renaming_the_classes_changes_no_accuracy():
    original = random_predictions(40, 5, seed=9)
    new = np.random.default_rng(0).permutation(5)
    renamed = predictions(original.logits[..., np.argsort(new)], new[original.labels], original.decoded)
    assert summarize(renamed, list("abcde")) == pytest.approx(summarize(original, list("abcde")))


def test_mean_class_accuracy_does_not_see_how_frequent_a_class_is():
    logits = np.eye(2)[[0] * 9 + [1]]
    labels = [0] * 9 + [1]
    assert summarize(predictions(logits, labels), list("ab"))["mean_class_accuracy"] == 1.0
    always_first = summarize(predictions(np.eye(2)[[0] * 10], labels), list("ab"))
    assert (always_first["top1"], always_first["majority"], always_first["mean_class_accuracy"]) == (0.9, 0.9, 0.5)


def test_errors():
    with pytest.raises(ValueError, match="class_names must hold K=3 names, received 2"):
        summarize(HAND, ["a", "b"])
    with pytest.raises(ValueError, match="class_names must hold K=3 names, received 4"):
        per_class(HAND, list("abcd"))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), received label 3 for the clip with id 8"):
        summarize(predictions(np.zeros((2, 3)), [0, 3], first_id=7), NAMES)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), received label -1"):
        summarize(predictions(np.zeros((1, 3)), [-1]), NAMES)
    with pytest.raises(ValueError, match="at least one clip, received none"):
        summarize(predictions(np.zeros((0, 3)), []), NAMES)
    with pytest.raises(ValueError, match="num_classes must be >= 1, received num_classes=0"):
        ClassificationState.empty(0)
    with pytest.raises(ValueError, match="same number of classes, received 2 and 3"):
        ClassificationState.empty(2).merge(ClassificationState.empty(3))
