"""Training: state, optimiser, sharding, the compiled step, checkpoints, and the loop that puts them together.

>>> from jaxvid import config, train  # doctest: +SKIP
>>> result = train.train(config.load("configs/motion.py"), "runs/motion")  # doctest: +SKIP
>>> result.metrics["top1"]  # doctest: +SKIP

The names below are loaded when they are first used: asking for the step does not bring in the decoder.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvid.train.folds import FoldsResult, cross_validate
    from jaxvid.train.loop import TrainResult
    from jaxvid.train.optim import make_optimizer, make_schedule
    from jaxvid.train.run import Evaluated, Run, evaluate_run, load_run
    from jaxvid.train.sharding import make_mesh, put, replicate
    from jaxvid.train.stages import train
    from jaxvid.train.state import TrainState, create_state
    from jaxvid.train.step import TrainStep, make_apply, make_train_step

__all__ = [
    "Evaluated",
    "FoldsResult",
    "Run",
    "TrainResult",
    "TrainState",
    "TrainStep",
    "create_state",
    "cross_validate",
    "evaluate_run",
    "load_run",
    "make_apply",
    "make_mesh",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "put",
    "replicate",
    "train",
]

_HOMES = MappingProxyType(
    {
        "Evaluated": "run",
        "FoldsResult": "folds",
        "Run": "run",
        "TrainResult": "loop",
        "TrainState": "state",
        "TrainStep": "step",
        "create_state": "state",
        "cross_validate": "folds",
        "evaluate_run": "run",
        "load_run": "run",
        "make_apply": "step",
        "make_mesh": "sharding",
        "make_optimizer": "optim",
        "make_schedule": "optim",
        "make_train_step": "step",
        "put": "sharding",
        "replicate": "sharding",
        "train": "stages",
    }
)
"""Public name -> the file that it lives in."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
