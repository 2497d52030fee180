"""Heat maps over videos: of those that are named, or of some of the evaluation's."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.data.pipeline import eval_batches
from jaxvid.data.records import VideoDataset, VideoRecord
from jaxvid.evaluation import mean_scores
from jaxvid.evaluation.text import printable
from jaxvid.explain import EXPLAINERS
from jaxvid.explain.sheet import Heated, draw_film, draw_sheet
from jaxvid.files import replacing, write_text
from jaxvid.inference.explain_u2s import class_labels
from jaxvid.inference.mp4 import write_mp4
from jaxvid.inference.recognize import Reasons
from jaxvid.inference.videos import find_videos
from jaxvid.train import assemble, sharding
from jaxvid.train.captured import OpenNetwork
from jaxvid.train.run import Run, eval_split
from jaxvid.train.writers import Progress
from jaxvid.types import Batch

NUM_VIDEOS, TOP = 8, 5
"""Videos of the evaluation, and classes of each, where nothing else is asked for."""

FILM_RATE = 8.0
"""Frames a second of a film: a clip is short, and this is slow enough to look at."""

_NETWORKS = ("universal", "mask", "specific")  # in the order in which they are asked
_ENDINGS = (".png", ".mp4", ".npz")  # of what is written of a video
_BATCH = 8  # clips: maps of the frames' size are kept for all of a batch


@dataclass(frozen=True)
class VideosExplained:
    """What was written of each video.

    Attributes:
      files: the pictures, films and arrays, and at last the numbers.
      lines: a sentence for each video.
      problems: one for each that could not be decoded.
    """

    files: tuple[Path, ...]
    lines: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Explanation:
    """One video: what each network says, and the maps.

    Attributes:
      record: the video; its label is the true class only where a data set has one.
      heated: the clip and its maps, ready to be drawn.
      numbers: what is said and drawn, as JSON has it.
    """

    record: VideoRecord
    heated: Heated
    numbers: dict[str, Any]


def explain_videos(
    run: Run,
    method: str,
    folder: Path,
    *,
    videos: Sequence[str | os.PathLike[str]] = (),
    num_videos: int = NUM_VIDEOS,
    classes: Sequence[str] = (),
    top: int = TOP,
    progress: Progress,
) -> VideosExplained:
    """Writes for each video a picture, a film (of more than one frame) and the arrays, and the numbers of all.

    What is explained is the evaluation's view in the middle.

    ``NAME`` is that of the video, with a number behind it where that is another one's or a video would be written over.

    * ``NAME.png``: the frames, and below them each map over the frames.
    * ``NAME.mp4``: the same, moving, with :data:`FILM_RATE` frames a second.
    * ``NAME.npz``: ``video uint8[T H W 3]``, ``maps float32[T H W C]`` and ``names``.
    * ``METHOD.json``: of each video what the networks say, and which values the colours stand for.

    Args:
      run: a U2S network with masks.
      method: a name of :data:`jaxvid.explain.EXPLAINERS`.
      folder: an existing one.
      videos: files and folders; none: ``num_videos`` of the evaluation's, spread over them, since many data sets are
        sorted by class.
      num_videos: see above.
      classes: whose own masks are drawn; by default those of the classes that are confused.
      top: how many of the confused ones, the most probable first.
      progress: told how many videos are done.

    Raises:
      ValueError: the network has no masks, an oracle has no labels, or a class is unknown.
      FileNotFoundError: there is no such video.
    """
    asked = class_labels(classes, run.class_names)
    dataset = _named(videos, run) if videos else _some(eval_split(run, progress), num_videos)
    if run.apply.with_side().takes_labels and videos:
        raise ValueError("model.u2s.oracle must be false with videos that are named: nothing says their true classes.")
    files: list[Path] = []
    told: list[dict[str, Any]] = []
    reasons, stems, advance = Reasons(), _stems(dataset, folder, bool(videos)), progress.evaluating(len(dataset))
    for found in _explanations(run, method, dataset, reasons, asked, top, labelled=not videos):
        stem = stems[found.record.id]
        written = _write(folder, stem, found.heated)
        files += written
        told.append({**found.numbers, "files": [path.name for path in written]})
        advance(found.record.id + 1)
    advance(len(dataset))
    file = folder / f"{method}.json"
    about = {"method": method, "checkpoint": str(run.checkpoint), "step": run.step, "split": dataset.split}
    errors = [{"path": dataset[id].name, "error": why} for id, why in sorted(reasons.of.items())]
    write_text(file, json.dumps({**about, "videos": told, "errors": errors}, indent=1, allow_nan=False) + "\n")
    lines = tuple(" | ".join((printable(each["path"]), *_said(each))) for each in told)
    return VideosExplained((*files, file), lines, tuple(reasons.of[id] for id in sorted(reasons.of)))


def _explanations(
    run: Run, method: str, dataset: VideoDataset, reasons: Reasons, asked: Sequence[int], top: int, *, labelled: bool
) -> Iterator[Explanation]:
    mesh = sharding.make_mesh(run.config.train.mesh)
    config, variables = run.config, sharding.replicate(run.variables, mesh)
    clips = dataclasses.replace(assemble.eval_clips(config), num_clips=1, num_crops=1)
    batches = eval_batches(
        dataset,
        clips,
        batch_size=sharding.fitting_batch_size(min(_BATCH, len(dataset)), mesh),
        quarantine=reasons,
        seed=config.train.seed,
    )
    confusing = np.asarray(run.variables.get("batch_stats", {}).get("u2s", {}).get("confusing", np.eye(1)))
    with batches:
        for batch in batches:
            rows = _explain_batch(run, method, sharding.put(batch, mesh), variables, confusing, asked, top)
            for n in np.flatnonzero(batch["mask"]).tolist():
                record = dataset[int(batch["id"][n])]
                yield _explanation(run, record, np.asarray(batch["video"][n, 0]), rows, n, labelled)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Of each clip of a batch: the scores of each network, whose masks are averaged, and the maps."""

    scores: Mapping[str, np.ndarray]  # float32[N K]
    chosen: np.ndarray  # int[N], the class whose confused ones they are
    weights: np.ndarray  # float[N K], of each class's mask in the average
    shown: list[list[int]]  # the classes whose own masks are drawn
    maps: np.ndarray  # float32[N T H W 1 + C], the average first


