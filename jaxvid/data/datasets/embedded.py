"""Data sets that our own code makes at their first use: each complete or absent, and made by one process at a time.

A finished one holds ``NAME.json``, its recipe: everything that it was made from. All is written to ``ROOT.making``,
which is renamed at the end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from jaxvid.data.sources.listing import holds_flow
from jaxvid.paths import data_dir

log = logging.getLogger(__name__)

Recipe = dict[str, Any]


def folder_of(name: str, root: str | Path) -> Path:
    """The data set's folder: ``root``; if that is empty, ``name`` in the default folder of data (``$JAXVID_DATA``)."""
    return (Path(root).expanduser() if str(root) else data_dir() / name).absolute()


def recipe_of(name: str, folder: Path, keys: Collection[str]) -> Recipe | None:
    """What a finished data set was made from, which has at least these keys; ``None`` where there is none."""
    try:
        recipe = json.loads((folder / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    return recipe if isinstance(recipe, dict) and recipe.keys() >= set(keys) else None


def make_once(name: str, folder: Path, recipe: Recipe, write: Callable[[Path], None]) -> Path:
    """Makes a data set, or finds that it is there already; another process that makes the same is waited for.

    Args:
      name: of the data set.
      folder: where to.
      recipe: all that the files follow from, as JSON has it; one that was made from another recipe is made again.
      write: writes all files into the folder that it is given.

    Returns:
      ``folder``.

    Raises:
      ValueError: ``folder`` holds something else than a data set of that name.
    """
    if recipe_of(name, folder, recipe) == recipe:
        return folder
    with _alone(folder):
        found = recipe_of(name, folder, recipe)
        if found == recipe:
            return folder
        _check_replaceable(name, folder, found)
        log.info("Making the data set %s in %s.", name, folder)
        making = folder.with_name(folder.name + ".making")
        shutil.rmtree(making, ignore_errors=True)  # what an interrupted making left
        making.mkdir(parents=True)
        write(making)
        (making / f"{name}.json").write_text(json.dumps(recipe, indent=2) + "\n")
        os.sync()  # before the rename: complete or absent, after a power cut too
        if folder.exists():
            log.warning("The data set %s in %s is made again: it is of other code or sizes.", name, folder)
            shutil.rmtree(folder)
        making.rename(folder)
    return folder


def refuse_options(name: str, split: str, splits: tuple[str, ...], annotations: str, val_fraction: float) -> None:
    """Raises ``ValueError`` where a split does not exist, or an option is given that means nothing to a fixed split."""
    if annotations or val_fraction:
        raise ValueError(
            f"annotations and val_fraction must be empty and 0 for {name}, whose splits are fixed, "
            f"received annotations={annotations!r}, val_fraction={val_fraction}."
        )
    if split not in splits:
        raise ValueError(f"split must be one of {', '.join(splits)} for {name}, received split={split!r}.")


def missing_files(folder: Path, split: str, names: list[str], present: set[str]) -> list[str]:
    """A problem for each of the names that is not present, and how to mend it; nothing where all are."""
    missing = [f"{folder / split / name}: must exist, received no file" for name in names if name not in present]
    return [*missing, f"{folder}: delete this folder, and it is made again at its next use"] if missing else []


def _check_replaceable(name: str, folder: Path, found: Recipe | None) -> None:
    if folder.exists() and found is None and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"root must be absent, empty or a data set {name}, received {folder}, which is none of them.")
    if holds_flow(folder):
        raise ValueError(
            f"root must be a data set {name} of videos, received {folder}, the optical flow of one that was made from "
            f"something else: delete it, and make it again by 'jaxvid data flow'."
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time; the system lets go of the lock when a process dies."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
