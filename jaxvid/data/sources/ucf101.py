"""UCF-101 (K. Soomro, A. R. Zamir and M. Shah, "UCF101", CRCV-TR-12-01, 2012) by its official split files.

``classInd.txt`` holds ``INDEX CLASS`` (from 1), ``trainlist01.txt`` ``CLASS/FILE INDEX``, ``testlist01.txt``
``CLASS/FILE``; there are three folds, 01 to 03.
"""

from __future__ import annotations

import re
from pathlib import Path

from jaxvid.data.records import DatasetError, VideoDataset
from jaxvid.data.sources.listing import Listed, Missing, dataset_of, existing_folder, refuse_options, stray_path

FOLDER = "ucfTrainTestlist"
"""The name of the split files' folder in the official archive."""


def read_ucf101(
    root: str, split: str, *, annotations: str = "", val_fraction: float = 0.0, missing: Missing = "error"
) -> VideoDataset:
    """Reads one list of one fold.

    Args:
      root: folder of the class folders, with ``CLASS/v_CLASS_gXX_cXX.avi``.
      split: ``train01`` .. ``train03`` or ``test01`` .. ``test03``; ``train`` and ``test`` mean fold 01.
      annotations: folder of the split files. Empty: ROOT/ucfTrainTestlist, ROOT's neighbour of that name, or ROOT.
      val_fraction: must be 0: clips of one group share actors and background, so a random part of them tests nothing.
      missing: ``"error"`` (the archive is whole): absent files are reported. ``"keep"``: their records stay and fail
        when they are decoded.

    Raises:
      DatasetError: what is wrong with the split files, line by line, or which files are absent.
      ValueError: the split's name is not one of those above, or an option makes no sense.
    """
    refuse_options("ucf101", val_fraction=val_fraction)
    match = re.fullmatch(r"(train|test)(0?[123])?", split)
    if match is None:
        raise ValueError(
            f"split must be train or test, followed by a fold 01, 02, 03 or nothing, received split={split!r}."
        )
    folder = existing_folder(root)
    lists = find_lists(folder, annotations, FOLDER, "classInd.txt")
    problems: list[str] = []
    class_names = _read_classes(lists / "classInd.txt", problems)
    listed = _read_list(lists / f"{match[1]}list{int(match[2] or 1):02d}.txt", folder, class_names, problems)
    return dataset_of("ucf101", split, folder, class_names, listed, problems, missing)


def find_lists(root: Path, annotations: str, usual: str, witness: str) -> Path:
    """The folder of split files: the given one, or the first usual place that holds a file like ``witness``.

    Raises:
      DatasetError: there is none.
    """
    given = Path(annotations).expanduser()
    places = [given, root / annotations] if annotations else [root / usual, root.parent / usual, root]
    for place in places:
        if any(place.glob(witness)):
            return place
    tried = ", ".join(map(str, places))
    raise DatasetError(
        f"data.annotations must be the folder that holds {witness}, received {annotations!r}; tried {tried}."
    )


def read_lines(file: Path, problems: list[str]) -> list[tuple[str, str]]:
    """``(file:line, text)`` of each line that is not blank; a file that cannot be read is a problem."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file}:1: the file must be readable as UTF-8, received {error}")
        return []
    return [(f"{file}:{number}", line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _read_classes(file: Path, problems: list[str]) -> tuple[str, ...]:
    names: list[str] = []
    for place, line in read_lines(file, problems):
        index, _, name = line.partition(" ")
        if index != str(len(names) + 1) or not name.strip():
            problems.append(f"{place}: a line must be '{len(names) + 1} CLASS', received {line!r}")
        elif name.strip() in names:
            problems.append(f"{place}: class names must differ, received {name.strip()!r} again")
        names.append(name.strip())
    return tuple(dict.fromkeys(names))


def _read_list(file: Path, root: Path, class_names: tuple[str, ...], problems: list[str]) -> list[Listed]:
    listed = []
    indices = {name: str(index) for index, name in enumerate(class_names, 1)}
    for place, line in read_lines(file, problems):
        path, *given = line.rsplit(" ", 1) if line.rsplit(" ", 1)[-1].isdigit() else [line]
        label = path.split("/")[0]
        if stray_path(path) or path.count("/") != 1:
            problems.append(f"{place}: a path must be CLASS/FILE, received {path!r}")
        elif label not in indices:
            problems.append(f"{place}: a class must be one of classInd.txt, received {label!r}")
        elif given and given[0] != indices[label]:
            problems.append(f"{place}: the index of {label!r} must be {indices[label]}, received {given[0]}")
        else:
            listed.append(Listed(place, path, label, (root / path).is_file()))
    return listed
