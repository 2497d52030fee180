"""A run put to work: what is seen in these videos, and why?

>>> from jaxvid.inference import load_recognizer  # doctest: +SKIP
>>> recognizer = load_recognizer("runs/i3d_k400")  # doctest: +SKIP
>>> for found in recognizer.predict(["clip.mp4", "more_videos"]):  # doctest: +SKIP
...     print(found.path, found.error or found.top(3))

The names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvid.inference.explain import Explained, explain_run
    from jaxvid.inference.recognition import Guess, Recognition
    from jaxvid.inference.recognize import Recognizer, load_recognizer
    from jaxvid.inference.videos import find_videos

__all__ = ["Explained", "Guess", "Recognition", "Recognizer", "explain_run", "find_videos", "load_recognizer"]

_HOMES = MappingProxyType(
    {
        "Explained": "explain",
        "Guess": "recognition",
        "Recognition": "recognition",
        "Recognizer": "recognize",
        "explain_run": "explain",
        "find_videos": "videos",
        "load_recognizer": "recognize",
    }
)
"""Public name -> the file that it lives in."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
