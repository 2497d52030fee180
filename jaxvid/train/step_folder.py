"""The folders of checkpoints as they lie on disk: which there are, and what one holds, proven before it is believed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from jaxvid.train import checksums
from jaxvid.train.leaves import ITEMS, Leaves, by_path

RECORD = "jaxvid"
"""The item that holds the sealed JSON record."""

RECORD_FILE = Path(RECORD) / "metadata"  # where Orbax's JSON handler writes it
FORMAT = 1


class UnusableError(Exception):
    """Why a step cannot be used: a clause that follows "because"."""


def steps(directory: Path) -> list[int]:
    """The steps that have a folder of their final name, oldest first.

    >>> steps(Path("no such folder"))
    []
    """
    if not directory.is_dir():
        return []
    names = (path.name for path in directory.iterdir() if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def newest_first(directory: Path) -> list[Path]:
    """The folders of :func:`steps`, the newest first."""
    return [directory / str(step) for step in reversed(steps(directory))]


def half_written(directory: Path) -> list[Path]:
    """What saves left behind whose process died."""
    return sorted(directory.glob("*.orbax-checkpoint-tmp*"))


def read_record(folder: Path) -> dict[str, Any]:
    """The record of one step: ``format``, ``meta`` (with ``step``), ``metrics`` and ``items``.

    Raises:
      UnusableError: it is missing, damaged, of another format or of another program.
    """
    try:
        record = checksums.unseal(json.loads((folder / RECORD_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UnusableError(f"{RECORD_FILE} is missing: it is damaged, or jaxvid did not write it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableError(f"{RECORD_FILE} cannot be read: {short(error)}") from error
    if record.get("format") != FORMAT:
        raise UnusableError(f"its format is {record.get('format')!r} and this jaxvid reads format {FORMAT}")
    if not _is_complete(record):
        raise UnusableError(f"{RECORD_FILE} lacks fields that jaxvid writes")
    return record


def replace_record(folder: Path, sealed: Mapping[str, Any]) -> None:
    """Puts another sealed record in the place of a complete step's one, whole or not at all.

    Raises:
      OSError: it cannot be written; the old one is as it was.
    """
    new = folder / RECORD_FILE.with_name(f".{RECORD_FILE.name}.{os.getpid()}")
    with new.open("w", encoding="utf-8") as file:
        json.dump(sealed, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / RECORD_FILE)


def read_item(folder: Path, item: str, described: Mapping[str, Mapping[str, Any]]) -> Leaves:
    """One item's arrays on the host, with the digests that they were saved with.

    Args:
      folder: of the step.
      item: one of :data:`jaxvid.train.leaves.ITEMS`.
      described: the record's description of this item.

    Raises:
      UnusableError: a file is missing or damaged, or an array is not what was saved.
    """
    if not described:
        return {}
    try:
        with _quiet_stragglers(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            leaves = by_path(reader.restore(folder / item))
        difference = checksums.first_difference(leaves, described)
    except MemoryError:
        raise
    except Exception as error:  # whatever TensorStore and Orbax raise over a damaged file, often a page long
        raise UnusableError(f"its item {item} cannot be read: {short(error)}") from error
    if difference:
        raise UnusableError(f"in its item {item}, {difference}")
    return leaves


def short(error: BaseException) -> str:
    r"""The first line of an error without a full stop, its middle left out when long, its type where it says no more.

    >>> short(ValueError("too long.\n  and a page of specification"))
    'too long'
    """
    lines = str(error).strip().splitlines()
    text = lines[0].rstrip(". ") if lines else ""
    if len(text) > 240:  # TensorStore's errors begin with what failed and end with why, with paths between
        text = f"{text[:80]} ... {text[-150:]}"
    return text if text and isinstance(error, (OSError, ValueError)) else f"{type(error).__name__} {text}".strip()


@contextmanager
def _quiet_stragglers() -> Iterator[None]:
    """Drops the tracebacks of reads that go on in TensorStore's threads after one of them has failed.

    Orbax has closed its event loop by then, and each of them would report that through ``sys.unraisablehook``.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and "loop is closed" in str(unraisable.exc_value)):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    except Exception:
        time.sleep(0.1)  # until they have ended
        raise
    finally:
        sys.unraisablehook = before


def _is_complete(record: Mapping[str, Any]) -> bool:
    meta, metrics, items = record.get("meta"), record.get("metrics"), record.get("items")
    return (
        isinstance(meta, dict)
        and isinstance(meta.get("step"), int)
        and (metrics is None or isinstance(metrics, dict))
        and isinstance(items, dict)
        and all(isinstance(items.get(item), dict) for item in ITEMS)
        and all(
            isinstance(leaf, dict) and {"dtype", "shape", "sha256"} <= set(leaf)
            for item in items.values()
            for leaf in item.values()
        )
    )
