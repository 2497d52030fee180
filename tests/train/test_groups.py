"""The table of what is trained: by hand, and for a schedule of a run."""

import jax
import numpy as np
import pytest

from jaxvid import models
from jaxvid.config import OptimizerConfig, ScheduleConfig
from jaxvid.models import cost
from jaxvid.models.class_regularized import class_regularized
from jaxvid.train.groups import Group, group_table, groups_of
from jaxvid.train.optim import make_schedule

PARAMS = {
    "class_regularization": {"stage4": {"kernel": np.zeros((5, 2))}},
    "head": {"classifier": {"kernel": np.zeros((5, 3)), "bias": np.zeros(3)}},
    "stage4": {"block0": {"kernel": np.zeros(40)}, "block1": {"kernel": np.zeros(50)}},
    "stem": {"conv": {"kernel": np.zeros(7)}},
}


def test_groups_come_in_the_order_of_the_network():
    assert groups_of(PARAMS, ("class_regularization", "stage4")) == [
        Group("stem", 7, trainable=False),
        Group("stage4", 90, trainable=True),
        Group("head", 18, trainable=False),
        Group("class_regularization", 10, trainable=True),
    ]


def test_a_part_of_a_block_stands_apart_from_its_rest():
    assert groups_of(PARAMS, ("stage4/block1", "head/classifier/bias"))[1:5] == [
        Group("stage4, the rest", 40, trainable=False),
        Group("stage4/block1", 50, trainable=True),
        Group("head, the rest", 15, trainable=False),
        Group("head/classifier/bias", 3, trainable=True),
    ]
    assert [group.trainable for group in groups_of(PARAMS, ())] == [True] * 4


@pytest.mark.parametrize("trainable", [(), ("class_regularization",), ("stage2/block0", "head")])
def test_nothing_of_a_network_is_left_out_or_counted_twice(trainable):
    network = class_regularized("r3d_18", models.build("r3d_18", 5, width=4))
    params = cost.variable_shapes(network, (4, 16, 16))["params"]
    groups = groups_of(params, trainable)
    assert sum(group.num_params for group in groups) == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert len({group.name for group in groups}) == len(groups)


def test_the_rates_are_those_of_the_first_step_and_of_the_highest():
    """0.2 after two epochs of four steps each: an eighth of it in the first step."""
    schedule = make_schedule(
        ScheduleConfig("cosine", warmup_epochs=2.0), OptimizerConfig(learning_rate=0.2),
        batch_size=8, steps_per_epoch=4, total_steps=40,
    )  # fmt: skip
    assert group_table(PARAMS, ("class_regularization",), schedule, 40).splitlines() == [
        "group                 parameters  trained  first rate  highest rate",
        "stem                           7       no           -             -",
        "stage4                        90       no           -             -",
        "head                          18       no           -             -",
        "class_regularization          10      yes       0.025           0.2",
        "total                        125       10       0.025           0.2",
    ]
