"""Choices by name: the sentence for one that does not exist, and the kernels of the default backend."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

import jax

_LISTED = 20  # more names would hide the sentence


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises ``ValueError`` with the nearest valid name when ``value`` is none of ``choices``.

    >>> require_choice("cell", "lstn", ("lstm", "gru"))
    Traceback (most recent call last):
    ...
    ValueError: cell must be one of lstm, gru, received cell='lstn'; did you mean 'lstm'?
    """
    choices = tuple(choices)
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    listed = ", ".join(choices) if len(choices) <= _LISTED else f"{len(choices)} names"
    raise ValueError(f"{name} must be one of {listed}, received {name}={value!r}{hint}")


def pallas_form(operator: str) -> Any:
    """The hand-written kernels of ``jaxvid.ops.OPERATOR_tpu`` or ``_gpu``, for the default backend.

    Pallas is imported by those who use it: it doubles the time that ``jaxvid.ops`` takes.

    Raises:
        ValueError: The default backend is neither.
    """
    backend = jax.default_backend()
    if backend not in ("tpu", "gpu"):
        raise ValueError(f"implementation='pallas' needs a TPU or GPU as the default backend, received {backend!r}.")
    return importlib.import_module(f"jaxvid.ops.{operator}_{backend}").FORM
