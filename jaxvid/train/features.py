"""Fine-tuning behind the frozen blocks: what they make of some clips of each video is computed once and kept in files.

Where the first blocks of a network do not change, every epoch would ask them the same. With ``finetune.draws=V`` they
see ``V`` draws of each training video once; epoch ``e`` then trains the rest of the network on draw ``e mod V``. A step
costs what the trained blocks cost, at the price of meeting the same ``V`` crops, stretches and flips again.

The files are named by what they depend on: another network, weight, clip or seed is another folder, and the folds of
one data set, which share most of their videos, share the files. They are made whole or not at all, so that a pass that
was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from jaxvid.config import Config
from jaxvid.data.clips import TrainClips, epoch_order
from jaxvid.data.pipeline import draw_batches, record_key
from jaxvid.data.quarantine import Quarantine
from jaxvid.data.records import VideoDataset
from jaxvid.files import replacing
from jaxvid.models.class_regularized import ClassRegularized
from jaxvid.ops.normalize import normalize_video
from jaxvid.train import finetune, sharding
from jaxvid.types import Variables

_ROWS = ("label", "mask")


@dataclass(frozen=True)
class KeptFeatures:
    """The outputs of one block of a network for some draws of each video of a training split.

    Attributes:
      folder: of the files, one for each video.
      beginning: the block whose output is kept.
      draws: ``V``, clips of each video.
      shapes: of each array of the block's output, without ``N``.
      dtypes: likewise.
    """

    folder: Path
    beginning: finetune.Beginning
    draws: int
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]

    def path(self, key: str) -> Path:
        """The file of the video with this :func:`jaxvid.data.pipeline.record_key`."""
        return self.folder / f"{key}.safetensors"

    def holds(self, key: str) -> bool:
        """Whether the video's file is there, and whole, and the video was. A broken one is asked and named again."""
        try:
            with safe_open(self.path(key), "numpy") as file:
                return bool(file.get_tensor("mask").all())
        except (OSError, SafetensorError):
            return False

    def write(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Keeps one video: the block's arrays ``[V ...]`` as ``"0"``, ``"1"``, …; ``label`` and ``mask`` ``[V]``."""
        plain = {name: array.view(np.uint16) if array.dtype.itemsize == 2 else array for name, array in arrays.items()}
        with replacing(self.path(key)) as file:
            file.write(safetensors.numpy.save(plain))

    def read(self, key: str, draw: int) -> tuple[list[np.ndarray], int, bool]:
        """One draw of a video: the block's arrays, the label and whether it could be decoded."""
        with safe_open(self.path(key), "numpy") as file:
            arrays = [
                np.asarray(file.get_slice(str(index))[draw]).view(dtype).reshape(shape)
                for index, (shape, dtype) in enumerate(zip(self.shapes, self.dtypes, strict=True))
            ]
            label, mask = (file.get_tensor(name)[draw] for name in _ROWS)
        return arrays, int(label), bool(mask)

    def batches(
        self, dataset: VideoDataset, *, batch_size: int, seed: int, num_clips_total: int, position: int
    ) -> Generator[dict[str, np.ndarray], None, None]:
        """The training stream of :func:`jaxvid.data.pipeline.train_batches`, with ``features0``, … instead of pixels.

        Its order of the videos is the same for the same seed; in epoch ``e`` each comes with its draw ``e mod V``.

        Args:
          dataset: the split that :func:`keep` was given.
          batch_size: clips of each batch; what is missing in the last one is padding, with the id -1.
          seed: of the order.
          num_clips_total: length of the run in clips.
          position: clips that have been consumed already.
        """
        order: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))
        for begin in range(position, num_clips_total, batch_size):
            batch = self._empty(batch_size)
            for row, place in enumerate(range(begin, min(begin + batch_size, num_clips_total))):
                epoch, offset = divmod(place, len(dataset))
                if epoch != order[0]:
                    order = epoch, epoch_order(seed, epoch, len(dataset))
                record = dataset[int(order[1][offset])]
                arrays, label, mask = self.read(record_key(record), epoch % self.draws)
                for index, array in enumerate(arrays):
                    batch[f"features{index}"][row] = array
                batch["label"][row], batch["id"][row], batch["mask"][row] = label, record.id, mask
            yield batch

    def _empty(self, rows: int) -> dict[str, np.ndarray]:
        arrays = zip(self.shapes, self.dtypes, strict=True)
        features = {f"features{i}": np.zeros((rows, *shape), dtype) for i, (shape, dtype) in enumerate(arrays)}
        labels = {"label": np.zeros(rows, np.int32), "id": np.full(rows, -1, np.int32), "mask": np.zeros(rows, bool)}
        return features | labels


