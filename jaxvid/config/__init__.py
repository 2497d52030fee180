"""The configuration: its schema, its defaults and every check.

A config file is Python with ``get_config()`` (and an optional string argument, given after a colon). It starts from
:func:`base`, a locked and type-checked ``ml_collections.ConfigDict``, and changes fields. :func:`load` reads such a
file, applies dotted overrides and turns the result into one frozen :class:`Config` that was checked whole::

    config = load("configs/motion.py", overrides={"train.num_epochs": 3})

Every mistake is one ``ValueError`` sentence that names the field, the rule and the value received.
"""

from jaxvid.config.checks import check
from jaxvid.config.loading import base, load
from jaxvid.config.schema import (
    CheckpointConfig,
    ClassRegularizationConfig,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    SRTGConfig,
    TrainConfig,
    flatten,
    to_dict,
)

__all__ = [
    "CheckpointConfig",
    "ClassRegularizationConfig",
    "Config",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SRTGConfig",
    "ScheduleConfig",
    "TrainConfig",
    "base",
    "check",
    "flatten",
    "load",
    "to_dict",
]
