"""The configuration: its schema, its defaults and every check.

A config file is Python with ``get_config()`` (and an optional string argument, given after a colon). It starts from
:func:`base`, a locked and type-checked ``ml_collections.ConfigDict``, and changes fields. :func:`load` reads such a
file, applies dotted overrides and turns the result into one frozen :class:`Config` that was checked whole::

    config = load("configs/motion.py", overrides={"train.num_epochs": 3})

Every mistake is one ``ValueError`` sentence that names the field, the rule and the value received.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ml_collections


@dataclass(frozen=True)
class SRTGConfig:
    """Squeeze-and-Recursion and its temporal gate (thesis chapter 4); read by models whose name starts with ``srtg_``."""

    cell: Literal["lstm", "peephole_lstm", "gru", "rnn"] = "lstm"
    num_layers: int = 2
    gate: Literal["none", "cyclic"] = "none"  # none: x * RNN(pool x) | cyclic: only where the cyclic consistency holds
    gate_gradient: Literal["hard", "straight_through"] = "hard"  # hard: closed gates pass no gradient to their cell
    init: Literal["identity", "torch"] = (
        "identity"  # identity: starts as (nearly) the plain network | torch: as the authors
    )
    placement: Literal["start", "top", "mid", "end", "res", "final"] = "final"


@dataclass(frozen=True)
class ModelConfig:
    """The network: a name of ``jaxvid.models.MODELS`` and what a user may change of it."""

    name: str = "srtg_r3d_18"
    width: int = 64  # channels of stage 1; the stages have width x 1, 2, 4, 8
    dropout: float = 0.0  # before the classifier
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the activations; parameters stay float32
    conv: Literal["auto", "direct", "folded"] = "auto"  # formulation of the 3-D convolution
    srtg: SRTGConfig = field(default_factory=SRTGConfig)


@dataclass(frozen=True)
class DataConfig:
    """Which videos, and how one clip is cut out of each."""

    name: str = "motion"  # a name of jaxvid.data.DATASETS
    root: str = ""  # folder of the data set; empty: the default place of an embedded one
    annotations: str = ""  # annotation file (CSV or split file) of the data sets that need one
    train_split: str = "train"
    eval_split: str = "val"
    val_fraction: float = 0.0  # folder data without val/: this share of each class is held out
    num_frames: int = 16
    frame_stride: int = 1
    sampler: Literal["random", "normal", "segments", "dense"] = "random"  # where a training clip is cut out
    short_side: tuple[int, int] = (72, 72)  # training: the short side is drawn from this closed range (pixels)
    crop_size: int = 64  # training and evaluation crops are square (pixels)
    flip: bool = False  # horizontal flip with probability 1/2
    mirror: tuple[str, ...] = ()  # "left=right" pairs: classes that a horizontal flip exchanges
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)  # of RGB in [0, 1]
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    num_workers: int = 0  # decoding processes; 0 decodes in threads of the training process
    max_bad_fraction: float = 0.1  # more undecodable videos than this share end the run


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser. Weight decay never touches normalisation parameters and biases."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    base_batch_size: int = 0  # linear scaling rule: the rate belongs to this batch size; 0 leaves it unscaled
    momentum: float = 0.9  # sgd
    nesterov: bool = False  # sgd
    weight_decay: float = 1e-5
    clip_norm: float = 0.0  # global gradient norm; 0 does not clip
    ema_decay: float = 0.0  # exponential moving average of the parameters, used in evaluation; 0 keeps none


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over the run, in epochs (fractions are allowed)."""

    name: Literal["constant", "step", "cosine"] = "cosine"
    warmup_epochs: float = 0.0
    boundaries: tuple[float, ...] = ()  # step: epochs at which the rate is multiplied by `factor`
    factor: float = 0.1
    final_fraction: float = 0.0  # cosine: the last rate as a share of the first


@dataclass(frozen=True)
class CheckpointConfig:
    """When a checkpoint is written and which ones stay."""

    every_steps: int = 0  # 0: at the end of every epoch only
    keep_last: int = 2
    keep_best: int = 1  # by eval/top1


@dataclass(frozen=True)
class TrainConfig:
    """The length of the run and what every step does."""

    num_epochs: float = 10.0
    max_steps: int = 0  # ends the run earlier; 0: does not
    batch_size: int = 32  # clips over all devices and hosts
    label_smoothing: float = 0.0
    seed: int = 0
    mesh: tuple[tuple[str, int], ...] = (("data", -1),)  # axes of the device mesh; -1: all devices that are left
    tensorboard: bool = True