def _explain_batch(
    run: Run,
    method: str,
    batch: Batch | Mapping[str, Any],
    variables: Mapping[str, Any],
    confusing: np.ndarray,
    asked: Sequence[int],
    top: int,
) -> _Rows:
    network, apply = OpenNetwork(run.apply), run.apply.with_side()
    video = batch["video"][:, 0]
    if apply.takes_labels:
        variables = {**variables, "given": {"label": batch["label"]}}
    logits, side = apply(variables, video)
    sown = {name.removesuffix("/logits").rsplit("/", 1)[-1]: value for name, value in side.items()}
    ordered = {name: sown[name] for name in _NETWORKS if name in sown} | {"final": logits}
    scores = {name: mean_scores(np.asarray(value)[:, None]) for name, value in ordered.items()}
    explain = EXPLAINERS[method]
    chosen = np.asarray(batch["label"]) if apply.takes_labels else scores["universal"].argmax(axis=1)
    averaged = explain(network, variables, video)  # an error, where there are no masks, before the rest
    weights = confusing[:, chosen].T / confusing[:, chosen].T.sum(axis=1, keepdims=True)
    shown = [list(asked) or _confused(weights[n], scores["final"][n], top) for n in range(len(chosen))]
    columns = max(map(len, shown))
    index = np.array([row + row[-1:] * (columns - len(row)) for row in shown], np.int32)
    maps = jax.device_get(jnp.concatenate([averaged, explain(network, variables, video, index)], axis=-1))
    return _Rows(scores, chosen, weights, shown, maps)


def _confused(weights: np.ndarray, scores: np.ndarray, top: int) -> list[int]:
    """The classes whose masks are averaged, the heaviest and of equal ones the most probable first."""
    order = np.lexsort((-scores, -weights))
    return [int(k) for k in order[:top] if weights[k] > 0]


