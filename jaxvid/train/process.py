"""One process and its run folder: the lock that keeps a second one out, and the signals that end a run in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from jaxvid.files import only_one


@contextmanager
def only_one_process(workdir: Path) -> Iterator[None]:
    """Holds the folder's lock: two processes that write one run would destroy it."""
    in_use = f"--workdir must not be in use, received {workdir}, which another process trains in."
    with only_one(workdir / f".lock-{jax.process_index()}", in_use):
        yield


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and the first Ctrl-C set, so that the step under way ends and the state is saved."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def on_signal(number: int, frame: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
