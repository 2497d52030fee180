"""Weights from elsewhere as an ordinary run folder, which every command takes like one that was trained here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvid import config as config_lib
from jaxvid import models
from jaxvid.config import Config
from jaxvid.models.convert import Converted, convert
from jaxvid.models.preprocessing import Preprocessing, preprocessing_of
from jaxvid.models.readers import read_arrays
from jaxvid.ops.choices import require_choice
from jaxvid.train import assemble
from jaxvid.train.checkpoint import Checkpointer, versions
from jaxvid.train.state import TrainState
from jaxvid.types import Variables

LABEL_MAP = "label_map.txt"
"""Class names beside a file of weights, one a line, in the order of the classifier."""


@dataclass(frozen=True)
class Imported:
    """What :func:`import_weights` wrote.

    Attributes:
      run: the run folder.
      config: of the run.
      class_names: of the classifier.
      provenance: as in ``provenance.json``.
    """

    run: Path
    config: Config
    class_names: tuple[str, ...]
    provenance: dict[str, Any]


def import_weights(
    weights: str | Path,
    name: str,
    output: str | Path,
    *,
    num_classes: int | None = None,
    class_names: str | Path | None = None,
    inflate: bool = False,
    golden: str | Path | None = None,
) -> Imported:
    """Writes a run folder with the weights of a file.

    It holds one checkpoint (step 0) with config, class names and preprocessing, as a training writes it, and
    ``provenance.json``: the file with its sha256, the code whose names it follows, what was filled in and left out,
    versions, and the distance from golden logits where they are given. The folder appears when it is complete.

    Args:
      weights: a file that :func:`jaxvid.models.readers.read_arrays` reads.
      name: a name of :data:`jaxvid.models.MODELS`.
      output: the run folder; must not exist, or be empty.
      num_classes: another number of classes than the file's gives a new classifier.
      class_names: a text file with one name a line, or a JSON list or ``{name: index}``; ``None`` takes
        :data:`LABEL_MAP` beside the weights if it has as many names as the classifier outputs, else ``class 0``, ….
      inflate: 2-D kernels become 3-D ones, see :func:`jaxvid.models.convert.convert`.
      golden: an ``.npz`` file with ``video``, the normalised input ``[N T H W 3]``, and ``logits`` ``[N K]``.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file, the network or the output does not fit; nothing is left behind.
    """
    weights, output = Path(weights), Path(output)
    require_choice("--model", name, models.MODELS)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output must be a new or an empty folder, received {output}.")
    converted = convert(name, read_arrays(weights), num_classes=num_classes, replace_head=True, inflate=inflate)
    names = _class_names(class_names, weights, converted)
    clip = preprocessing_of(name, converted.scheme.code)
    clip = dataclasses.replace(clip, num_frames=converted.num_frames or clip.num_frames)
    config = _config(name, converted, clip)
    provenance = {
        "weights": weights.name,
        "sha256": _sha256(weights),
        "bytes": weights.stat().st_size,
        "model": name,
        "names_of": converted.scheme.code,
        "preprocessing": clip.source,
        "filled": list(converted.filled),
        "ignored": list(converted.ignored),
        "inflated": inflate,
        "versions": versions(),
    }
    if golden is not None:
        provenance["golden"] = _compare(golden, config, len(names), converted.variables)
    _write(output, config, names, converted.variables, provenance)
    return Imported(output, config, names, provenance)


def _config(name: str, converted: Converted, clip: Preprocessing) -> Config:
    base = Config()
    srtg_fields = {field.name for field in dataclasses.fields(base.model.srtg)}
    told = converted.options
    srtg = dataclasses.replace(base.model.srtg, **{key: told[key] for key in told if key in srtg_fields})
    model_fields = {field.name for field in dataclasses.fields(base.model)}
    model = {key: told[key] for key in told if key in model_fields}
    own = {key: told[key] for key in told if key not in srtg_fields | model_fields}
    options = tuple(f"{key}={json.dumps(value)}" for key, value in own.items())
    data = dataclasses.replace(
        base.data,
        name="folder",
        num_frames=clip.num_frames,
        frame_stride=clip.frame_stride,
        short_side=(clip.short_side, clip.short_side),
        crop_size=clip.crop_size,
        color=clip.color,
        mean=clip.mean,
        std=clip.std,
    )
    config = dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, name=name, options=options, srtg=srtg, **model),
        data=data,
        eval=dataclasses.replace(base.eval, short_side=clip.short_side, crop_size=clip.crop_size, batch_size=1),
    )
    return config_lib.load(config_lib.to_dict(config))  # what a run saves was checked whole


def _class_names(file: str | Path | None, weights: Path, converted: Converted) -> tuple[str, ...]:
    wanted = converted.num_classes
    beside = weights.with_name(LABEL_MAP)
    if file is None and beside.is_file() and len(_read_names(beside)) == wanted:
        file = beside
    if file is None:
        return tuple(f"class {k}" for k in range(wanted))
    names = _read_names(Path(file))
    if len(names) != wanted or len(set(names)) != wanted:
        raise ValueError(
            f"--class_names must hold {wanted} different names, those of the classifier, received {len(set(names))} in "
            f"{file}."
        )
    return tuple(names)


def _read_names(file: Path) -> Sequence[str]:
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--class_names must be valid JSON where its name says so, received {file}.") from error
    if isinstance(found, dict) and sorted(found.values(), key=str) == sorted(range(len(found)), key=str):
        return sorted(found, key=found.__getitem__)
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        return found
    raise ValueError(f"--class_names must hold a JSON list of names or {{name: index}}, received neither in {file}.")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _compare(golden: str | Path, config: Config, num_classes: int, variables: Variables) -> dict[str, Any]:
    """The largest distance between the logits of a file and ours of its video."""
    arrays = read_arrays(golden)
    if set(arrays) != {"video", "logits"}:
        raise ValueError(f"--golden must hold the arrays video and logits, received {sorted(arrays)} in {golden}.")
    video, logits = (np.asarray(arrays[key], np.float32) for key in ("video", "logits"))
    model = assemble.build_model(config, num_classes)
    ours = np.asarray(jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, video))
    if ours.shape != logits.shape:
        raise ValueError(f"--golden must hold logits of shape {ours.shape}, received {logits.shape} in {golden}.")
    return {"file": Path(golden).name, "max_abs_difference": float(np.abs(ours - logits).max()),
            "std_of_logits": float(logits.std())}  # fmt: skip


def _write(
    output: Path, config: Config, class_names: tuple[str, ...], variables: Variables, provenance: dict[str, Any]
) -> None:
    scratch = output.with_name(f".{output.name}.{os.getpid()}")
    scratch.mkdir(parents=True)
    try:
        state = TrainState(
            step=np.zeros((), np.int32),  # type: ignore[arg-type]
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state={},
            ema_params=None,
            key=jax.random.key(0),
        )
        meta = {
            "config": config_lib.to_dict(config),
            "class_names": list(class_names),
            "preprocessing": assemble.preprocessing(config),
            "provenance": provenance,
        }
        with Checkpointer(scratch / "checkpoints") as saver:
            saver.save(0, state, meta, lean=True)
        for file, content in (("config.json", meta["config"]), ("provenance.json", provenance)):
            (scratch / file).write_text(f"{json.dumps(content, indent=2)}\n", encoding="utf-8")
        if output.exists():
            output.rmdir()
        scratch.rename(output)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
