"""From a run folder to explanations of it: pictures, films, and the numbers that they show.

What is drawn is :mod:`jaxvid.explain`'s; here runs are read, and what a method needs is collected.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from jaxvid import paths
from jaxvid.explain import EXPLAINERS, PICTURES, Picture, require_method
from jaxvid.files import make_output_folder, replacing, write_text
from jaxvid.inference import explain_u2s
from jaxvid.inference.explain_videos import explain_videos
from jaxvid.train.run import Run, load_run
from jaxvid.train.writers import LoggingProgress, Progress

TAKES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "u2s_masks": ("videos", "num_videos", "classes", "top"),
        "u2s_similarity": ("against",),
        "u2s_tsne": ("classes",),
        "u2s_weights": ("against",),
    }
)
"""Method -> the options of :func:`explain_run` that mean something to it."""

_COLLECT: Mapping[str, Callable[..., dict[str, Any]]] = MappingProxyType(
    {
        "u2s_similarity": explain_u2s.collect_similarity,
        "u2s_tsne": explain_u2s.collect_features,
        "u2s_weights": explain_u2s.collect_weights,
    }
)
"""Picture -> what collects the arguments of its function."""

_DPI = 130


@dataclass(frozen=True)
class Explained:
    """What was explained, and where that was written.

    Attributes:
      output: the folder.
      files: those that were written, in their order.
      lines: what there is to say in words.
      problems: a sentence for each video that could not be decoded.
    """

    output: Path
    files: tuple[Path, ...]
    lines: tuple[str, ...]
    problems: tuple[str, ...] = ()


def explain_run(
    checkpoint: str | Path,
    method: str,
    output: str | Path,
    *,
    videos: Iterable[str | os.PathLike[str]] = (),
    num_videos: int | None = None,
    classes: Iterable[str] = (),
    top: int | None = None,
    against: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    best: bool = False,
    progress: Progress | None = None,
) -> Explained:
    """Explains a run by one method.

    Args:
      checkpoint: as in :func:`jaxvid.train.load_run`.
      method: a name of :data:`jaxvid.explain.EXPLAINERS` or :data:`jaxvid.explain.PICTURES`.
      output: folder of the results.
      videos: files and folders to explain, where the method is about videos; the evaluation's by default.
      num_videos: how many of the evaluation's videos, where none are named.
      classes: names of classes; what they choose is the method's.
      top: how many classes are shown of each video.
      against: another run to compare with.
      overrides: as in :func:`jaxvid.train.load_run`.
      best: as in :func:`jaxvid.train.load_run`.
      progress: told how far it is.

    Raises:
      ValueError: the method or a class is unknown, an option means nothing to the method, or the method has nothing to
        say of this run.
      FileNotFoundError: there is no such checkpoint or video.
    """
    given = {"videos": tuple(videos), "num_videos": num_videos, "classes": tuple(classes), "top": top}
    options: dict[str, Any] = {
        name: value for name, value in (given | {"against": against}).items() if value not in (None, ())
    }
    _check(method, options)
    paths.enable_compilation_cache()
    progress = progress or LoggingProgress()
    run = load_run(checkpoint, dict(overrides or {}), best=best)
    explain_u2s.require_u2s(run, method)
    folder = make_output_folder("--output", output)
    if method in EXPLAINERS:
        videos_done = explain_videos(run, method, folder, progress=progress, **options)
        return Explained(folder, videos_done.files, videos_done.lines, videos_done.problems)
    asked = explain_u2s.Asked(run, folder, progress, dict(overrides or {}))
    return _written(folder, method, PICTURES[method](**_COLLECT[method](asked, **options)), run)


def _written(folder: Path, method: str, picture: Picture, run: Run) -> Explained:
    files = (folder / f"{method}.png", folder / f"{method}.json")
    for _ in range(2):  # the constrained layout has not settled after one pass
        picture.figure.draw_without_rendering()
    with replacing(files[0]) as file:
        picture.figure.savefig(file, format="png", dpi=_DPI)
    told = {"method": method, "checkpoint": str(run.checkpoint), "step": run.step, **picture.numbers}
    write_text(files[1], json.dumps(told, indent=1, allow_nan=False) + "\n")
    return Explained(folder, files, picture.lines)


def _check(method: str, options: Mapping[str, Any]) -> None:
    require_method(method)
    for name, value in options.items():
        if name not in TAKES[method]:
            takers = [other for other, names in TAKES.items() if name in names]
            raise ValueError(f"{name} may be given to {', '.join(takers)}, received {name}={value!r} for {method}.")
        if name in ("num_videos", "top") and value < 1:
            raise ValueError(f"{name} must be >= 1, received {name}={value}.")
    if "videos" in options and "num_videos" in options:
        raise ValueError(
            f"num_videos is of the evaluation's videos, and must not be given with videos that are named, "
            f"received num_videos={options['num_videos']}."
        )
    if jax.process_count() > 1:
        raise ValueError(f"explanations are made by 1 process, received {jax.process_count()}.")
