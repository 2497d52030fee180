"""How similar classes are, and which are confused."""

import dataclasses

import numpy as np
import pytest

from jaxvid.evaluation import Predictions
from jaxvid.evaluation.class_similarity import (
    DISTANCES,
    average_similarity,
    class_similarity,
    confusing_classes,
    num_confusing_for,
    order_by_similarity,
    top_n_accuracies,
)
from jaxvid.evaluation.similarity_plot import draw_similarity

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("distance", DISTANCES)
def test_it_is_a_similarity(distance):
    found = class_similarity(RNG.random((7, 30)), distance)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1)
    assert found.min() >= 0
    assert found.max() == 1


def test_by_hand():
    sparsity = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.5]])
    cosine = class_similarity(sparsity)
    np.testing.assert_allclose(cosine[0], [1, np.sqrt(0.5), 0])
    np.testing.assert_allclose(class_similarity(sparsity, "l1")[0], [1, 0.5, 0.25])


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_class_that_was_not_seen_is_like_no_other(distance):
    sparsity = RNG.random((4, 6))
    sparsity[2] = np.nan
    found = class_similarity(sparsity, distance)
    np.testing.assert_array_equal(found[2], [0, 0, 1, 0])
    np.testing.assert_array_equal(found[:2, :2], class_similarity(sparsity[:2], distance))


def test_the_mean_number_of_confusing_classes_is_met():
    similarity = class_similarity(RNG.random((20, 50)))
    for wanted in (0, 1, 2.5, 10, 19):
        confusing, alpha = confusing_classes(similarity, wanted)
        assert confusing.sum() / 20 - 1 == pytest.approx(wanted, abs=0.1)
        np.testing.assert_array_equal(confusing, confusing.T)
        assert confusing.diagonal().all()
        off = ~np.eye(20, dtype=bool)
        np.testing.assert_array_equal(confusing[off], similarity[off] > alpha)


def test_equally_similar_pairs_are_confused_together_or_not_at_all():
    similarity = np.full((4, 4), 0.5) + 0.5 * np.eye(4)
    assert confusing_classes(similarity, 1)[0].sum() == 4
    assert confusing_classes(similarity, 3)[0].all()


def test_top_n_and_the_number_it_asks_for():
    scores = np.array([[0.5, 0.3, 0.2]] * 4, np.float32)
    fields = {"ids": np.arange(4), "labels": np.array([0, 0, 1, 2]), "logits": np.zeros((4, 1, 3), np.float32)}
    whole = Predictions(**fields, decoded=np.ones(4, bool), scores=scores)
    assert top_n_accuracies(whole).tolist() == [0.5, 0.75, 1.0]
    broken = Predictions(**fields, decoded=np.array([False, True, True, True]), scores=scores)
    assert top_n_accuracies(broken).tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])  # of those that could be decoded
    assert top_n_accuracies(dataclasses.replace(whole, decoded=np.zeros(4, bool))).tolist() == [0, 0, 0]
    accuracies = np.array([0.5, 0.75, 1.0])
    assert [num_confusing_for(accuracies, share) for share in (0.4, 0.75, 0.8, 1.0)] == [1, 1, 2, 2]
    assert num_confusing_for(np.array([0.1, 0.2, 0.3]), 0.9) == 2


def test_average_and_order():
    similarity = np.array([[1, 0.1, 0.9, 0.1], [0.1, 1, 0.1, 0.8], [0.9, 0.1, 1, 0.3], [0.1, 0.8, 0.3, 1]])
    np.testing.assert_allclose(average_similarity(similarity), [1.1 / 3, 1 / 3, 1.3 / 3, 1.2 / 3])
    order = order_by_similarity(similarity).tolist()
    assert sorted(order) == [0, 1, 2, 3]
    assert abs(order.index(0) - order.index(2)) == 1
    assert abs(order.index(1) - order.index(3)) == 1
    assert order_by_similarity(np.eye(2)).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_similarity(np.full((2, 2), 1.5)), r"shares in \[0, 1\]"),
        (lambda: class_similarity(np.zeros(3)), r"received the shape \(3,\)"),
        (lambda: class_similarity(np.zeros((2, 2)), "l2"), "distance must be one of cosine, l1"),
        (lambda: confusing_classes(np.eye(3), 3), r"num_confusing must be in \[0, 2\] with 3 classes"),
    ],
)
def test_what_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_picture_marks_what_is_confused(tmp_path):
    similarity = class_similarity(RNG.random((6, 9)))
    confusing, _ = confusing_classes(similarity, 1)
    figure = draw_similarity(similarity, confusing, list("abcde$"), title="six")
    axes = figure.axes[0]
    marks = axes.collections[0].get_offsets()
    assert len(marks) == confusing.sum() - 6
    order = [int(k) for k in order_by_similarity(similarity)]
    assert {(order[int(y)], order[int(x)]) for x, y in marks} == set(
        zip(*np.nonzero(confusing & ~np.eye(6, dtype=bool)), strict=True)
    )
    assert [label.get_text() for label in axes.get_xticklabels()] == ["abcde$"[k] for k in order]
    figure.savefig(tmp_path / "similarity.png")
    draw_similarity(np.eye(70), np.eye(70, dtype=bool), [str(k) for k in range(70)]).savefig(tmp_path / "many.png")


@pytest.mark.parametrize("K", [4, 18, 40])
def test_long_names_lie_inside_the_picture_and_the_bar_says_that_the_diagonal_is_beyond(K):
    similarity = np.random.default_rng(0).uniform(0.2, 0.6, (K, K))
    similarity = (similarity + similarity.T) / 2 + np.eye(K) * (1 - np.diag(similarity))
    figure = draw_similarity(
        similarity, np.eye(K, dtype=bool), [f"turn_counterclockwise_{k}_flashes" for k in range(K)]
    )
    figure.draw_without_rendering()
    for label in (*figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()):
        box = label.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
    assert figure.axes[0].images[0].colorbar.extend == "max"
