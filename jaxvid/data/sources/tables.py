"""CSV files of labelled stretches of videos: ``label, id, time_start, time_end, split``, as Kinetics has them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxvid.data.records import DatasetError
from jaxvid.data.sources.listing import Listed, stray_path

_SPLIT_WORD = re.compile(r"train|validate|validation|val|test")
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation"),
    "test": ("test", "testing"),
}
_CANONICAL = {name: split for split, names in _SPLITS.items() for name in names}


@dataclass(frozen=True)
class Row:
    """One checked row. ``start`` and ``end`` are seconds; ``place`` is ``file:line``."""

    place: str
    label: str
    id: str
    start: float | None
    end: float | None
    split: str


def canonical_split(name: str) -> str:
    """One word for the several in use for a split; a name that is none of them stays.

    >>> canonical_split("Validate"), canonical_split("training"), canonical_split("trian")
    ('val', 'train', 'trian')
    """
    name = name.strip().lower()
    return _CANONICAL.get(name, name)


def annotation_files(root: Path, annotations: str) -> list[Path]:
    """The CSV files of one data set: the given one and its siblings for the other splits.

    Siblings differ only in the word for the split: ``hacs_train.csv``, ``hacs_val.csv``, ``hacs_test.csv``. Without
    ``annotations``, the CSV files in ROOT, ROOT/labels and ROOT/annotations are looked at, and must belong together.

    Raises:
      DatasetError: there is no such file, or several data sets' files lie there.
    """
    if annotations:
        chosen = Path(annotations).expanduser()
        chosen = chosen if chosen.is_file() else root / annotations
        if not chosen.is_file():
            raise DatasetError(f"data.annotations must be a CSV file, received {annotations!r}, which is none.")
        return sorted(p for p in chosen.parent.glob("*.csv") if _without_split(p) == _without_split(chosen))
    found = sorted(p for folder in (root, root / "labels", root / "annotations") for p in folder.glob("*.csv"))
    if len({(p.parent, _without_split(p)) for p in found}) != 1:
        names = ", ".join(p.relative_to(root).as_posix() for p in found[:5]) or "none"
        raise DatasetError(f"data.annotations must name one of the CSV files under {root}, which holds {names}.")
    return found


def read_rows(files: Sequence[Path], id_columns: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Rows of all files, and every problem in them as ``file:line: rule, value``.

    Needs the columns ``label``, one of ``id_columns`` and ``split``; ``time_start`` and ``time_end`` are optional,
    others are ignored. A split must be one of the known names, in any case: a row of a misspelt one would be in none.
    """
    rows: list[Row] = []
    problems: list[str] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{file}:1: the file must be readable as UTF-8, received {error}")
            continue
        _read_file(file, text, id_columns, rows, problems)
    return rows, problems


def class_names_of(rows: Sequence[Row], problems: list[str]) -> tuple[str, ...]:
    """All labels of all splits, sorted; one that never occurs in training, where there is training, is a problem."""
    trained = {row.label for row in rows if row.split == "train"}
    unseen = {} if problems or not trained else {row.label: row for row in reversed(rows) if row.label not in trained}
    problems += [
        f"{row.place}: a class of split {row.split!r} must also occur in 'train', received {label!r}"
        for label, row in sorted(unseen.items())
    ]
    return tuple(sorted({row.label for row in rows}))


def look_up(
    rows: Sequence[Row], stems: dict[str, list[str]], expected: Callable[[Row, str], str], problems: list[str]
) -> list[Listed]:
    """Finds each row's file: trimmed ``ID_%06d_%06d`` first, then ``ID`` as a whole, of which the stretch is meant.

    Of several files of one name the one in the folders of the row's label (or of its label with ``_`` for spaces) and
    split counts; two that fit equally well are a problem.

    Args:
      rows: of one split.
      stems: video files by name without suffix.
      expected: ``(row, stem) -> path`` under the root at which an absent file should be.
      problems: grows.
    """
    listed = []
    for row in rows:
        trimmed = None if row.start is None or row.end is None else f"{row.id}_{int(row.start):06d}_{int(row.end):06d}"
        stem = trimmed if trimmed in stems else row.id if row.id in stems else trimmed or row.id
        paths = _best(stems.get(stem, ()), row)
        if len(paths) > 1:
            problems.append(f"{row.place}: a video must lie in one place, received {paths[0]!r} and {paths[1]!r}")
        cut = stem != trimmed and bool(paths)
        path = paths[0] if paths else expected(row, stem)
        times = (row.start, row.end) if cut else (None, None)
        listed.append(Listed(row.place, path, row.label, bool(paths), *times))
    return listed


def _best(paths: Sequence[str], row: Row) -> list[str]:
    """The paths whose folders fit the row best."""
    folders = {row.label, row.label.replace(" ", "_")}

    def fit(path: str) -> int:
        parents = path.split("/")[:-1]
        return 2 * bool(folders & set(parents)) + (row.split in map(canonical_split, parents))

    best = max(map(fit, paths), default=0)
    return [path for path in paths if fit(path) == best]


def _read_file(file: Path, text: str, id_columns: Sequence[str], rows: list[Row], problems: list[str]) -> None:
    reader = csv.DictReader(text.splitlines(), strict=True)
    columns = [column.strip() for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    id_column = next((column for column in id_columns if column in columns), None)
    absent = [column for column in ("label", "split") if column not in columns]
    absent += [] if id_column else [" or ".join(id_columns)]
    if absent or id_column is None:
        problems.append(f"{file}:1: the first line must name the columns {', '.join(absent)}, received {columns}")
        return
    try:
        for fields in reader:
            _add_row(f"{file}:{reader.line_num}", fields, id_column, rows, problems)
    except csv.Error as error:
        problems.append(f"{file}:{reader.reader.line_num}: a line must be valid CSV, received {error}")


def _add_row(place: str, fields: dict, id_column: str, rows: list[Row], problems: list[str]) -> None:
    if None in fields or None in fields.values():
        problems.append(f"{place}: a line must have as many fields as the first, received more or fewer")
        return
    fields = {name: value.strip() for name, value in fields.items()}
    before = len(problems)
    problems += [f"{place}: {name} must not be empty" for name in ("label", id_column, "split") if not fields[name]]
    if fields[id_column] and (stray_path(fields[id_column]) or "/" in fields[id_column]):
        problems.append(f"{place}: {id_column} must be a name without a folder, received {fields[id_column]!r}")
    if fields["label"] and stray_path(fields["label"]):
        problems.append(f"{place}: label must not lead out of the root, received {fields['label']!r}")
    if fields["split"] and canonical_split(fields["split"]) not in _SPLITS:
        problems.append(f"{place}: split must be one of {', '.join(_CANONICAL)}, received {fields['split']!r}")
    start, end = _times(place, fields, problems)
    if len(problems) == before:
        rows.append(Row(place, fields["label"], fields[id_column], start, end, canonical_split(fields["split"])))


def _times(place: str, fields: dict[str, str], problems: list[str]) -> tuple[float | None, float | None]:
    given = fields.get("time_start", ""), fields.get("time_end", "")
    if given == ("", ""):
        return None, None
    try:
        start, end = float(given[0]), float(given[1])
    except ValueError:
        start = end = math.nan
    if not 0 <= start < end < math.inf:
        problems.append(f"{place}: times must hold 0 <= time_start < time_end, received {given[0]!r} and {given[1]!r}")
    return start, end


def _without_split(path: Path) -> str:
    return _SPLIT_WORD.sub("*", path.name.lower())
