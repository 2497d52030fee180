"""One field of the schema: its type, a value of that type, and the sentence when name or value is wrong."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import ml_collections

from jaxvid.config.schema import Config


class UnknownFieldError(AttributeError, KeyError):
    """A field was read that the schema does not have; the message names the nearest one."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would quote it


class ConfigFields(ml_collections.ConfigDict):
    """A ``ConfigDict`` over one dataclass of the schema, which judges every assignment by the schema's types.

    What ``ConfigDict`` says of an unknown field is a dump of all its values, and it takes any tuple for a tuple;
    this one raises a ``ValueError`` of one sentence, at the line that assigns.

    >>> config = ConfigFields(Config)
    >>> config.train.batchsize = 3
    Traceback (most recent call last):
      ...
    ValueError: train.batchsize is not a field of the config (received 3); did you mean train.batch_size?
    """

    def __init__(self, schema: type, prefix: str = ""):
        super().__init__()
        # ConfigDict takes every attribute for a field of the config.
        object.__setattr__(self, "_schema", schema)
        object.__setattr__(self, "_prefix", prefix)
        for field in dataclasses.fields(schema):
            hint = field_type(schema, field.name, prefix=prefix)
            if dataclasses.is_dataclass(hint):
                default = ConfigFields(typing.cast(type, hint), f"{prefix}{field.name}.")
            else:
                default = field.default
            super().__setitem__(field.name, default)
        self.lock()

    def __setitem__(self, key: Any, value: Any) -> None:
        hint = field_type(self._schema, key, prefix=self._prefix, received=value)
        name = f"{self._prefix}{key}"
        if isinstance(value, ml_collections.FieldReference):
            pass  # its value is judged when the config is built
        elif dataclasses.is_dataclass(hint):
            group = ConfigFields(typing.cast(type, hint), f"{name}.")
            for part, item in as_group(value, name).items():
                group[part] = item
            value = group
        else:
            value = coerce(value, hint, name)
        super().__setitem__(key, value)

    def __getitem__(self, key: Any) -> Any:
        try:
            return super().__getitem__(key)
        except KeyError:
            raise self._unknown(key) from None

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # also asked by copy and pickle, before there is a schema
            raise AttributeError(attribute)
        return self[attribute]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._schema, self._prefix, dict(self._fields))

    def copy_and_resolve_references(self, visit_map: Any = None) -> ConfigFields:
        """A copy with its own groups, every reference replaced by its value."""
        values = {
            name: value.copy_and_resolve_references() if isinstance(value, ConfigFields) else value
            for name, value in self.items()
        }
        return _restore(self._schema, self._prefix, values)

    def _unknown(self, key: Any) -> UnknownFieldError:
        try:
            field_type(self._schema, key, prefix=self._prefix)
        except ValueError as error:
            return UnknownFieldError(str(error))
        return UnknownFieldError(f"{self._prefix}{key} was deleted from the config.")


def _restore(schema: type, prefix: str, values: dict[str, Any]) -> ConfigFields:
    """A copied or unpickled config; a group's values are groups already, and references stay shared."""
    fields = ConfigFields(schema, prefix)
    fields._fields.update(values)
    return fields


_ABSENT = object()


def field_type(owner: type, part: Any, *, prefix: str, received: Any = _ABSENT) -> Any:
    """The type of the field ``part`` of a dataclass of the schema.

    Args:
      owner: the dataclass.
      part: the field's own name.
      prefix: what stands before it in its dotted name: ``""``, ``"model."`` or ``"model.srtg."``.
      received: the value that it was to get, for the sentence.

    Raises:
      ValueError: there is no such field; the sentence names the nearest.
    """
    hints = typing.get_type_hints(owner)
    if isinstance(part, str) and part in hints:
        return hints[part]
    value = "" if received is _ABSENT else f" (received {show(received)})"
    name = f"{prefix}{part}" or "''"
    raise ValueError(f"{name} is not a field of the config{value}; {nearest(str(part), hints, prefix)}")