@dataclass(frozen=True)
class EvalConfig:
    """Multi-view evaluation: num_clips x num_crops views of each video, softmax averaged."""

    every_epochs: float = 1.0
    batch_size: int = 32  # videos
    num_clips: int = 1
    num_crops: Literal[1, 3] = 1  # 1: centre | 3: left, centre, right (or top, centre, bottom)
    short_side: int = 72
    crop_size: int = 64
    frame_order: Literal["natural", "shuffled", "reversed", "frozen"] = "natural"  # does it look at motion at all?


@dataclass(frozen=True)
class Config:
    """One experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


def base() -> ml_collections.ConfigDict:
    """The schema's defaults as a ``ConfigDict`` that refuses unknown fields and wrong types: where a config starts.

    >>> config = base()
    >>> config.optimizer.learning_rate = 0.05
    """
    config = ml_collections.ConfigDict(dataclasses.asdict(Config()), convert_dict=True)
    return config.lock()


def load(
    source: str | Path | types.ModuleType | Mapping[str, Any] | ml_collections.ConfigDict,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Reads a config, applies overrides, checks the whole and freezes it.

    Args:
      source: a config file (``"configs/motion.py"``, with an argument ``"configs/folder.py:smoke"``), a module or
        dotted module name that has ``get_config``, or a mapping (such as the JSON that a checkpoint holds).
      overrides: dotted field -> value, ``{"optimizer.learning_rate": 0.05}``. Text is parsed by the field's type,
        as on the command line.

    Returns:
      The frozen, checked :class:`Config`.

    Raises:
      ValueError: the file, a field or a combination of fields is wrong; one sentence says which and why.
    """
    values = _as_dict(source)
    for name, value in (overrides or {}).items():
        _override(values, name, value)
    config = _build(Config, values, prefix="")
    check(config)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain JSON-able values; ``load(to_dict(config)) == config``."""
    return _plain(dataclasses.asdict(config))


def flatten(config: Config) -> dict[str, Any]:
    """Every field by its dotted name, in the schema's order."""
    return dict(_leaves(dataclasses.asdict(config), ""))


def check(config: Config) -> None:
    """Raises ``ValueError`` for the first value or combination that cannot work."""
    for name, rule, holds in _rules(config):
        if not holds:
            value = flatten(config)[name]
            raise ValueError(f"{name} must be {rule}, received {name}={value!r}.")
    _check_combinations(config)


def _rules(config: Config) -> Iterator[tuple[str, str, bool]]:
    """``(field, rule, whether it holds)`` for every rule on one field."""
    at_least_one = (
        "model.width data.num_frames data.frame_stride data.crop_size train.batch_size eval.batch_size "
        "eval.num_clips eval.short_side eval.crop_size checkpoint.keep_last model.srtg.num_layers"
    ).split()
    not_negative = (
        "data.num_workers optimizer.base_batch_size optimizer.weight_decay optimizer.clip_norm "
        "schedule.warmup_epochs schedule.final_fraction checkpoint.every_steps checkpoint.keep_best train.max_steps"
    ).split()
    below_one = "model.dropout data.val_fraction optimizer.momentum optimizer.ema_decay train.label_smoothing".split()
    positive = "optimizer.learning_rate schedule.factor train.num_epochs eval.every_epochs".split()
    values = flatten(config)
    for name in at_least_one:
        yield name, ">= 1", values[name] >= 1
    for name in not_negative:
        yield name, ">= 0", values[name] >= 0
    for name in below_one:
        yield name, "in [0, 1)", 0 <= values[name] < 1
    for name in positive:
        yield name, "> 0", values[name] > 0
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
    yield "data.mirror", 'pairs written "a=b"', all(pair.count("=") == 1 for pair in config.data.mirror)


def _check_combinations(config: Config) -> None:
    data, evaluation, model = config.data, config.eval, config.model
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


def _as_dict(source: Any) -> dict[str, Any]:
    if isinstance(source, ml_collections.ConfigDict):
        return source.to_dict()
    if isinstance(source, Mapping):
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in source.items()}
    argument: str | None = None
    if isinstance(source, types.ModuleType):
        module, where = source, source.__name__
    else:
        path, _, text = str(source).partition(":")
        argument, where = text or None, path
        module = _import(path)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise ValueError(f"{where} must define get_config(), and does not.")
    takes_argument = bool(inspect.signature(get_config).parameters)
    if argument is not None and not takes_argument:
        raise ValueError(f"{where} takes no argument, received {argument!r} after the colon.")
    try:
        config = get_config(argument) if argument is not None else get_config()
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: {_first_sentence(error)}") from error
    return config.to_dict()


