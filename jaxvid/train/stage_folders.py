"""The folders of a run that is trained in stages: ``RUN/stages.json`` names them in their order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jaxvid.files import write_text
from jaxvid.train import step_folder

FILE = "stages.json"


def write_stages(run: Path, names: Sequence[str]) -> None:
    """Writes the names of a run's stages."""
    write_text(run / FILE, json.dumps({"stages": list(names)}) + "\n")


def newest_stage(folder: Path) -> Path:
    """The last stage with a checkpoint of a run in stages; any other folder is itself."""
    if not holds_stages(folder):
        return folder
    begun = [folder / name for name in _names(folder / FILE) if step_folder.steps(folder / name / "checkpoints")]
    return begun[-1] if begun else folder


def holds_stages(folder: Path) -> bool:
    """Whether a folder is that of a run in stages."""
    return (folder / FILE).is_file()


def _names(file: Path) -> list[str]:
    try:
        names = json.loads(file.read_text(encoding="utf-8"))["stages"]
    except (ValueError, KeyError, TypeError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise ValueError(f"{file} must hold the names of a run's stages, and is damaged.")
    return names


def stages_folder(folder: Path) -> Path | None:
    """The folder of the run in stages that a folder is, or lies in; ``None`` of any other."""
    folder = folder.absolute()
    return next((each for each in (folder, *folder.parents) if holds_stages(each)), None)
