"""Where the scalars of a run go: ``metrics.jsonl``, TensorBoard, and whoever watches.

``metrics.jsonl`` has one JSON object a line. Each has ``step``; a training step has at least ``epoch``, ``loss`` and
``batch_sha256`` besides, an evaluation has ``eval/...`` keys and, as ``epoch/...``, means since the one before.
It is strict JSON, which knows no NaN and no infinity: a number that is not finite is ``null``, and
``"nonfinite": {"loss": "nan"}`` beside it says which it was.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

log = logging.getLogger(__name__)


class JsonlWriter:
    """Appends objects to a file, one a line, each handed to the operating system before :meth:`write` returns.

    Args:
      path: the file; made when absent. A half-written last line is cut off.

    Raises:
      OSError: it cannot be written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = self.path.open("ab")
        if not _ends_with_newline(self.path):
            self.keep(lambda record: True)

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one object.

        Args:
          record: numbers, booleans, strings and None by name; NumPy scalars and arrays of one number are numbers.

        Raises:
          TypeError: a value is something else.
        """
        text = json.dumps(_strict(record), allow_nan=False)
        self._file.write(f"{text}\n".encode())
        self._file.flush()

    def truncate_after(self, step: int) -> None:
        """Drops the objects of later steps and lines that are none, in one atomic rewrite.

        A run that goes on after ``step`` will write those steps again, so that each step occurs once.
        """
        self.keep(lambda record: record.get("step", 0) <= step)

    def close(self) -> None:
        """Closes the file; may be called twice."""
        self._file.close()

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drops the objects that are not wanted and lines that are none, in one atomic rewrite."""
        self._file.close()
        kept = [line for line, record in _lines(self.path) if wanted(record)]
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with new.open("wb") as file:
            file.writelines(f"{line}\n".encode() for line in kept)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        self._file = self.path.open("ab")


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file that :class:`JsonlWriter` wrote, of one that is being written or was cut off, too.

    A last line that is not complete is left out; a damaged line before it is named in a warning and left out.

    Raises:
      OSError: the file cannot be read.
    """
    return [record for _, record in _lines(Path(path))]


def is_evaluation(record: Mapping[str, Any]) -> bool:
    """Whether a line of ``metrics.jsonl`` is an evaluation's.

    >>> is_evaluation({"step": 2, "eval/top1": 0.5}), is_evaluation({"step": 2, "loss": 0.5})
    (True, False)
    """
    return any(name.startswith("eval/") for name in record)


class MetricWriter:
    """The scalars of one run, in ``WORKDIR/metrics.jsonl`` and for TensorBoard in ``WORKDIR/tensorboard``.

    Args:
      workdir: the run folder; made when absent.
      resume_after: the step that the run goes on from (0 at its start). What was written of later steps is dropped
        from the file, and marked as superseded for TensorBoard.
      evaluation_due: whether the evaluation after ``resume_after`` is still to be made: then a line of it, which a
        process wrote that died before its checkpoint knew of it, is dropped too.
      tensorboard: whether to write for TensorBoard.
      enabled: whether this process writes; by default only the first of all processes does.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        resume_after: int = 0,
        evaluation_due: bool = False,
        tensorboard: bool = True,
        enabled: bool | None = None,
    ):
        self._jsonl: JsonlWriter | None = None
        self._tensorboard: Any = None
        if not (_is_first_process() if enabled is None else enabled):
            return
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        self._jsonl = JsonlWriter(workdir / "metrics.jsonl")
        self._jsonl.truncate_after(resume_after)
        if evaluation_due:
            self._jsonl.keep(lambda record: not (record.get("step") == resume_after and is_evaluation(record)))
        if tensorboard:
            from jaxvid.train.tensorboard import TensorBoardWriter

            self._tensorboard = TensorBoardWriter(workdir / "tensorboard", resume_after=resume_after)

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the values of one step.

        Args:
          step: training steps that are complete.
          values: see :meth:`JsonlWriter.write`. For TensorBoard, numbers get ``train/`` before their name unless it
            begins with ``eval/`` or ``epoch/``.
        """
        if self._jsonl is None:
            return
        self._jsonl.write({"step": step, **values})
        if self._tensorboard is not None:
            self._tensorboard.write(step, dict(_tags(values)))

    def close(self) -> None:
        """Closes the files; may be called twice."""
        if self._jsonl is not None:
            self._jsonl.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None


class Progress(Protocol):
    """Who watches a run. The library never prints: it calls these, and the command line shows them."""

    def start(self, *, step: int, total_steps: int) -> None:
        """A run of ``total_steps`` steps begins, or goes on after ``step``."""

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        """A training step is complete; ``values`` is its line of ``metrics.jsonl``."""

    def epoch(self, step: int, summary: Mapping[str, Any]) -> None:
        """An evaluation is complete; ``summary`` has the means since the last one and the ``eval/...`` metrics."""

    def message(self, text: str) -> None:
        """Something that a person should read once."""

    def evaluating(self, total: int) -> Callable[[int], None]:
        """An evaluation of ``total`` videos begins; the result is called with how many are done so far."""
        ...

    def making(self) -> Callable[[int, int], None]:
        """Data may have to be made first; the result is called with how many videos are done, and of how many."""
        ...


class LoggingProgress:
    """The default: epochs and messages go to the log, at level INFO."""

    def __init__(self) -> None:
        self._total_steps: int | None = None

    def start(self, *, step: int, total_steps: int) -> None:
        """See :class:`Progress`."""
        self._total_steps = total_steps
        log.info("Training from step %d to step %d.", step, total_steps)

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        """See :class:`Progress`; steps are not logged, they are in ``metrics.jsonl``."""

    def epoch(self, step: int, summary: Mapping[str, Any]) -> None:
        """See :class:`Progress`."""
        log.info("%s", epoch_line(step, self._total_steps, summary))

    def message(self, text: str) -> None:
        """See :class:`Progress`."""
        log.info("%s", text)

    def evaluating(self, total: int) -> Callable[[int], None]:
        """See :class:`Progress`."""
        return lambda done: None

    def making(self) -> Callable[[int, int], None]:
        """See :class:`Progress`."""
        return lambda done, total: None


_COLUMNS = (
    ("epoch", "epoch {:6.2f}"),
    ("loss", "loss {:.4f}"),
    ("top1", "top1 {:6.2%}"),
    ("eval/loss", "eval loss {:.4f}"),
    ("eval/top1", "eval top1 {:6.2%}"),
    ("gate/mean", "gates open {:4.0%}"),
    ("learning_rate", "lr {:.2e}"),
    ("clips_per_second", "{:.1f} clips/s"),
    ("data_wait_fraction", "data wait {:3.0%}"),
    ("seconds", "{:.1f} s"),
)


def epoch_line(step: int, total_steps: int | None, summary: Mapping[str, Any]) -> str:
    """One line for people about what happened since the last evaluation.

    >>> epoch_line(40, 400, {"epoch": 1.0, "loss": 2.0794, "eval/top1": 0.125, "clips_per_second": 31.25})
    'epoch   1.00 | step 40/400 | loss 2.0794 | eval top1 12.50% | 31.2 clips/s'
    """
    words = [form.format(float(summary[name])) for name, form in _COLUMNS if summary.get(name) is not None]
    words.insert(
        1 if "epoch" in summary else 0, f"step {step}" if total_steps is None else f"step {step}/{total_steps}"
    )
    return " | ".join(words)


def _is_first_process() -> bool:
    import jax

    return jax.process_index() == 0


def _tags(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers, by their name in TensorBoard."""
    for name, value in values.items():
        plain = _plain(name, value)
        if isinstance(plain, (int, float)) and not isinstance(plain, bool):
            yield name if name.startswith(("eval/", "epoch/")) else f"train/{name}", plain


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each line that is an object, with the object."""
    found = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode()
            record = json.loads(text)
        except ValueError:
            record = None
        if isinstance(record, dict):
            found.append((text, record))
        elif number < len(lines):
            log.warning("%s:%d is not a JSON object and is left out.", path, number)
    return found


def _strict(record: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: _plain(name, value) for name, value in record.items()}
    nonfinite = {n: str(v) for n, v in plain.items() if isinstance(v, float) and not math.isfinite(v)}
    return plain | dict.fromkeys(nonfinite) | ({"nonfinite": nonfinite} if nonfinite else {})


def _plain(name: str, value: Any) -> bool | int | float | str | None:
    if hasattr(value, "dtype") and getattr(value, "size", 0) == 1:
        value = np.asarray(value).item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} must be a number, a boolean, a string or None, received {type(value).__name__}.")