def _explanation(run: Run, record: VideoRecord, video: np.ndarray, rows: _Rows, n: int, labelled: bool) -> Explanation:
    names, shown = run.class_names, rows.shown[n]
    averaged = _confused(rows.weights[n], rows.scores["final"][n], len(names))
    predictions = {
        network: {"class": names[int(scores[n].argmax())], "probability": float(scores[n].max())}
        for network, scores in rows.scores.items()
    }
    numbers: dict[str, Any] = {
        "path": record.name,
        "true": names[record.label] if labelled else None,
        "predictions": predictions,
        "confused_with": names[int(rows.chosen[n])],
        "averaged": {names[k]: float(rows.weights[n, k]) for k in averaged},
    }
    maps = rows.maps[n][..., : 1 + len(shown)]
    many = f"mean of {len(averaged)} masks" if len(averaged) > 1 else f"mask of {names[averaged[0]]}"
    heading = (record.name, ", ".join(_said(numbers)), _averaged(numbers))
    heated = Heated(video, maps, (many, *(names[k] for k in shown)), heading)
    numbers["maps"] = [
        {"name": name, "class": None if row == 0 else names[shown[row - 1]], "min": low, "max": high}
        for row, (name, (low, high)) in enumerate(zip(heated.names, heated.ranges, strict=True))
    ]
    return Explanation(record, heated, numbers)


def _averaged(numbers: Mapping[str, Any]) -> str:
    # Of an oracle the class is the true one, which nothing has predicted.
    chosen, others = (
        numbers["confused_with"],
        [name for name in numbers["averaged"] if name != numbers["confused_with"]],
    )
    why = "which was predicted" if chosen == numbers["predictions"]["universal"]["class"] else "the true class"
    if not others:
        return f"the mask of {chosen}, {why}; it is confused with no other"
    return f"mean of the masks of {chosen}, {why}, and {', '.join(others)}"


def _said(numbers: Mapping[str, Any]) -> list[str]:
    said = [
        f"{network}: {guess['class']} ({guess['probability']:.0%})" for network, guess in numbers["predictions"].items()
    ]
    return said + ([f"true: {numbers['true']}"] if numbers["true"] is not None else [])


def _write(folder: Path, stem: str, heated: Heated) -> list[Path]:
    from matplotlib.image import imsave

    T = len(heated.video)
    picture, film, arrays = (folder / f"{stem}.{suffix}" for suffix in ("png", "mp4", "npz"))
    with replacing(picture) as file:
        imsave(cast(BinaryIO, file), draw_sheet(heated) if T > 1 else next(draw_film(heated)), format="png")
    if T > 1:
        with replacing(film) as file:
            write_mp4(file, draw_film(heated), [t / FILM_RATE for t in range(T)])
    with replacing(arrays) as file:
        names = np.array(heated.names, np.str_)
        np.savez(file, video=heated.video, maps=np.asarray(heated.maps, np.float32), names=names)
    return [picture, film, arrays] if T > 1 else [picture, arrays]


def _named(videos: Sequence[str | os.PathLike[str]], run: Run) -> VideoDataset:
    # What is in a video is what is asked for: label 0 stands where a data set has one, and nothing reads it.
    files = find_videos(videos)
    return VideoDataset("videos", "named", run.class_names, [VideoRecord(n, 0, f, f) for n, f in enumerate(files)])


def _some(dataset: VideoDataset, number: int) -> VideoDataset:
    chosen = np.linspace(0, len(dataset), min(number, len(dataset)), endpoint=False).astype(int)
    records = [dataclasses.replace(dataset[n], id=id) for id, n in enumerate(chosen.tolist())]
    return VideoDataset(dataset.name, dataset.split, dataset.class_names, records)


def _stems(dataset: VideoDataset, folder: Path, named: bool) -> list[str]:
    """The beginning of each video's file names, of which none comes twice and none is that of a video in the folder."""
    videos = {os.path.realpath(record.video) for record in dataset if isinstance(record.video, str)}
    taken: dict[str, None] = {}

    def free(name: str) -> bool:
        return name not in taken and not any(os.path.realpath(folder / f"{name}{end}") in videos for end in _ENDINGS)

    for record in dataset:
        stem = Path(record.name).stem if named else "_".join(Path(record.name).with_suffix("").parts)
        taken[next(filter(free, _numbered(stem.replace("/", "_").strip(".") or "video")))] = None
    return [*taken]


def _numbered(stem: str) -> Iterator[str]:
    return (f"{stem}{f'-{number}' * (number > 1)}" for number in itertools.count(1))
