"""The sentence for an option that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

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
