"""The command line: ``jaxvid train | eval | compare | fuse | predict | explain | convert | models | data | …``."""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Sequence

from jaxvid.cli.parsing import UsageError, parse

_INTERRUPTED = 130  # 128 + SIGINT
_READER_LEFT = 141  # 128 + SIGPIPE, as a shell reports any program that wrote to a closed pipe


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status (0 done, 1 failed, 2 wrong usage, 130 Ctrl-C, 141 nobody reads)."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options, overrides = parse(arguments)
        status = options.run(options, overrides)
        sys.stdout.flush()  # here, so that a closed pipe is met below and not at the interpreter's exit
        return status
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if _wants_traceback(arguments):
            raise
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return _READER_LEFT
        if _wants_traceback(arguments):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has left (``jaxvid models | head -1``); it is silenced then."""
    try:
        descriptor = sys.stdout.fileno()
        poll = select.poll()
    except (OSError, ValueError, AttributeError):  # not a file, or a system without poll
        return False
    poll.register(descriptor, 0)  # an error or a hang-up is reported without being asked for
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    # What is still buffered goes nowhere, else the interpreter complains once more at its exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return True


def _wants_traceback(arguments: Sequence[str]) -> bool:
    """Whether ``--debug`` was given: errors then keep their traceback."""
    return "--debug" in arguments
