"""Recognitions as text for people, as JSON lines, as a table for spreadsheets, and as arrays."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxvid.evaluation.text import pad, printable, text_width
from jaxvid.inference.recognition import Recognition

CSV_COLUMNS = ("path", "rank", "class", "label", "probability", "low", "high", "num_views", "num_frames", "duration",
               "num_seen", "seen_from", "seen_to", "error")  # fmt: skip
"""Of the table; ``low`` and ``high`` are the ends of :attr:`jaxvid.inference.recognition.Guess.interval`."""

_OF_A_VIDEO = ("num_views", "num_frames", "duration", "num_seen", "seen")
_BAR = 20  # characters of a bar for 100 %


def to_text(found: Recognition, top: int, block: str = "█") -> str:
    """A small table: what was seen of the video, and its most probable classes with bars; or why there is none.

    Args:
      found: one video.
      top: how many classes.
      block: what bars are made of.
    """
    if found.error:
        return f"{printable(found.path)}: not decoded\n  {printable(found.error)}"
    guesses = found.top(top)
    names = [printable(guess.name) for guess in guesses]
    width = max(map(text_width, names))
    lines = [f"{printable(found.path)}: {_what_was_seen(found)}"]
    for name, guess in zip(names, guesses, strict=True):
        bar = block * round(_BAR * guess.probability)
        views = "" if guess.interval is None else "  95% of views: {:.1%} to {:.1%}".format(*guess.interval)
        lines.append(f"  {pad(name, width)}  {_percent(guess.probability):>6}  {bar:<{_BAR}}{views}".rstrip())
    return "\n".join(lines)


def to_json(found: Recognition, top: int) -> str:
    """One line of strict JSON; its keys are the same, and null, where the video could not be decoded."""
    classes = [
        {"class": guess.name, "label": guess.label, "probability": guess.probability, "interval": guess.interval}
        for guess in found.top(top)
    ]
    told: dict[str, Any] = {"path": found.path, "top": classes, **dict.fromkeys(_OF_A_VIDEO), "error": None}
    if found.error:
        told["error"] = found.error
    else:
        told |= {name: getattr(found, name) for name in _OF_A_VIDEO}
    return json.dumps(told, allow_nan=False)


def to_csv(found: Recognition, top: int) -> str:
    """Rows of :data:`CSV_COLUMNS`: one for each of the most probable classes, or one with the error."""
    if found.error:
        return _csv([(found.path, *[""] * (len(CSV_COLUMNS) - 2), found.error)])
    video = (found.num_views, found.num_frames, found.duration, found.num_seen, *found.seen, "")
    return _csv(
        (found.path, rank, guess.name, guess.label, guess.probability, *(guess.interval or ("", "")), *video)
        for rank, guess in enumerate(found.top(top), start=1)
    )


@contextmanager
def csv_table(path: str | os.PathLike[str], top: int) -> Iterator[Any]:
    """A function that appends one video to a CSV file (UTF-8), which :func:`growing` completes.

    Args:
      path: of the file.
      top: how many classes of each video.
    """
    with growing(path) as file:
        file.write(_csv([CSV_COLUMNS]).encode())

        def write(found: Recognition) -> None:
            _append(file, to_csv(found, top))

        yield write


@contextmanager
def result_folder(folder: Path, top: int) -> Iterator[Any]:
    """A function that notes one video in the files of a folder.

    * ``predictions.jsonl``: a line for each video (:func:`to_json`), as it comes (:func:`growing`).
    * ``predictions.npz``: ``names`` (the paths), ``decoded``, ``logits [n V K]``, ``scores [n K]`` and
      ``class_names``, as ``jaxvid eval`` calls them; 0 for a video that could not be decoded.

    Args:
      folder: an existing one.
      top: how many classes of each video stand in the lines.
    """
    videos: list[Recognition] = []
    with growing(folder / "predictions.jsonl") as file:

        def write(found: Recognition) -> None:
            videos.append(found)
            _append(file, f"{to_json(found, top)}\n")

        yield write
    with growing(folder / "predictions.npz") as file:
        _write_arrays(file, videos)


@contextmanager
def growing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file that is written as ``PATH.part`` and renamed when it is complete.

    So ``PATH`` is complete or what it was before, and ``PATH.part`` keeps what was done when something stops.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    with open(part, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _what_was_seen(found: Recognition) -> str:
    views = f" in {found.num_views} views" if found.num_views > 1 else ""
    first, last = found.seen
    whole = f"{found.num_frames} frame{'s' * (found.num_frames != 1)}, {found.duration:.1f} s"
    return f"{whole}; seen: {found.num_seen}, from {first:.1f} to {last:.1f} s{views}"


def _percent(probability: float) -> str:
    """One decimal, but neither 0 nor 100 % of what is only near.

    >>> _percent(0.62549), _percent(0.0002), _percent(0.99998), _percent(1.0)
    ('62.5%', '<0.1%', '>99.9%', '100.0%')
    """
    if 0 < probability < 0.0005:
        return "<0.1%"
    if 0.9995 <= probability < 1:
        return ">99.9%"
    return f"{probability:.1%}"


def _append(file: IO[bytes], text: str) -> None:
    # File names that are not UTF-8 reach us as lone surrogates (os.fsdecode); this writes their own bytes back.
    file.write(text.encode("utf-8", errors="surrogateescape"))
    file.flush()


def _csv(rows: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write_arrays(file: IO[bytes], videos: Sequence[Recognition]) -> None:
    class_names = videos[0].class_names
    views, K = max(found.num_views for found in videos), len(class_names)
    logits = np.zeros((len(videos), views, K), np.float32)
    scores = np.zeros((len(videos), K), np.float32)
    for row, found in enumerate(videos):
        if not found.error:
            logits[row], scores[row] = found.logits, found.scores
    np.savez(
        file,
        names=np.array([found.path for found in videos], np.str_),
        decoded=np.array([not found.error for found in videos], bool),
        logits=logits,
        scores=scores,
        class_names=np.array(class_names, np.str_),
    )
