"""Kinetics-400, -600, -700 and other sets with the same CSV files.

W. Kay et al., "The Kinetics Human Action Video Dataset", 2017.
The official files are ``train.csv``, ``validate.csv`` (or ``val.csv``) and ``test.csv`` with the columns
``label, youtube_id, time_start, time_end, split`` and sometimes ``is_cc``.
"""

from __future__ import annotations

from jaxvid.data.records import VideoDataset
from jaxvid.data.sources import tables
from jaxvid.data.sources.listing import Missing, dataset_of, existing_folder, refuse_options, videos_by_stem


def read_kinetics(
    root: str, split: str, *, annotations: str = "", val_fraction: float = 0.0, missing: Missing = "keep"
) -> VideoDataset:
    """Reads one split by Kinetics' official CSV files.

    A row's video is a trimmed file ``YOUTUBE-ID_%06d_%06d`` (start and end in whole seconds) or else ``YOUTUBE-ID``, an
    untrimmed file of which the stretch is decoded. It may lie anywhere up to three folders below the root (``ROOT``,
    ``ROOT/CLASS``, ``ROOT/SPLIT``, ``ROOT/SPLIT/CLASS``; ``_`` may stand for spaces in class folders).

    Args:
      root: folder of the videos.
      split: value of the column ``split``: ``train`` (also ``training``), ``val`` (``valid``, ``validate``,
        ``validation``) or ``test`` (``testing``); any other value in a file is refused.
      annotations: one of the CSV files; those of the other splits beside it are read too, since the class names are the
        sorted labels of all splits. Empty: the only such group in ROOT, ROOT/labels or ROOT/annotations.
      val_fraction: must be 0; the splits are fixed.
      missing: ``"keep"`` (videos vanish from the web, and no copy of Kinetics is whole): records of absent files stay
        and fail when they are decoded, so that an evaluation never changes size. ``"error"``: they are reported now.

    Raises:
      DatasetError: what is wrong with the CSV files, line by line; or no listed video is there at all.
      ValueError: an option makes no sense.
    """
    refuse_options("kinetics", val_fraction=val_fraction)
    folder = existing_folder(root)
    rows, problems = tables.read_rows(tables.annotation_files(folder, annotations), ("youtube_id",))
    class_names = tables.class_names_of(rows, problems)
    chosen = [row for row in rows if row.split == tables.canonical_split(split)]
    listed = tables.look_up(
        chosen, videos_by_stem(folder), lambda row, stem: f"{split}/{row.label}/{stem}.mp4", problems
    )
    return dataset_of("kinetics", split, folder, class_names, listed, problems, missing)
