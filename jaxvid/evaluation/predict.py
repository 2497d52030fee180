"""Multi-view prediction: every clip of a set exactly once, softmax averaged over its views.

The views of a clip are run one after another on the device, so its memory is that of ``N`` clips whatever ``V`` is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxvid.types import Array, Batch, Variables

EvaluatedApply: TypeAlias = "Callable[[Variables, jax.Array], jax.Array | tuple[jax.Array, Mapping[str, jax.Array]]]"
"""An apply function that may say more than logits, see :func:`evaluate`."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said about ``n`` clips, sorted by id.

    Attributes:
      ids: ``int32[n]``, positions of the clips in their split: ``0 .. n-1``, or those of one batch.
      labels: ``int32[n]``, the true classes.
      decoded: ``bool[n]``, ``False`` for a clip that could not be decoded; its logits and scores are 0.
      logits: ``float32[n V K]``, one row of logits for each view.
      scores: ``float32[n K]``, the mean over the views of ``softmax(logits)``.
      side: ``[n V ...]`` by name, what the model says beside its logits; 0 for a clip that could not be decoded.
    """

    ids: np.ndarray
    labels: np.ndarray
    decoded: np.ndarray
    logits: np.ndarray
    scores: np.ndarray
    side: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        if self.logits.ndim != 3:
            raise ValueError(f"logits must be float32[n V K], received the shape {self.logits.shape}.")
        if self.decoded.dtype != bool:  # as integers they would index instead of select
            raise ValueError(f"decoded must be bool[n], received {self.decoded.dtype}.")
        n, V, K = self.logits.shape
        shapes = {"ids": (n,), "labels": (n,), "decoded": (n,), "scores": (n, K)}
        received = {name: getattr(self, name).shape for name in shapes}
        shapes |= dict.fromkeys(self.side, (n, V))
        received |= {name: array.shape[:2] for name, array in self.side.items()}
        for name, shape in shapes.items():
            if received[name] != shape:
                raise ValueError(
                    f"{name} must have the shape {shape} with logits of shape {self.logits.shape}, "
                    f"received a {name} of shape {received[name]}."
                )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, order: np.ndarray) -> Predictions:
        """The clips at these positions, in this order."""
        return Predictions(**jax.tree.map(lambda array: array[order], _arrays(self)))

    @property
    def view_scores(self) -> np.ndarray:
        """``softmax`` of each view's logits, ``float32[n V K]``; 0 for a clip that could not be decoded."""
        return _softmax(self.logits) * self.decoded[:, None, None]


def evaluate(
    apply: EvaluatedApply,
    variables: Variables,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    put: Callable[[Batch], Mapping[str, Array]] | None = None,
    progress: Callable[[int], None] | None = None,
    num_clips: int | None = None,
) -> Predictions:
    """Runs a model over all views of all clips.

    With several processes each one calls this with its own share of the batches (the same number of batches on
    every process) and each one receives the predictions of the whole set.

    Args:
      apply: ``(variables, video uint8[N T H W 3]) -> logits float[N K]``, or a pair of logits and what the model says
        beside them, ``{name: [N ...]}``. Compiled once for each shape of a batch, and not again in a later call with
        an equal ``apply``: hand over the same function, not a new closure, every epoch. One whose ``takes_labels`` is
        true (an oracle) finds the batch's labels in ``variables["given"]["label"]``.
      variables: the model's variables, placed as ``apply`` wants them.
      batches: batches with ``video`` ``uint8[N V T H W 3]``, and the same ``V`` throughout.
      num_classes: ``K``, at least 1.
      put: places a host's batch on the devices (``jaxvid.train.sharding.put``); ``None`` leaves that to ``jit``.
      progress: called after each batch with the number of clips that are done.
      num_clips: the size of the set, if known: then clips that are missing at its end are an error too.

    Returns:
      The predictions: sorted by id, padding rows dropped, clips that could not be decoded kept.

    Raises:
      ValueError: no batches; an id is missing or repeated; a batch or the model's output has the wrong shape.
      FloatingPointError: the logits of a decoded clip are not finite.
    """
    parts: list[Predictions] = []
    done = 0
    for part in predict_batches(apply, variables, batches, num_classes=num_classes, put=put):
        parts.append(part)
        done += len(part)
        if progress is not None:
            progress(done)
    if not parts:
        raise ValueError("batches must yield at least one batch, received none: is the split empty?")
    return _join(parts, num_clips)


