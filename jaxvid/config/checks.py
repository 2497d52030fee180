"""What a config must satisfy beyond the types of its fields: ranges, and fields that must fit each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from jaxvid.config.schema import STAGE_NAMES, Config, SRTGConfig, flatten

_AT_LEAST_ONE = (
    "model.width",
    "data.num_frames",
    "data.frame_stride",
    "data.crop_size",
    "train.batch_size",
    "train.cpu_devices",
    "eval.batch_size",
    "eval.num_clips",
    "eval.short_side",
    "eval.crop_size",
    "checkpoint.keep_last",
)
_NOT_NEGATIVE = (
    "data.num_workers",
    "data.cache_gib",
    "optimizer.base_batch_size",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "schedule.warmup_epochs",
    "schedule.final_fraction",
    "checkpoint.every_steps",
    "checkpoint.keep_best",
    "finetune.draws",
    "model.u2s.shared_stages",
    "model.u2s.regularization",
    "model.u2s.num_confusing",
    "train.max_steps",
)
_BELOW_ONE = (
    "model.dropout",
    "data.val_fraction",
    "optimizer.momentum",
    "optimizer.ema_decay",
    "train.label_smoothing",
)
_POSITIVE = ("optimizer.learning_rate", "schedule.factor", "train.num_epochs", "eval.every_epochs")


def check(config: Config) -> None:
    """Raises ``ValueError`` for the first value or combination that cannot work."""
    for name, rule, holds in _rules(config):
        if not holds:
            value = flatten(config)[name]
            raise ValueError(f"{name} must be {rule}, received {name}={value!r}.")
    _check_combinations(config)


def _rules(config: Config) -> Iterator[tuple[str, str, bool]]:
    """``(field, rule, whether it holds)`` for every rule on one field."""
    values = flatten(config)
    for name in _AT_LEAST_ONE:
        yield name, ">= 1", values[name] >= 1
    for name in _NOT_NEGATIVE:
        yield name, ">= 0", values[name] >= 0
    for name in _BELOW_ONE:
        yield name, "in [0, 1)", 0 <= values[name] < 1
    for name in _POSITIVE:
        yield name, "> 0", values[name] > 0
    for name, value in values.items():
        if type(value) is int and name != "train.seed":
            yield name, "< 2**31", value < 2**31
    yield "train.seed", "in [0, 2**32)", 0 <= config.train.seed < 2**32
    yield "data.max_bad_fraction", "in [0, 1]", 0 <= config.data.max_bad_fraction <= 1
    yield "model.srtg.num_layers", "1 or 2", config.model.srtg.num_layers in (1, 2)
    yield "data.std", "greater than 0 in every channel", min(config.data.std) > 0
    low, high = config.data.short_side
    yield "data.short_side", "a pair (low, high) with 1 <= low <= high", 1 <= low <= high
    yield (
        "schedule.boundaries",
        "increasing",
        list(config.schedule.boundaries) == sorted(set(config.schedule.boundaries)),
    )
    trained = config.model.class_regularization.train_affection_rate
    yield (
        "model.class_regularization.affection_rates",
        "in (0, 1) where they are trained" if trained else "in [0, 1]",
        all(0 < rate < 1 if trained else 0 <= rate <= 1 for rate in config.model.class_regularization.affection_rates),
    )
    yield "model.u2s.top_accuracy", "in (0, 1]", 0 < config.model.u2s.top_accuracy <= 1
    names = [name for name, _, _ in config.train.stages]
    yield (
        "train.stages",
        f"some of {', '.join(STAGE_NAMES)} in this order, from the first one on",
        names == list(STAGE_NAMES[: len(names)]),
    )
    positive = all(epochs > 0 and factor > 0 for _, epochs, factor in config.train.stages)
    yield "train.stages", "of > 0 epochs and a factor > 0 each", positive
    yield "data.mirror", 'pairs written "a=b"', all(pair.count("=") == 1 for pair in config.data.mirror)


def _check_combinations(config: Config) -> None:
    data, evaluation, model = config.data, config.eval, config.model
    if data.folds and not all("{fold}" in split for split in (data.train_split, data.eval_split)):
        raise ValueError(
            f"data.train_split and data.eval_split must hold '{{fold}}' when data.folds is set, received "
            f"data.train_split={data.train_split!r} and data.eval_split={data.eval_split!r}."
        )
    if config.finetune.draws and not config.finetune.trainable:
        raise ValueError(
            f"finetune.draws must be 0 unless finetune.trainable leaves the first blocks frozen, received "
            f"finetune.draws={config.finetune.draws} with finetune.trainable=()."
        )
    regularization = model.class_regularization
    for name, group in {"class_regularization": regularization, "u2s": model.u2s}.items():
        changed = [f"model.{name}.{f.name}" for f in dataclasses.fields(group) if getattr(group, f.name) != f.default]
        if changed and not group.enabled:
            raise ValueError(
                f"{changed[0]} may only be set with model.{name}.enabled=true, received "
                f"{changed[0]}={flatten(config)[changed[0]]!r}."
            )
    _check_u2s(config)
    for name, readers in (("dictionary", ("srtg_csv",)), ("missing", ("hmdb51", "kinetics", "srtg_csv", "ucf101"))):
        if getattr(data, name) and data.name not in readers:
            raise ValueError(
                f"data.{name} may only be set with data.name {' or '.join(readers)}, "
                f"received data.{name}={getattr(data, name)!r} with data.name={data.name!r}."
            )
    if data.modality == "flow" and data.color != "RGB":
        raise ValueError(
            f"data.color must be 'RGB' with data.modality='flow', whose channels are no colours, "
            f"received data.color={data.color!r}."
        )
    if data.crop_size > data.short_side[0]:
        raise ValueError(
            f"data.crop_size must be <= data.short_side[0], because a crop is cut out of the resized frame, "
            f"received data.crop_size={data.crop_size} and data.short_side={data.short_side}."
        )
    if evaluation.crop_size > evaluation.short_side:
        raise ValueError(
            f"eval.crop_size must be <= eval.short_side, because a crop is cut out of the resized frame, "
            f"received eval.crop_size={evaluation.crop_size} and eval.short_side={evaluation.short_side}."
        )
    if not model.name.startswith("srtg_") and model.srtg != SRTGConfig():
        changed = [f"model.srtg.{f.name}" for f in dataclasses.fields(SRTGConfig)
                   if getattr(model.srtg, f.name) != f.default]  # fmt: skip
        raise ValueError(
            f"{changed[0]} may only be set for a model whose name starts with srtg_, "
            f"received {changed[0]}={flatten(config)[changed[0]]!r} with model.name={model.name!r}."
        )
    if model.srtg.gate_gradient != "hard" and model.srtg.gate != "cyclic":
        raise ValueError(
            f"model.srtg.gate_gradient may only be set with model.srtg.gate='cyclic', received "
            f"model.srtg.gate_gradient={model.srtg.gate_gradient!r} with model.srtg.gate={model.srtg.gate!r}."
        )
    if config.optimizer.nesterov and (config.optimizer.name != "sgd" or config.optimizer.momentum == 0):
        raise ValueError(
            f"optimizer.nesterov needs optimizer.name='sgd' with optimizer.momentum > 0, received "
            f"optimizer.name={config.optimizer.name!r} and optimizer.momentum={config.optimizer.momentum}."
        )
    if config.schedule.name == "step" and not config.schedule.boundaries:
        raise ValueError("schedule.boundaries must name at least one epoch with schedule.name='step', received ().")
    if config.schedule.name != "step" and config.schedule.boundaries:
        raise ValueError(
            f"schedule.boundaries may only be set with schedule.name='step', received "
            f"schedule.boundaries={config.schedule.boundaries} with schedule.name={config.schedule.name!r}."
        )
    if config.schedule.warmup_epochs > config.train.num_epochs:
        raise ValueError(
            f"schedule.warmup_epochs must be <= train.num_epochs, received "
            f"schedule.warmup_epochs={config.schedule.warmup_epochs} and train.num_epochs={config.train.num_epochs}."
        )
    names = [name for name, _ in config.train.mesh]
    sizes = [size for _, size in config.train.mesh]
    if (
        "data" not in names
        or len(set(names)) != len(names)
        or sizes.count(-1) > 1
        or any(s == 0 or s < -1 for s in sizes)
    ):
        raise ValueError(
            f"train.mesh must hold the axis 'data', each axis once, with sizes >= 1 and at most one -1, "
            f"received train.mesh={config.train.mesh}."
        )


def _check_u2s(config: Config) -> None:
    u2s, stages = config.model.u2s, config.train.stages
    if u2s.enabled and config.model.class_regularization.enabled:
        raise ValueError(
            "model.u2s.enabled must be false with model.class_regularization.enabled=true, received "
            "model.u2s.enabled=True."
        )
    if u2s.oracle and u2s.variant not in ("full", "simple", "soft"):
        raise ValueError(
            f"model.u2s.oracle must be false unless model.u2s.variant has masks (full, simple, soft), received "
            f"model.u2s.oracle=True with model.u2s.variant={u2s.variant!r}."
        )
    if u2s.similarity and u2s.variant in ("no_mask", "non_local"):
        raise ValueError(
            f"model.u2s.similarity must be empty unless model.u2s.variant has masks (full, simple, soft), received "
            f"model.u2s.similarity={u2s.similarity!r} with model.u2s.variant={u2s.variant!r}."
        )
    if u2s.enabled and config.finetune.draws:
        raise ValueError(
            f"finetune.draws must be 0 with model.u2s.enabled, whose networks begin with the video, received "
            f"finetune.draws={config.finetune.draws}."
        )
    if not stages:
        return
    if not u2s.enabled:
        raise ValueError(f"train.stages may only be set with model.u2s.enabled=true, received train.stages={stages}.")
    for name in ("trainable", "draws"):
        if value := getattr(config.finetune, name):
            raise ValueError(
                f"finetune.{name} must not be set with train.stages, each of which says what it trains, received "
                f"finetune.{name}={value!r}."
            )
    shortest = min(epochs for _, epochs, _ in stages)
    if config.schedule.warmup_epochs > shortest:
        raise ValueError(
            f"schedule.warmup_epochs must be <= the epochs of each of train.stages, received "
            f"schedule.warmup_epochs={config.schedule.warmup_epochs} with a stage of {shortest}."
        )
