"""Which classes a trained network confuses: one pass over its training videos, kept as a file of the run (U2S)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid import evaluation
from jaxvid.config.schema import U2SConfig
from jaxvid.data.quarantine import Quarantine
from jaxvid.data.records import VideoDataset
from jaxvid.evaluation import class_similarity
from jaxvid.evaluation.similarity_plot import draw_similarity
from jaxvid.files import replacing, write_text
from jaxvid.train import assemble, sharding
from jaxvid.train.captured import OpenNetwork
from jaxvid.train.run import Run


@dataclass(frozen=True)
class Sparsity:
    """How often the features behind a network's last stage are 0.

    Attributes:
      zeros: ``int64[K C]``, zeros of each channel over all positions of the clips of each class.
      positions: ``int64[K]``, how many positions that were.
    """

    zeros: np.ndarray
    positions: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """``float64[K C]``, the mean share of zeros; NaN for a class of which no clip was decoded."""
        seen = self.positions[:, None] > 0
        return np.where(seen, self.zeros / np.maximum(self.positions[:, None], 1), np.nan)


def class_sparsity(
    run: Run, dataset: VideoDataset, quarantine: Quarantine, progress: Callable[[int], None] | None = None
) -> Sparsity:
    """The sparsity of each class behind the last stage of a network, see :func:`class_sparsities`."""
    block = f"stage{len(cast(Any, run.model).stage_sizes)}"
    return class_sparsities(run, dataset, quarantine, (block,), progress)[block]


def class_sparsities(
    run: Run,
    dataset: VideoDataset,
    quarantine: Quarantine,
    blocks: tuple[str, ...],
    progress: Callable[[int], None] | None = None,
) -> dict[str, Sparsity]:
    """The sparsity of each class behind some blocks over a whole split, seen as in an evaluation.

    Counts are whole numbers and their sums are exact, on any number of devices and hosts.

    Args:
      run: of a network.
      dataset: the split.
      quarantine: told of videos that cannot be decoded; they do not count.
      blocks: paths of blocks that end with a ReLU (``stage4``, ``u2s/specific/stage4``).
      progress: told how many videos are done.

    Returns:
      One for each block.

    Raises:
      ValueError: a block does not exist, returns pathways, or never a zero, so nothing can be said by them.
    """
    mesh = sharding.make_mesh(run.config.train.mesh)
    K = len(run.class_names)
    batches = assemble.evaluation_batches(run.config, dataset, mesh, quarantine)
    found: dict[str, Sparsity] = {}
    done = 0
    with batches:
        for part in evaluation.predict_batches(
            OpenNetwork(run.apply).with_outputs(blocks, reduce=_count_zeros),
            sharding.replicate(run.variables, mesh),
            batches,
            num_classes=K,
            put=lambda batch: sharding.put(batch, mesh),
        ):
            for block in blocks:
                counts = part.side[f"{block}/zeros"].astype(np.int64).sum(axis=1)
                if block not in found:
                    found[block] = Sparsity(np.zeros((K, counts.shape[-1]), np.int64), np.zeros(K, np.int64))
                np.add.at(found[block].zeros, part.labels, counts)  # of clips that could not be decoded both are 0
                positions = part.side[f"{block}/positions"].astype(np.int64).sum(axis=(1, 2))
                np.add.at(found[block].positions, part.labels, positions)
            done += len(part)
            if progress is not None:
                progress(done)
    for block in blocks:
        if block not in found or not found[block].zeros.any():
            where = "the last stage" if len(blocks) == 1 else block
            raise ValueError(
                f"{where} of {run.config.model.name!r} must return zeros now and then (end with a ReLU), by which "
                "U2S compares classes, received none."
            )
    return found


def _count_zeros(outputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Of each block ``zeros``, ``int32[N C]``, over time and space, and ``positions``, ``int32[N 1]``."""
    counted = {}
    for block, features in outputs.items():
        if not isinstance(features, jax.Array):
            raise ValueError(f"{block} must return one array where classes are compared by it, received pathways.")
        N, T, H, W, _ = features.shape
        counted[f"{block}/zeros"] = jnp.sum(features == 0, axis=(1, 2, 3), dtype=jnp.int32)
        counted[f"{block}/positions"] = jnp.full((N, 1), T * H * W, jnp.int32)
    return counted


def write_similarity(
    folder: Path, sparsity: Sparsity, predictions: evaluation.Predictions, u2s: U2SConfig, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Writes the similarity of the classes, and which are confused, into a folder.

    ``similarity.npz`` holds ``similarity [K K]``, ``confusing [K K]``, ``sparsity [K C]``, ``positions [K]``,
    ``top_n [K]`` and ``class_names``; ``similarity.json`` the numbers that were chosen; ``similarity.png`` the matrix.

    Args:
      folder: it is created.
      sparsity: of the training videos.
      predictions: the evaluation by which ``u2s.num_confusing=0`` chooses the number of confusing classes.
      u2s: says how.
      class_names: the ``K`` names.

    Returns:
      What is in ``similarity.json``: ``distance``, ``num_confusing`` that was asked for or follows from
      ``u2s.top_accuracy`` (all others, where there are fewer), ``mean_confusing`` that it came to, ``threshold``, and
      ``unseen``, the classes of which no training clip could be decoded.
    """
    K = len(class_names)
    shares = sparsity.shares
    similarity = class_similarity.class_similarity(shares, u2s.distance)
    top_n = class_similarity.top_n_accuracies(predictions)
    wanted = min(u2s.num_confusing or class_similarity.num_confusing_for(top_n, u2s.top_accuracy), K - 1)
    confusing, threshold = class_similarity.confusing_classes(similarity, wanted)
    told = {
        "distance": u2s.distance,
        "num_confusing": wanted,
        "mean_confusing": float(confusing.sum() / K - 1),
        "threshold": threshold,
        "unseen": [class_names[k] for k in np.flatnonzero(sparsity.positions == 0)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "similarity.png") as file:
        title = f"a class is confused with {told['mean_confusing']:.1f} others (similarity > {threshold:.3f})"
        draw_similarity(similarity, confusing, class_names, title=title).savefig(file, format="png", dpi=150)
    write_text(folder / "similarity.json", json.dumps(told, indent=2) + "\n")
    with replacing(folder / "similarity.npz") as file:
        np.savez(
            file,
            similarity=similarity,
            confusing=confusing,
            sparsity=shares,
            positions=sparsity.positions,
            top_n=top_n,
            class_names=np.array(class_names, dtype=np.str_),
        )
    return told
