"""How often XLA compiled in this process: a recompilation nobody expected is a bug that only costs time."""

from __future__ import annotations

from dataclasses import dataclass

import jax

_COMPILE = "/jax/core/compile/backend_compile_duration"
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


@dataclass
class Compilations:
    """Counters that grow while the process runs: programs compiled or loaded, seconds spent, loaded from the cache."""

    programs: int = 0
    seconds: float = 0.0
    cache_hits: int = 0


def count_compilations() -> Compilations:
    """The counters of this process; the first call starts the counting."""
    global _counters
    if _counters is None:
        _counters = Compilations()
        jax.monitoring.register_event_duration_secs_listener(_on_duration)
        jax.monitoring.register_event_listener(_on_event)
    return _counters


_counters: Compilations | None = None


def _on_duration(event: str, duration_secs: float, **_: object) -> None:
    if _counters is not None and event == _COMPILE:
        _counters.programs += 1
        _counters.seconds += duration_secs


def _on_event(event: str, **_: object) -> None:
    if _counters is not None and event == _CACHE_HIT:
        _counters.cache_hits += 1
