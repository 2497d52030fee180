"""What the command line shows while something runs: a bar in a terminal, plain lines elsewhere.

In a terminal there is one bar for the training and one for the loop inside it (an evaluation, making or checking data),
and what is printed stays above them. Where standard output is a file or a pipe, each epoch and message is one line
without control characters, and plain loops print nothing, so that what a command prints by itself can be parsed.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from jaxvid.train.writers import epoch_line


class RichProgress:
    """A :class:`jaxvid.train.writers.Progress` for people, and bars for plain loops.

    Args:
      console: where to; standard output by default.
    """

    def __init__(self, console: Console | None = None):
        self.console = Console() if console is None else console
        self._bars: Bars | None = None
        self._train: _Task | None = None
        self._total_steps: int | None = None
        self._handlers: list[tuple[logging.StreamHandler, Any]] = []

    def __enter__(self) -> RichProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, *, step: int, total_steps: int) -> None:
        """Shows the bar of a run that goes on after ``step``, instead of that of the run before it."""
        self._end_training()
        self._total_steps = total_steps
        self._train = self._task("training", total_steps, done=step)

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        """Moves the bar; shows the epoch, loss, clips a second, and the share of time spent waiting for data."""
        if self._train is not None:
            words = [form.format(values[name]) for name, form in _STEP_COLUMNS if values.get(name) is not None]
            self._train.update(step, " ".join(words))

    def epoch(self, step: int, summary: Mapping[str, Any]) -> None:
        """Prints the epoch's line; takes the bar away after the last step."""
        self.message(epoch_line(step, self._total_steps, summary))
        if step == self._total_steps:
            self._end_training()

    def message(self, text: str) -> None:
        """Prints one line."""
        self.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def evaluating(self, total: int) -> Callable[[int], None]:
        """The bar of an evaluation; takes how many of the ``total`` videos are done."""
        counter = self.counting("evaluating")
        return lambda done: counter(done, total)

    def making(self) -> Callable[[int, int], None]:
        """The bar of making data; takes how many are done, and of how many."""
        return self.counting("making")

    def checking(self) -> Callable[[int, int], None]:
        """The bar of checking data; takes how many are done, and of how many."""
        return self.counting("checking")

    def counting(self, description: str) -> Callable[[int, int], None]:
        """A bar that appears at the first call of ``(done, total)`` and goes when all are done."""
        task: _Task | None = None

        def count(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = self._task(description, total)
            task.update(done)
            if done >= total:
                task.end()
                task = None

        return count

    def close(self) -> None:
        """Takes all bars away; may be called twice."""
        self._end_training()
        if self._bars is not None:
            for handler, stream in self._handlers:
                handler.setStream(stream)
            self._handlers = []
            self._bars.stop()
            self._bars = None

    def _end_training(self) -> None:
        if self._train is not None:
            self._train.end()
            self._train = None

    def _task(self, description: str, total: int, done: int = 0) -> _Task:
        return _Task(self._live(), description, total, done)

    def _live(self) -> Bars | None:
        """The display, begun at its first use; None where lines cannot be drawn over."""
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            return None
        if self._bars is None:
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[detail]} {task.fields[eta]}"),
                console=self.console,
                transient=True,
                refresh_per_second=4,
            )
            before = sys.stderr
            self._bars.start()
            # Log lines go above the bars like prints do; a handler holds the stream that it was made with.
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                    self._handlers.append((handler, before))
                    handler.setStream(sys.stderr)
        return self._bars


_STEP_COLUMNS = (
    ("epoch", "epoch {:.2f}"),
    ("loss", "loss {:.4f}"),
    ("clips_per_second", "{:.1f} clips/s"),
    ("data_wait_fraction", "data wait {:.0%}"),
)


class _Task:
    """One bar, or nothing where there are none."""

    def __init__(self, bars: Bars | None, description: str, total: int, done: int):
        self._bars, self._total = bars, total
        self._id: TaskID | None = None
        # The time left counts from the first round that is complete: it holds compilation and the start of workers.
        self._since: tuple[float, int] | None = None
        if bars is not None:
            self._id = bars.add_task(description, total=total, completed=done, detail="", eta="")

    def update(self, done: int, detail: str = "") -> None:
        """``done`` rounds are done in all."""
        if self._bars is None or self._id is None:
            return
        now = time.monotonic()
        if self._since is None:
            self._since = (now, done)
        self._bars.update(self._id, completed=done, detail=detail, eta=time_left(self._since, (now, done), self._total))

    def end(self) -> None:
        """The bar goes."""
        if self._bars is not None and self._id is not None:
            self._bars.remove_task(self._id)
            self._id = None


def time_left(since: tuple[float, int], now: tuple[float, int], total: int) -> str:
    """How long the rest takes at the mean speed so far; each point is (seconds, rounds done).

    >>> time_left((0.0, 0), (10.0, 5), 100)
    'ETA 0:03:10'
    >>> time_left((0.0, 1), (0.0, 1), 100)
    ''
    """
    seconds, rounds = now[0] - since[0], now[1] - since[1]
    if rounds <= 0:
        return ""
    left = round(seconds / rounds * (total - now[1]))
    return f"ETA {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