def keep(
    config: Config,
    model: nn.Module,
    variables: Variables,
    dataset: VideoDataset,
    clips: TrainClips,
    folder: Path,
    *,
    mesh: jax.sharding.Mesh,
    quarantine: Quarantine,
    progress: Callable[[int, int], None] | None = None,
) -> KeptFeatures:
    """Computes what the frozen first blocks make of each video's draws, of those that ``folder`` does not hold yet.

    The blocks work as in evaluation: running statistics, no dropout. A video that cannot be decoded is kept as such.

    Args:
      config: of the run, with ``finetune.trainable`` and ``finetune.draws``.
      model: of the run.
      variables: its weights, of which only those of the frozen blocks matter.
      dataset: the training split.
      clips: how a clip is cut out of a video.
      folder: of all features of the run; these get a folder in it.
      mesh: the devices that compute them.
      quarantine: is told of bad videos.
      progress: told ``(videos done, videos)``.

    Raises:
      ValueError: no first block is frozen, or there are several hosts, which would each need all files.
      TooManyBadVideosError: more videos than ``data.max_bad_fraction`` could not be decoded.
    """
    if jax.process_count() > 1:
        raise ValueError(f"finetune.draws must be 0 on several hosts, received {jax.process_count()} hosts.")
    regularized = model.regularized_stages if isinstance(model, ClassRegularized) else ()
    block, draws = finetune.last_frozen_block(config.finetune.trainable, regularized), config.finetune.draws
    apply = make_blocks(config, model, block)
    clip = jax.ShapeDtypeStruct((1, *clips.shape), np.uint8)
    outputs, structure = jax.tree.flatten(jax.eval_shape(apply, variables, clip))
    kept = KeptFeatures(
        folder=folder / _fingerprint(config, block, variables),
        beginning=finetune.Beginning(block, structure, (clips.num_frames, clips.crop_size, clips.crop_size)),
        draws=draws,
        shapes=tuple(output.shape[1:] for output in outputs),
        dtypes=tuple(np.dtype(output.dtype) for output in outputs),
    )
    kept.folder.mkdir(parents=True, exist_ok=True)
    keys = {record.id: record_key(record) for record in dataset}
    missing = [id for id, key in keys.items() if not kept.holds(key)]
    if not missing:
        return kept
    if progress is not None:
        progress(0, len(missing))
    batch_size = math.lcm(draws, sharding.batch_multiple(mesh))
    stream = draw_batches(
        dataset,
        missing,
        clips,
        draws=draws,
        batch_size=batch_size,
        seed=config.train.seed,
        num_workers=config.data.num_workers,
        quarantine=quarantine,
    )
    variables = sharding.replicate(dict(variables), mesh)
    done = 0
    with stream:
        for batch in stream:
            video = sharding.put({"video": batch["video"]}, mesh)["video"]
            outputs = jax.device_get(jax.tree.leaves(apply(variables, video)))
            for first in range(0, batch_size, draws):  # a video's draws are never in two batches
                if batch["id"][first] < 0:
                    break
                rows = slice(first, first + draws)
                arrays = {str(index): np.ascontiguousarray(output[rows]) for index, output in enumerate(outputs)}
                arrays |= {name: np.array(batch[name][rows]) for name in _ROWS}
                kept.write(keys[int(batch["id"][first])], arrays)
                done += 1
            if progress is not None:
                progress(done, len(missing))
    return kept


def make_blocks(config: Config, model: nn.Module, block: str) -> Callable[[Variables, Any], Any]:
    """``(variables, video uint8[N T H W 3]) -> the block's output``, compiled, in evaluation mode."""
    data = config.data

    def wanted(module: nn.Module, method: str) -> bool:
        return module.path == (block,) and method == "__call__"

    @jax.jit
    def apply(variables: Variables, video: jax.Array) -> Any:
        normalised = normalize_video(video, data.mean, data.std, reverse=data.color == "BGR")
        _, found = model.apply(
            variables, normalised, train=False, capture_intermediates=wanted, mutable=["intermediates"]
        )
        return found["intermediates"][block]["__call__"][0]

    return apply


def _fingerprint(config: Config, block: str, variables: Variables) -> str:
    """16 digits that differ as soon as a kept feature would."""
    without_effect = ("dropout", "remat", "class_regularization")  # the last stands behind what is kept
    model = {name: value for name, value in asdict(config.model).items() if name not in without_effect}
    fields = ("num_frames", "frame_stride", "sampler", "short_side", "crop_size", "flip", "mirror", "modality", "color",
              "mean", "std")  # fmt: skip
    data = {name: getattr(config.data, name) for name in fields}
    said = [block, config.finetune.draws, config.train.seed, model, data]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    frozen = finetune.BLOCKS[: finetune.BLOCKS.index(block) + 1]
    for collection in ("params", "batch_stats"):
        part = {name: tree for name, tree in dict(variables[collection]).items() if name in frozen}
        for path, leaf in jax.tree_util.tree_leaves_with_path(part):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
    return digest.hexdigest()[:16]
