"""A function over many items in several processes, for work on whole data sets: making one, checking one.

The processes are fresh interpreters that import the function by its name and nothing of the program that asks for it.
Therefore this works in a notebook, in a test and in a script without ``if __name__ == "__main__"``, where processes of
:mod:`multiprocessing` do not. A process that dies, as a decoder may over a damaged file, costs one item: it gets a
:class:`WorkerDiedError` for a result, and a new process goes on with the next one.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from jaxvid.data.workers import WorkerDiedError, num_threads, portable

_START = "from jaxvid.data.parallel import serve; serve()"
# Each process has one core: libraries that start a thread for every core would only get into each other's way.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def map_unordered(
    function: Callable[[Any], Any], items: Sequence[Any], *, num_workers: int | None = None
) -> Iterator[tuple[int, Any]]:
    """``(i, function(items[i]))`` of all items, in the order in which they get done.

    Args:
      function: at the top level of an importable module. Items and results must be picklable.
      items: what to work on.
      num_workers: processes; ``None``: one for each core that may be used; 0: none, all is done here, in order.

    Yields:
      Index and result of an item. The result is a :class:`WorkerDiedError` where the process died over the item.

    Raises:
      ValueError: ``num_workers`` is negative.
      Exception: what the function raises, at the first item that makes it raise. The processes are gone then, as they
        are when the iterator is closed.

    >>> sorted(map_unordered(len, ["a", "bcd"], num_workers=0))
    [(0, 1), (1, 3)]
    """
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers must be >= 0, received num_workers={num_workers}.")
    return _map(function, items, num_threads(1) if num_workers is None else num_workers)


def _map(function: Callable[[Any], Any], items: Sequence[Any], num_workers: int) -> Iterator[tuple[int, Any]]:
    if not num_workers:
        yield from ((index, function(item)) for index, item in enumerate(items))
        return
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(items)):
        todo.put(index)
    done: queue.SimpleQueue[tuple[int, bool, Any]] = queue.SimpleQueue()
    workers = [_Worker(function, items, todo, done) for _ in range(min(num_workers, len(items)))]
    try:
        for worker in workers:
            worker.start()
        for _ in range(len(items)):
            index, succeeded, result = done.get()
            if not succeeded:
                raise result
            yield index, result
    finally:
        for worker in workers:
            worker.stop()


class _Worker(threading.Thread):
    """A thread that keeps one process busy until nothing is left to do."""

    def __init__(self, function: Callable, items: Sequence, todo: queue.SimpleQueue, done: queue.SimpleQueue):
        super().__init__(daemon=True)
        self._function, self._items, self._todo, self._done = function, items, todo, done
        self._process: subprocess.Popen | None = None
        self._pipes: Any = ()
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> None:
        index = -1
        try:
            while not self._stopped:
                index = self._todo.get_nowait()
                self._done.put((index, *self._result(self._items[index])))
        except queue.Empty:
            pass
        except Exception as error:  # e.g. an item that cannot be pickled: whoever waits for it must hear of it
            self._done.put((index, False, error))
        finally:
            self.stop()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
                self._process.communicate()  # closes the pipes, and waits
                self._process = None

    def _result(self, item: Any) -> tuple[bool, Any]:
        """``(True, result)`` or ``(False, exception)``."""
        request = pickle.dumps(item)
        process, requests, answers = self._running()
        try:
            requests.write(request)
            requests.flush()
            return pickle.load(answers)
        # UnpicklingError: it died in the middle of its answer; ValueError: stopped meanwhile, its pipes are closed.
        except (EOFError, BrokenPipeError, pickle.UnpicklingError, ValueError):
            code = process.wait()
            with self._lock:
                self._process = None
            requests.close()
            answers.close()
            return True, WorkerDiedError(f"a process died over this item (exit code {code}).")

    def _running(self) -> tuple[subprocess.Popen, IO[bytes], IO[bytes]]:
        """The process and the pipes to and from it; begun where there is none."""
        with self._lock:
            if self._stopped:
                raise RuntimeError("stopped")
            if self._process is None:
                environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
                )
                self._pipes = self._process.stdin, self._process.stdout
                self._greet(*self._pipes)
            return self._process, *self._pipes

    def _greet(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        """Sends the function and waits until it is there: an interpreter that cannot start is no item's fault."""
        try:
            _send(requests, self._function)
            pickle.load(answers)
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"{sys.executable} could not start a process that imports jaxvid.") from error


def serve() -> None:
    """What the processes run: takes the function, then an item and returns its result, until there is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the one who asked ends its processes itself
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not get among the answers
    requests = sys.stdin.buffer
    function = pickle.load(requests)
    _send(answers, "ready")
    while True:
        try:
            item = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = True, function(item)
        except Exception as error:
            answer = False, portable(error, "in a process of jaxvid.data.parallel")
        _send(answers, answer)


def _send(pipe: IO[bytes], message: Any) -> None:
    pipe.write(pickle.dumps(message))
    pipe.flush()