def predict_batches(
    apply: EvaluatedApply,
    variables: Variables,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    put: Callable[[Batch], Mapping[str, Array]] | None = None,
) -> Iterator[Predictions]:
    """What :func:`evaluate` puts together: the predictions of one batch after the other, as they come.

    Args:
      apply: as in :func:`evaluate`, which says so of the other arguments too.
      variables: the model's.
      batches: with several processes, this one's share.
      num_classes: ``K``, at least 1.
      put: places a host's batch on the devices.

    Yields:
      The predictions of a batch (with several processes, of all shares) without its padding, in its own order. The next
      batch has been taken by then and is on the device.

    Raises:
      ValueError: a batch or the model's output has the wrong shape.
      FloatingPointError: the logits of a decoded clip are not finite.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be >= 1, received num_classes={num_classes}.")
    # One batch stays in flight: while the device works on it, the host decodes the next one.
    pending: dict[str, Any] | None = None
    for batch in batches:
        following = _start(apply, variables, batch if put is None else put(batch), num_classes)
        if pending is not None:
            yield _collect(pending)
        pending = following
    if pending is not None:
        yield _collect(pending)


def mean_scores(logits: np.ndarray) -> np.ndarray:
    """The mean over the views of the softmax over the classes.

    Args:
      logits: ``float[n V K]``.

    Returns:
      ``float32[n K]``; each row sums to 1.

    >>> mean_scores(np.log([[[0.5, 0.5], [0.9, 0.1]]])).astype(float).round(3).tolist()
    [[0.7, 0.3]]
    """
    return _softmax(logits).mean(axis=1, dtype=np.float32)


@functools.partial(jax.jit, static_argnames="apply")
def _predict_views(
    variables: Variables, video: jax.Array, *, apply: EvaluatedApply
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """``uint8[N V T H W 3] -> float32[N V K]`` and ``{name: [N V ...]}``, one view after another."""

    def view(index: jax.Array | int) -> tuple[jax.Array, dict[str, jax.Array]]:
        # Indexing inside the loop needs no copy of the batch with V in front.
        clip = jax.lax.dynamic_index_in_dim(video, index, axis=1, keepdims=False)
        output = apply(variables, clip)
        logits, side = output if isinstance(output, tuple) else (output, {})
        return logits.astype(jnp.float32), dict(side)

    if video.shape[1] == 1:
        return jax.tree.map(lambda array: array[:, None], view(0))
    views = jax.lax.map(view, jnp.arange(video.shape[1]))
    return jax.tree.map(lambda array: jnp.moveaxis(array, 0, 1), views)


def _start(apply: EvaluatedApply, variables: Variables, batch: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Checks a batch and starts its computation; does not wait for the result."""
    video = batch["video"]
    if video.ndim != 6 or video.shape[-1] != 3 or video.dtype != np.uint8 or video.shape[1] < 1:
        raise ValueError(f"video must be uint8[N V T H W 3] with V >= 1, received {video.dtype}{list(video.shape)}.")
    if getattr(apply, "takes_labels", False):
        variables = {**variables, "given": {"label": batch["label"]}}
    logits, side = _predict_views(variables, video, apply=apply)
    expected = (*video.shape[:2], num_classes)
    if logits.shape != expected:
        raise ValueError(f"apply must return logits [N K] with K={num_classes}, received [N V K]={list(logits.shape)}.")
    return {"id": batch["id"], "label": batch["label"], "mask": batch["mask"], "logits": logits, "side": side}


def _collect(pending: dict[str, Any]) -> Predictions:
    """Waits for a batch and drops its padding."""
    if jax.process_count() == 1:
        rows = jax.device_get(pending)
    else:
        rows = multihost_utils.process_allgather(pending, tiled=True)
    real = np.asarray(rows["id"]) >= 0
    part = jax.tree.map(lambda values: np.asarray(values)[real], rows)
    logits = _zero_unless(part["mask"], part["logits"])
    broken = part["id"][~np.isfinite(logits).all(axis=(1, 2))]
    if broken.size:
        raise FloatingPointError(
            f"logits must be finite, received NaN or infinity for the clips with id {_few(broken)}."
        )
    return Predictions(
        ids=part["id"],
        labels=part["label"],
        decoded=part["mask"].astype(bool),
        logits=logits,
        scores=mean_scores(logits) * part["mask"][:, None],
        side={name: _zero_unless(part["mask"], array) for name, array in part["side"].items()},
    )


def _zero_unless(mask: np.ndarray, array: np.ndarray) -> np.ndarray:
    return np.where(mask.reshape(-1, *[1] * (array.ndim - 1)), array, array.dtype.type(0))


def _join(parts: list[Predictions], num_clips: int | None) -> Predictions:
    """Puts the batches together in the order of the ids and checks that the set is whole."""
    views = sorted({part.logits.shape[1] for part in parts})
    if len(views) > 1:
        raise ValueError(f"every batch must have the same number of views, received V in {views}.")
    ids = np.concatenate([part.ids for part in parts])
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"each clip must come exactly once, received more than once: id {_few(values[counts > 1])}.")
    size = num_clips if num_clips is not None else int(ids.max(initial=-1)) + 1
    missing = np.setdiff1d(np.arange(size), values)
    if missing.size:
        raise ValueError(f"each of the {size} clips must come exactly once, received none with id {_few(missing)}.")
    if len(ids) > size:
        raise ValueError(f"ids must be below num_clips={size}, received id {_few(values[values >= size])}.")
    if size == 0:
        raise ValueError("batches must hold at least one clip, received padding only.")
    order = np.argsort(ids, kind="stable")
    return concatenate(parts).take(order)


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """The clips of all parts, one part behind the other, with their ids as they are."""
    return Predictions(**jax.tree.map(lambda *arrays: np.concatenate(arrays), *map(_arrays, parts)))


def _arrays(predictions: Predictions) -> dict[str, Any]:
    return {**vars(predictions), "side": dict(predictions.side)}


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float32)
    return powers / powers.sum(axis=-1, keepdims=True)


def _few(ids: np.ndarray, limit: int = 10) -> str:
    """``3, 5, 8`` or, of many, the first ten and how many more."""
    shown = ", ".join(str(int(i)) for i in ids[:limit])
    return shown if len(ids) <= limit else f"{shown} and {len(ids) - limit} more"