def _import(path: str) -> types.ModuleType:
    if not path.endswith(".py"):
        try:
            return importlib.import_module(path)
        except ImportError as error:
            raise ValueError(f"config must be a .py file or an importable module, received {path!r}.") from error
    file = Path(path)
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in file.parent.glob("*.py")], n=1)
        hint = f" Did you mean {str(file.parent / near[0])!r}?" if near else ""
        raise ValueError(f"config must be an existing file, received {path!r}.{hint}")
    spec = importlib.util.spec_from_file_location(f"jaxvid_config_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _override(values: dict[str, Any], name: str, value: Any) -> None:
    """Sets one dotted field, parsed by the type that the schema gives it."""
    hint: Any = Config
    *parents, last = name.split(".")
    here = values
    for depth, part in enumerate([*parents, last]):
        if not dataclasses.is_dataclass(hint):
            raise ValueError(f"{'.'.join(name.split('.')[:depth])} holds no fields, received {name}={value!r}.")
        hint = _hint(hint, part, prefix="".join(f"{p}." for p in name.split(".")[:depth]), value=value)
        if depth < len(parents):
            child = dict(here.get(part) or {})
            here[part] = child
            here = child
    if dataclasses.is_dataclass(hint):
        fields = ", ".join(f"{name}.{f.name}" for f in dataclasses.fields(hint))
        raise ValueError(f"{name} is a group of fields ({fields}), received {name}={value!r}.")
    here[last] = _parse(value, hint, name) if isinstance(value, str) else value


def _hint(owner: type, part: str, *, prefix: str, value: Any) -> Any:
    """The type of one field, or the sentence that it does not exist."""
    hints = typing.get_type_hints(owner)
    if part in hints:
        return hints[part]
    names = sorted(hints)
    everywhere = {n.rsplit(".", 1)[-1]: n for n in flatten(Config())}
    near = difflib.get_close_matches(part, names, n=1)
    if near:
        hint = f"did you mean {prefix}{near[0]}?"
    elif part in everywhere:
        hint = f"did you mean {everywhere[part]}?"
    else:
        hint = f"the fields there are {', '.join(prefix + n for n in names)}."
    raise ValueError(f"{prefix}{part} is not a field of the config (received {value!r}); {hint}")


def _parse(text: str, hint: Any, name: str) -> Any:
    """The value that a text on the command line stands for."""
    if hint is str or (typing.get_origin(hint) is Literal and isinstance(typing.get_args(hint)[0], str)):
        return text
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if typing.get_origin(hint) is tuple and typing.get_args(hint)[0] is str:
            return tuple(part for part in text.split(",") if part)
        raise ValueError(f"{name} must be {_describe(hint)}, received {text!r}.") from None


def _build(cls: type, values: Mapping[str, Any], *, prefix: str) -> Any:
    """One dataclass of the schema from a mapping, every field checked against its type."""
    arguments = {}
    for name, value in values.items():
        hint = _hint(cls, name, prefix=prefix, value=value)
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ValueError(f"{prefix}{name} must be a group of fields, received {value!r}.")
            arguments[name] = _build(typing.cast(type, hint), value, prefix=f"{prefix}{name}.")
        else:
            arguments[name] = _coerce(value, hint, f"{prefix}{name}")
    return cls(**arguments)


def _coerce(value: Any, hint: Any, name: str) -> Any:
    """``value`` as the type ``hint``; an int serves as a float and a list as a tuple, nothing else is converted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments and not isinstance(value, bool):
            return value
        near = difflib.get_close_matches(str(value), [str(a) for a in arguments], n=1)
        hint_text = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be {_describe(hint)}, received {value!r}.{hint_text}")
    if origin is tuple and isinstance(value, (tuple, list)):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_coerce(item, arguments[0], name) for item in value)
        if len(value) == len(arguments):
            return tuple(_coerce(item, a, name) for item, a in zip(value, arguments, strict=True))
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == value and abs(value) != float("inf"):
            return float(value)
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    raise ValueError(f"{name} must be {_describe(hint)}, received {value!r}.")


def _describe(hint: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if origin is tuple:
        inner = ", ".join("..." if a is Ellipsis else _describe(a) for a in arguments)
        return f"a tuple ({inner})"
    return {int: "an integer", float: "a finite number", str: "text", bool: "true or false"}[hint]


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def _first_sentence(error: Exception) -> str:
    text = str(error.args[0] if error.args else error).replace("\n", " ").strip()
    return text if text.endswith(".") or text.endswith("?") else f"{text}."
