"""HMDB-51 (H. Kuehne et al., "HMDB: A Large Video Database for Human Motion Recognition", ICCV 2011), official splits.

For each class and each of three folds there is a file ``CLASS_test_split1.txt`` with lines ``FILE NUMBER``: 1 trains,
2 tests, 0 is unused in that fold.
"""

from __future__ import annotations

import re
from pathlib import Path

from jaxvid.data.records import VideoDataset
from jaxvid.data.sources.listing import Listed, Missing, dataset_of, existing_folder, refuse_options, stray_path
from jaxvid.data.sources.ucf101 import find_lists, read_lines

FOLDER = "testTrainMulti_7030_splits"
"""The name of the split files' folder in the official archive."""

_NUMBERS = {"train": "1", "test": "2"}


def read_hmdb51(
    root: str, split: str, *, annotations: str = "", val_fraction: float = 0.0, missing: Missing = "error"
) -> VideoDataset:
    """Reads one side of one fold. The class names are those of the split files, sorted.

    Args:
      root: folder of the class folders, with ``CLASS/FILE.avi``.
      split: ``train1`` .. ``train3`` or ``test1`` .. ``test3``; ``train`` and ``test`` mean fold 1.
      annotations: folder of the split files. Empty: ROOT/testTrainMulti_7030_splits, ROOT's neighbour of that name, or
        ROOT.
      val_fraction: must be 0: several clips are cut from one film, so a random part of them tests nothing.
      missing: ``"error"`` (the archive is whole): absent files are reported. ``"keep"``: their records stay and fail
        when they are decoded.

    Raises:
      DatasetError: what is wrong with the split files, line by line, or which files are absent.
      ValueError: the split's name is not one of those above, or an option makes no sense.
    """
    refuse_options("hmdb51", val_fraction=val_fraction)
    match = re.fullmatch(r"(train|test)0?([123])?", split)
    if match is None:
        raise ValueError(
            f"split must be train or test, followed by a fold 1, 2, 3 or nothing, received split={split!r}."
        )
    folder = existing_folder(root)
    ending = f"_test_split{match[2] or 1}.txt"
    files = sorted(find_lists(folder, annotations, FOLDER, f"*{ending}").glob(f"*{ending}"))
    problems: list[str] = []
    listed: list[Listed] = []
    for file in files:
        label = file.name.removesuffix(ending)
        listed += _read_list(file, folder, label, _NUMBERS[match[1]], problems)
    class_names = [file.name.removesuffix(ending) for file in files]
    return dataset_of("hmdb51", split, folder, class_names, listed, problems, missing)


def _read_list(file: Path, root: Path, label: str, chosen: str, problems: list[str]) -> list[Listed]:
    listed = []
    for place, line in read_lines(file, problems):
        name, _, number = line.rpartition(" ")
        name = name.strip()
        if number not in ("0", "1", "2"):
            problems.append(f"{place}: a line must be 'FILE 0', 'FILE 1' or 'FILE 2', received {line!r}")
        elif not name or "/" in name or stray_path(name):
            problems.append(f"{place}: a file must be named without a folder, received {name!r}")
        elif number == chosen:
            path = f"{label}/{name}"
            listed.append(Listed(place, path, label, (root / path).is_file()))
    return listed
