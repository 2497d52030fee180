"""From a config file to one frozen, checked :class:`Config`."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import ml_collections

from jaxvid.config.checks import check
from jaxvid.config.schema import Config, flatten


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
    if not callable(getattr(module, "get_config", None)):
        raise ValueError(f"{where} must define get_config(), and does not.")
    takes_argument = bool(inspect.signature(module.get_config).parameters)
    if argument is not None and not takes_argument:
        raise ValueError(f"{where} takes no argument, received {argument!r} after the colon.")
    try:
        config = module.get_config(argument) if argument is not None else module.get_config()
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
    if spec is None or spec.loader is None:
        raise ValueError(f"config must be a Python file, received {path!r}.")
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
        prefix = "".join(f"{p}." for p in name.split(".")[:depth])
        hint = _hint(typing.cast(type, hint), part, prefix=prefix, value=value)
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
    raise ValueError(
        f"{prefix}{part} is not a field of the config (received {value!r}); {_nearest(part, hints, prefix)}"
    )


def _nearest(part: str, siblings: Mapping[str, Any], prefix: str) -> str:
    """The field that was probably meant: a near spelling, its initials (``lr``), or the same name in another group."""
    everywhere = {name.rsplit(".", 1)[-1]: name for name in flatten(Config())}
    initials = {"".join(word[0] for word in name.split("_")): name for name in siblings}
    near = difflib.get_close_matches(part, list(siblings), n=1)
    if near or part in initials:
        return f"did you mean {prefix}{near[0] if near else initials[part]}?"
    far = difflib.get_close_matches(part, list(everywhere), n=1)
    if far:
        return f"did you mean {everywhere[far[0]]}?"
    return f"the fields there are {', '.join(prefix + name for name in sorted(siblings))}."


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


def _first_sentence(error: Exception) -> str:
    text = str(error.args[0] if error.args else error).replace("\n", " ").strip()
    return text if text.endswith(".") or text.endswith("?") else f"{text}."
