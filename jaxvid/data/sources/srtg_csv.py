"""The label files of SRTG's authors, one format for HACS, Kinetics, Moments in Time, UCF-101, HMDB-51 and Diving48.

A. Stergiou and R. Poppe, "Learn to cycle: Time-consistent feature discovery for action recognition", 2021; their
repository distributes ``X_train.csv``, ``X_val.csv`` or ``X_test.csv`` with the columns
``label, youtube_id (or id), time_start (optional), time_end (optional), split``.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from jaxvid.data.records import DatasetError, VideoDataset
from jaxvid.data.sources import tables
from jaxvid.data.sources.listing import Missing, dataset_of, existing_folder, refuse_options, videos_by_stem


def read_srtg_csv(
    root: str,
    split: str,
    *,
    annotations: str = "",
    val_fraction: float = 0.0,
    dictionary: str = "",
    missing: Missing = "keep",
) -> VideoDataset:
    """Reads one split by the authors' CSV files.

    The authors keep folders of frames named ``LOCATION/LABEL/ID`` or, for Kinetics and HACS,
    ``LOCATION/LABEL/ID_%06d_%06d`` (start and end in whole seconds). Here these are video files with one of the usual
    suffixes, in ``ROOT/LABEL``, ``ROOT/SPLIT/LABEL``, ``ROOT/SPLIT`` or ``ROOT``. When times are given and only ``ID``
    exists, the stretch is decoded out of it.

    Args:
      root: folder of the videos.
      split: value of the column ``split``: ``train`` (also ``training``), ``val`` (``valid``, ``validate``,
        ``validation``) or ``test`` (``testing``); any other value in a file is refused.
      annotations: one of the CSV files; those of the other splits beside it (same name but for the word ``train``,
        ``val`` or ``test``) are read too. Empty: the only such group in ROOT, ROOT/labels or ROOT/annotations.
      val_fraction: must be 0; the column ``split`` decides.
      dictionary: JSON file ``{label: index}`` that orders the classes, for checkpoints that were trained with it. The
        authors' code makes one (``X_dictionary.json``) in the order of the CSV's lines, so that class numbers depend on
        that order. Empty: the sorted labels of all splits; a dictionary that lies beside is not used unasked.
      missing: ``"keep"``: records of absent files stay and fail when they are decoded, so that an evaluation never
        changes size. ``"error"``: they are reported now.

    Raises:
      DatasetError: what is wrong with the CSV files or the dictionary; or no listed video is there at all.
      ValueError: an option makes no sense.
    """
    refuse_options("srtg_csv", val_fraction=val_fraction)
    folder = existing_folder(root)
    rows, problems = tables.read_rows(tables.annotation_files(folder, annotations), ("youtube_id", "id"))
    class_names = tables.class_names_of(rows, problems)
    if dictionary:
        class_names = _read_dictionary(Path(dictionary).expanduser(), class_names, problems)
    chosen = [row for row in rows if row.split == tables.canonical_split(split)]
    listed = tables.look_up(chosen, videos_by_stem(folder), lambda row, stem: f"{row.label}/{stem}.mp4", problems)
    return dataset_of("srtg_csv", split, folder, class_names, listed, problems, missing)


def _read_dictionary(file: Path, labels: tuple[str, ...], problems: list[str]) -> tuple[str, ...]:
    """Class names by the indices 0 .. K-1 of the file; a label of the CSV files that it lacks is a problem."""
    try:
        indices = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}:1: the dictionary must be a JSON file, received {error}") from error
    if not isinstance(indices, dict) or Counter(indices.values()) != Counter(range(len(indices))):
        raise DatasetError(f"{file}:1: the dictionary must map K labels to 0 .. K-1, received other values")
    problems += [
        f"{file}:1: the dictionary must hold every label, received none for {x!r}" for x in labels if x not in indices
    ]
    return tuple(sorted(indices, key=indices.__getitem__))
