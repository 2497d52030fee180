"""UT-Interaction, segmented clips: two people, six interactions, twenty sequences in two sets.

M. S. Ryoo and J. K. Aggarwal, "UT-Interaction Dataset, ICPR contest on Semantic Description of Human Activities
(SDHA)", 2010. The protocol leaves one sequence out: within a set (sequences 1-10, a parking lot; 11-20, a windy lawn)
nine sequences train and the tenth tests. A random split would share actors, clothes and background between the two.
"""

from __future__ import annotations

import re
from pathlib import Path

from jaxvid.data.records import DatasetError, VideoDataset, VideoRecord

CLASS_NAMES = ("handshake", "hug", "kick", "point", "punch", "push")
_FILE = re.compile(r"s(?P<set>[12])_(?P<sample>\d+)_(?P<sequence>\d+)_(?P<label>[0-5])\.avi")
_SPLIT = re.compile(r"(?P<part>train|test)-set(?P<set>[12])-seq(?P<sequence>\d\d)")


def folds(*sets: int) -> tuple[str, ...]:
    """The names of the leave-one-sequence-out folds of the given sets.

    >>> folds(1)[:2], len(folds(1, 2))
    (('set1-seq01', 'set1-seq02'), 20)
    """
    return tuple(f"set{s}-seq{q:02d}" for s in sets for q in range(10 * s - 9, 10 * s + 1))


def read_ut_interaction(root: str, split: str, *, annotations: str = "", val_fraction: float = 0.0) -> VideoDataset:
    """Reads one side of one fold: ``ROOT/CLASS/s<SET>_<SAMPLE>_<SEQUENCE>_<LABEL>.avi``.

    Args:
      root: folder of the six class folders.
      split: ``train-FOLD`` or ``test-FOLD`` with a name of :func:`folds`, for example ``test-set1-seq04``.
      annotations: must be empty; the file names say everything.
      val_fraction: must be 0; the folds are the protocol.

    Raises:
      DatasetError: a file's name or place contradicts the layout, or the folder holds no video.
      ValueError: the split's name is not of the form above, or an option makes no sense here.
    """
    if annotations or val_fraction:
        raise ValueError(
            f"annotations and val_fraction must be empty and 0 for ut_interaction, whose folds are fixed, "
            f"received annotations={annotations!r}, val_fraction={val_fraction}."
        )
    match = _SPLIT.fullmatch(split)
    if match is None or f"set{match['set']}-seq{match['sequence']}" not in folds(1, 2):
        raise ValueError(f"split must be train-FOLD or test-FOLD with FOLD such as {folds(1)[0]}, received {split!r}.")
    chosen_set, left_out = int(match["set"]), int(match["sequence"])
    records = []
    for path, number, sequence, label in _videos(Path(root).expanduser()):
        if number == chosen_set and (sequence == left_out) == (match["part"] == "test"):
            name = f"{path.parent.name}/{path.name}"
            records.append(VideoRecord(id=len(records), label=label, video=str(path), name=name))
    return VideoDataset("ut_interaction", split, CLASS_NAMES, tuple(records))


def _videos(root: Path) -> list[tuple[Path, int, int, int]]:
    """``(path, set, sequence, label)`` of every video, sorted by class and name."""
    found, problems = [], []
    for path in sorted(root.glob("*/*.avi")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            problems.append(f"{path}: name must be s<SET>_<SAMPLE>_<SEQUENCE>_<LABEL>.avi, received {path.name!r}.")
            continue
        number, sequence, label = int(match["set"]), int(match["sequence"]), int(match["label"])
        if path.parent.name != CLASS_NAMES[label]:
            problems.append(f"{path}: label {label} must lie in {CLASS_NAMES[label]!r}, received {path.parent.name!r}.")
        if not 10 * number - 9 <= sequence <= 10 * number:
            problems.append(f"{path}: sequence of set {number} must be in its ten, received {sequence}.")
        found.append((path, number, sequence, label))
    if not found and not problems:
        problems.append(f"{root}: must hold CLASS/*.avi for the classes {', '.join(CLASS_NAMES)}, received none.")
    if problems:
        raise DatasetError(problems)
    return found
