"""What of a network a run trains, group by group, before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import optax

from jaxvid.evaluation.text import columns
from jaxvid.train.finetune import BLOCKS, trains


@dataclass(frozen=True)
class Group:
    """Parameters that are trained together, or stay as they are together.

    Attributes:
      name: a part of the network (a block, ``class_regularization``, …), a deeper one that is named for training, or
        ``PART, the rest``.
      num_params: of them.
      trainable: whether they change.
    """

    name: str
    num_params: int
    trainable: bool


def groups_of(params: Any, trainable: Sequence[str]) -> list[Group]:
    """The parameters in the order of the network's blocks, what is not a block behind them.

    Args:
      params: of the network; shapes will do.
      trainable: the parts that change, see :func:`jaxvid.train.finetune.trains`; none means all.

    >>> leaf = jnp.zeros(3)
    >>> for group in groups_of({"head": {"kernel": leaf}, "stem": {"kernel": leaf, "bias": leaf}}, ("head",)):
    ...     print(group)
    Group(name='stem', num_params=6, trainable=False)
    Group(name='head', num_params=3, trainable=True)
    """
    counts: dict[tuple[str, bool], int] = {}
    flat: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(params)
    mixed = {path[0] for path in flat if trains(path, trainable)} & {
        path[0] for path in flat if not trains(path, trainable)
    }
    for path in sorted(flat, key=lambda path: _place(path[0])):
        trained, name = trains(path, trainable), path[0]
        if name in mixed:
            named = next((part for part in trainable if trains(path, (part,))), None)
            name = f"{name}, the rest" if named is None else named
        counts[name, trained] = counts.get((name, trained), 0) + flat[path].size
    return [Group(name, count, trained) for (name, trained), count in counts.items()]


def group_table(params: Any, trainable: Sequence[str], schedule: optax.Schedule, total_steps: int) -> str:
    """The groups as text: parameters, whether they are trained, the learning rate of the first step and the highest.

    Args:
      params: see :func:`groups_of`.
      trainable: see there.
      schedule: ``step -> rate``, also of several steps at once.
      total_steps: of the run, at least 1.

    >>> print(group_table({"stem": {"bias": jnp.zeros(2000)}, "head": {"bias": jnp.zeros(5)}}, ("head",),
    ...                   lambda step: 0.1 / (1 + jnp.asarray(step)), 10))
    group  parameters  trained  first rate  highest rate
    stem        2,000       no           -             -
    head            5      yes         0.1           0.1
    total       2,005        5         0.1           0.1
    """
    first, highest = jnp.asarray(schedule(0)), jnp.max(jnp.asarray(schedule(jnp.arange(total_steps))))
    rates = [f"{float(rate):.3g}" for rate in (first, highest)]
    groups = groups_of(params, trainable)
    lines = [["group", "parameters", "trained", "first rate", "highest rate"]]
    for group in groups:
        lines.append(
            [
                group.name,
                f"{group.num_params:,}",
                "yes" if group.trainable else "no",
                *(rates if group.trainable else ["-", "-"]),
            ]
        )
    whole, trained = (sum(group.num_params for group in groups if group.trainable >= only) for only in (False, True))
    return "\n".join(columns([*lines, ["total", f"{whole:,}", f"{trained:,}", *rates]]))


def _place(name: str) -> int:
    return BLOCKS.index(name) if name in BLOCKS else len(BLOCKS)
