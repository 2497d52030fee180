"""From a config file to one frozen, checked :class:`Config`."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import traceback
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import ml_collections

from jaxvid.config.checks import check
from jaxvid.config.fields import (
    ConfigFields,
    UnknownFieldError,
    as_group,
    build,
    describe,
    field_type,
    is_group,
    show,
)
from jaxvid.config.schema import Config

Overrides = Mapping[str, Any] | Iterable[str]


def base() -> ml_collections.ConfigDict:
    """The schema's defaults as a ``ConfigDict`` that refuses unknown fields and wrong types: where a config starts.

    >>> config = base()
    >>> config.optimizer.learning_rate = 0.05
    """
    return ConfigFields(Config)


def load(
    source: str | Path | types.ModuleType | Mapping[str, Any] | ml_collections.ConfigDict | Config,
    overrides: Overrides | None = None,
) -> Config:
    """Reads a config, applies overrides, checks the whole and freezes it.

    Args:
      source: a config file (``"configs/motion.py"``, with an argument ``"configs/folder.py:smoke"``), a module or
        dotted module name that has ``get_config``, a mapping (such as the JSON that a checkpoint holds), or a
        :class:`Config`.
      overrides: the fields to change, in one of three forms: dotted ``{"train.batch_size": 4}``, nested
        ``{"train": {"batch_size": 4}}`` (both may be mixed), or texts ``["train.batch_size=4"]`` as on the command
        line. A text value is parsed by the field's type.

    Returns:
      The frozen, checked :class:`Config`.

    Raises:
      ValueError: the file, a field or a combination of fields is wrong; one sentence says which and why.

    >>> load({}, ["train.batch_size=4"]) == load({}, {"train": {"batch_size": 4}})
    True
    """
    values = _as_dict(source)
    for name, value in _dotted(overrides):
        _override(values, name, value)
    config = build(Config, values)
    check(config)
    return config


def _as_dict(source: Any) -> dict[str, Any]:
    if isinstance(source, Config):
        return dataclasses.asdict(source)
    if is_group(source):
        return _plain(source)
    argument: str | None = None
    if isinstance(source, types.ModuleType):
        module, where = source, source.__name__
    else:
        where, _, text = str(source).partition(":")
        argument = text or None
        module = _import(where)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise ValueError(f"{where} must define the function get_config(), and does not.")
    arguments = () if argument is None else (argument,)
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        if argument is None:
            raise ValueError(f"{where} needs an argument after a colon ({where}:ARGUMENT), received none.") from None
        raise ValueError(f"{where} takes no argument, received {argument!r} after the colon.") from None
    with _blaming(where, getattr(module, "__file__", None)):
        config = get_config(*arguments)
        if isinstance(config, Config):
            return dataclasses.asdict(config)
        if not isinstance(config, ml_collections.ConfigDict):
            raise ValueError(
                f"get_config() must return the config that it made of jaxvid.config.base(), received {show(config)}."
            )
        values = _plain(config)
        build(Config, values)  # what is wrong before any override is the file's fault
    return values


def _plain(group: Any) -> dict[str, Any]:
    """A mapping or ``ConfigDict``, and all in it, as new dicts; references become their values."""
    return {name: _plain(value) if is_group(value) else value for name, value in group.items()}


@contextmanager
def _blaming(where: str, file: str | None) -> Iterator[None]:
    """Whatever a config file raises becomes one ``ValueError`` sentence that names the file, and the line if known."""
    try:
        yield
    except Exception as error:
        if isinstance(error, SyntaxError) and error.filename == file:
            line, text = error.lineno, f"not valid Python: {error.msg}"
        else:
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
            line, text = lines[-1] if lines else None, " ".join(str(error).split())
            if not isinstance(error, ValueError | UnknownFieldError):
                text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        text = text if text.endswith((".", "?", "!")) else f"{text}."
        if Path(where).name not in text:
            text = f"{where}{f':{line}' if line else ''}: {text}"
        raise ValueError(text) from error


def _import(path: str) -> types.ModuleType:
    if not path.endswith(".py"):
        return _import_by_name(path)
    file = Path(path)
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in file.parent.glob("*.py")], n=1)
        raise ValueError(f"config must be an existing file, received {path!r}{_or_rather(file.parent, near)}")
    spec = importlib.util.spec_from_file_location(f"jaxvid_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"config must be a Python file, received {path!r}.")
    module = importlib.util.module_from_spec(spec)
    with _blaming(path, spec.origin):
        spec.loader.exec_module(module)
    return module


def _import_by_name(name: str) -> types.ModuleType:
    file = Path(f"{name}.py")
    rather = _or_rather(file.parent, [file.name] if file.is_file() else [])
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"config must be a .py file or an importable module, received {name!r}{rather}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"config must be a .py file or an importable module, received {name!r}{rather}") from error
        with _blaming(name, None):
            raise
    except Exception:
        with _blaming(name, None):
            raise


def _or_rather(folder: Path, names: list[str]) -> str:
    """How a sentence about an absent file ends."""
    return f"; did you mean {str(folder / names[0])!r}?" if names else "."


def _dotted(overrides: Overrides | None) -> Iterator[tuple[str, Any]]:
    """``(dotted field, value)`` of every override, whatever the form."""
    if overrides is None:
        return
    if is_group(overrides):
        yield from _leaves(overrides, "")
        return
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise ValueError(f"overrides must be a mapping or a list of 'field=value' texts, received {show(overrides)}.")
    for text in overrides:
        name, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
        if not equals:
            raise ValueError(f"overrides must be a mapping or hold texts 'field=value', received {show(text)} in it.")
        yield name.strip(), value


def _leaves(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in group.items():
        if is_group(value):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _override(values: dict[str, Any], name: str, value: Any) -> None:
    """Sets one dotted field, parsed by the type that the schema gives it."""
    hint: type = Config
    here, prefix = values, ""
    *parents, last = name.split(".")
    for part in parents:
        group = field_type(hint, part, prefix=prefix, received=value)
        if not dataclasses.is_dataclass(group):
            raise ValueError(f"{prefix}{part} holds no fields, received {name}={show(value)}.")
        here[part] = dict(as_group(here.get(part, {}), f"{prefix}{part}"))
        hint, here, prefix = typing.cast(type, group), here[part], f"{prefix}{part}."
    leaf = field_type(hint, last, prefix=prefix, received=value)
    if dataclasses.is_dataclass(leaf):
        fields = ", ".join(f"{name}.{f.name}" for f in dataclasses.fields(leaf))
        raise ValueError(f"{name} is a group of fields ({fields}), received {name}={show(value)}.")
    here[last] = _parse(value, leaf, name) if isinstance(value, str) else value


def _parse(text: str, hint: Any, name: str) -> Any:
    """The value that a text on the command line stands for."""
    if hint is str or (typing.get_origin(hint) is Literal and isinstance(typing.get_args(hint)[0], str)):
        return text
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if typing.get_origin(hint) is tuple and typing.get_args(hint)[0] is str:
            return tuple(part for part in text.split(",") if part)
        raise ValueError(f"{name} must be {describe(hint)}, received {show(text)}.") from None
