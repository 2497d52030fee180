"""Counting steps, epochs, evaluations and saves."""

import pytest

from jaxvid.config import base, load
from jaxvid.train.plan import Plan


def test_every_clip_of_every_epoch_is_in_some_step():
    plan = Plan(num_clips=10, batch_size=4, num_epochs=3.0)
    assert plan.total_clips == 30
    assert plan.total_steps == 8  # 7 full batches and one of 2
    assert plan.epoch(8) == 3.0
    assert plan.steps_per_epoch == 2.5


@pytest.mark.parametrize(
    ("num_clips", "batch_size", "epochs", "every"), [(10, 4, 3.0, 1.0), (7, 3, 2.5, 0.5), (96, 8, 1, 0.25)]
)
def test_there_are_as_many_evaluations_as_periods(num_clips, batch_size, epochs, every):
    plan = Plan(num_clips, batch_size, float(epochs), eval_every_epochs=every)
    evaluations = [step for step in range(1, plan.total_steps + 1) if plan.evaluates_after(step)]
    assert len(evaluations) == round(epochs / every)
    assert evaluations[-1] == plan.total_steps


def test_an_evaluation_is_the_first_step_that_completes_the_epoch():
    plan = Plan(num_clips=10, batch_size=4, num_epochs=3.0)
    assert [step for step in range(1, 9) if plan.evaluates_after(step)] == [3, 5, 8]


def test_thirds_of_an_epoch_do_not_slip():
    plan = Plan(num_clips=9, batch_size=1, num_epochs=1.0, eval_every_epochs=1 / 3)
    assert [step for step in range(1, 10) if plan.evaluates_after(step)] == [3, 6, 9]


def test_saves_are_evaluations_and_every_so_many_steps():
    plan = Plan(num_clips=10, batch_size=4, num_epochs=3.0, save_every_steps=4)
    assert [step for step in range(1, 9) if plan.saves_after(step)] == [3, 4, 5, 8]


def test_max_steps_ends_the_run_earlier_but_never_later():
    assert Plan(100, 10, 2.0, max_steps=7).total_steps == 7
    assert Plan(100, 10, 2.0, max_steps=70).total_steps == 20


def test_a_fraction_of_an_epoch_is_at_least_one_clip():
    assert Plan(10, 4, 0.01).total_steps == 1


def test_it_comes_from_the_config():
    config = load(base(), {"train.num_epochs": 2, "train.batch_size": 5, "checkpoint.every_steps": 3})
    assert Plan.of(config, 50) == Plan(50, 5, 2.0, 1.0, 0, 3)
