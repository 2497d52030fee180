"""Classes by rank and the spread of their probabilities over views, by hand."""

import numpy as np
import pytest

from jaxvid.evaluation import mean_scores
from jaxvid.inference import Recognition
from jaxvid.inference.recognition import spread


def recognition(probabilities, names):
    """A video whose views have these probabilities, ``[V K]``."""
    logits = np.log(np.asarray(probabilities, np.float32))
    return Recognition("a.mp4", names, logits, mean_scores(logits[None])[0])


def test_the_interval_is_the_middle_95_percent_of_the_views():
    """Five views lie at the quantiles 0, 1/4, 1/2, 3/4 and 1: 0.025 is a tenth of the way to the second."""
    p = np.array([0.5, 0.1, 0.3, 0.2, 0.4])
    (wave, clap) = recognition(np.stack([1 - p, p], 1), ("wave", "clap")).top()
    assert (wave.name, wave.label, clap.name, clap.label) == ("wave", 0, "clap", 1)
    assert wave.probability == pytest.approx(0.7)
    assert clap.probability == pytest.approx(0.3)
    assert clap.interval == pytest.approx((0.11, 0.49))
    assert wave.interval == pytest.approx((0.51, 0.89))


def test_one_view_has_no_interval():
    assert recognition([[0.75, 0.25]], ("wave", "clap")).top(1)[0].interval is None
    assert spread(np.array([0.5])) is None


@pytest.mark.parametrize("K", [1, 2, 7])
def test_never_more_classes_than_there_are(K):
    names = tuple(f"class {k}" for k in range(K))
    found = recognition(np.full((2, K), 1 / K), names)
    assert [guess.label for guess in found.top(5)] == list(range(min(5, K))), "of equal ones, the lower label"
    assert found.top(100)[0].probability == pytest.approx(1 / K)
    assert len(found.top(100)) == K
    with pytest.raises(ValueError, match="k must be >= 1, received k=0"):
        found.top(0)


def test_a_video_that_failed_has_no_guess():
    found = Recognition.failed("a.mp4", ("wave", "clap"), "a.mp4 must not be empty.")
    assert (found.top(3), found.num_views, found.logits.shape) == ((), 0, (0, 2))
    assert found.view_scores.shape == (0, 2)