def nearest(part: str, siblings: Iterable[str], prefix: str) -> str:
    """What was probably meant: the same name in other groups, a near spelling, or its initials (``lr``).

    >>> nearest("batch_size", ["model", "train"], "")
    'did you mean train.batch_size or eval.batch_size?'
    """
    siblings = list(siblings)
    everywhere: dict[str, list[str]] = {}
    for name in _names(Config, ""):
        everywhere.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    here = {sibling: [prefix + sibling] for sibling in siblings}
    found = everywhere.get(part)
    for names in (here, everywhere):
        if not found:
            near = difflib.get_close_matches(part, list(names), n=1)
            short = [full for name, fulls in names.items() for full in fulls if part == _initials(name)]
            found = names[near[0]] if near else short
    if found:
        return f"did you mean {' or '.join(found)}?"
    return f"the fields there are {', '.join(prefix + name for name in sorted(siblings))}."


def _initials(name: str) -> str:
    return "".join(word[0] for word in name.split("_"))


def _names(owner: type, prefix: str) -> Iterable[str]:
    """Every group and every field by its dotted name."""
    for name, hint in typing.get_type_hints(owner).items():
        yield f"{prefix}{name}"
        if dataclasses.is_dataclass(hint):
            yield from _names(typing.cast(type, hint), f"{prefix}{name}.")


def is_group(value: Any) -> bool:
    """Whether a value holds fields."""
    return isinstance(value, Mapping | ml_collections.ConfigDict)


def as_group(value: Any, name: str) -> Mapping[str, Any]:
    """``value`` as a mapping from field to value; ``ValueError`` where it is none."""
    if not is_group(value):
        raise ValueError(f"{name} must be a group of fields, received {show(value)}.")
    return value


def build(cls: type, values: Mapping[str, Any], *, prefix: str = "") -> Any:
    """One dataclass of the schema from a mapping, every field checked against its type; absent ones are defaults."""
    arguments = {}
    for name, value in values.items():
        hint = field_type(cls, name, prefix=prefix, received=value)
        if dataclasses.is_dataclass(hint):
            group = as_group(value, f"{prefix}{name}")
            arguments[name] = build(typing.cast(type, hint), group, prefix=f"{prefix}{name}.")
        else:
            arguments[name] = coerce(value, hint, f"{prefix}{name}")
    return cls(**arguments)


def coerce(value: Any, hint: Any, name: str) -> Any:
    """``value`` as the type ``hint``; an int serves as a float and a list as a tuple, nothing else is converted."""
    fitting = _fit(value, hint)
    if fitting is not _ABSENT:
        return fitting
    near: list[str] = []
    if typing.get_origin(hint) is Literal:
        near = difflib.get_close_matches(str(value), [str(a) for a in typing.get_args(hint)], n=1)
    end = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"{name} must be {describe(hint)}, received {show(value)}{end}")


def _fit(value: Any, hint: Any) -> Any:
    """The value that the field gets, or ``_ABSENT`` where its type is wrong."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value if any(type(value) is type(a) and value == a for a in arguments) else _ABSENT
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return _ABSENT
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(value) != len(arguments):
            return _ABSENT
        items = tuple(_fit(item, a) for item, a in zip(value, arguments, strict=True))
        return _ABSENT if any(item is _ABSENT for item in items) else items
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        largest = 1.7976931348623157e308  # compared first: a larger int cannot become a float at all
        return float(value) if -largest <= value <= largest else _ABSENT
    return value if hint in (int, str, bool) and type(value) is hint else _ABSENT


def describe(hint: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if origin is tuple:
        inner = ", ".join("..." if a is Ellipsis else describe(a) for a in arguments)
        return f"a tuple ({inner})"
    return {int: "an integer", float: "a finite number", str: "text", bool: "true or false"}[hint]


def show(value: Any) -> str:
    """A value on one line of a sentence, cut where it is long."""
    text = " ".join(repr(value).split("\n"))
    return text if len(text) <= 200 else f"{text[:197]}..."
