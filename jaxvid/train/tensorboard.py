"""Scalars as TensorBoard reads them, without TensorFlow and without a thread between a number and the disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

_messages: Any = event_pb2  # protobuf makes its classes when the module is loaded, so that no type checker sees them


class TensorBoardWriter:
    """One event file of a run.

    tensorboardX's ``SummaryWriter`` hands events to a thread that neither its ``flush`` nor the death of the process
    waits for, so a run that goes on after SIGKILL would have a gap in its curves. This writes each step itself.

    Args:
      folder: of the run's event files; made when absent.
      resume_after: events of later steps in earlier files are superseded, and TensorBoard will not show them.
    """

    def __init__(self, folder: str | Path, *, resume_after: int = 0):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names, whose time is in whole seconds: the suffix orders and
        # separates those of one second.
        self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        start = _messages.SessionLog(status=_messages.SessionLog.START)
        self._write(_messages.Event(step=resume_after + 1, session_log=start))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step, by tag, and hands them to the operating system."""
        for tag, value in scalars.items():
            self._write(_messages.Event(step=step, summary=summary.scalar(tag, value)))
        self._events.flush()

    def close(self) -> None:
        """Closes the file."""
        self._events.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._events.write_event(event)
