"""What a decoding process needs: it ignores the terminal, ends with its parent, and its errors come home."""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.process
import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, cast

_NOT_FOR_WORKERS = (signal.SIGINT, signal.SIGTERM)


class WorkerDiedError(RuntimeError):
    """A decoding process ended by itself. The message says what usually does that."""


def prepare_worker(index: int, count: int) -> None:
    """Runs at the start of every decoding process.

    Ctrl-C and SIGTERM go to a whole group of processes, but only the one that trains may decide what they mean: it
    still needs its next batch to end a step and save. And when it is killed, nobody tells its workers, which would
    wait for room in their queues for ever: they watch it and end themselves.
    """
    for number in _NOT_FOR_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def start_workers(function: Callable[..., Any], *args: Any) -> Any:
    """Calls what starts processes, in a thread that blocks the signals which :func:`prepare_worker` ignores.

    A process inherits what the thread that starts it blocks. Without that, a signal to the whole group would end those
    that are still importing; here it waits until they ignore it. This thread goes on receiving signals.
    """
    block = functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK, _NOT_FOR_WORKERS)
    pool = ThreadPoolExecutor(1, thread_name_prefix="start-workers", initializer=block)
    try:
        return pool.submit(function, *args).result()
    finally:
        pool.shutdown(wait=False)


def _end_with_parent() -> NoReturn:
    # Only the main process has no parent, and it prepares no worker.
    cast(multiprocessing.process.BaseProcess, multiprocessing.parent_process()).join()
    os._exit(1)


def num_threads(num_workers: int) -> int:
    """Decoding threads of one process: all cores that may be used, shared among the processes that decode."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, num_workers))


def portable(error: Exception, note: str) -> Exception:
    """The exception with a note; replaced by a ``RuntimeError`` of the same text if it cannot be pickled.

    An exception that does not survive pickling would never arrive, and the process that waits for it would hang.
    """
    error.add_note(note)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        replacement = RuntimeError(f"{type(error).__name__}: {error}")
        replacement.add_note(note)
        return replacement.with_traceback(error.__traceback__)
    return error


def worker_died(error: RuntimeError) -> WorkerDiedError | None:
    """The error for a process that is gone, made from the one that Grain raises; ``None`` for any other error."""
    code = str(error).partition("terminated unexpectedly with exit code ")[2]
    if not code:
        return None
    return WorkerDiedError(
        f"a decoding process ended unexpectedly with exit code {code.partition('.')[0]}: -9 means that it was killed "
        f"(often for want of memory), -7 that shared memory is full (/dev/shm; a container needs --shm-size), -11 that "
        f"the decoder crashed; 1 often means that a script lacks 'if __name__ == \"__main__\":'. "
        f"num_workers=0 decodes in threads instead."
    )
