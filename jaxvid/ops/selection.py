"""Selection of frames by their similarity to their neighbours (MTConv's lateral path; thesis, section 5.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import lax

from jaxvid.ops.choices import require_choice

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

SELECTIONS = ("lowest", "largest_squared")

COSINE_EPSILON = 1e-4
"""A frame's norm counts as at least this much (the authors' code), so that a frame of zeros resembles none."""


def frame_triplet_similarity(x: Float[Array, "N T H W C"], *, select: str = "lowest") -> Float[Array, "N U"]:
    """Tells for every frame but the first and the last how much it resembles the one before and the one after.

    With ``g`` the spatial mean and ``c_t = cos(g_t, g_{t+1})``, entry ``t`` belongs to frame ``t + 1``:
    ``c_t + c_{t+1}`` for ``lowest`` (thesis, equations 5.6 and 5.7), ``(c_t^2 + c_{t+1}^2) / 2`` for
    ``largest_squared`` (the authors' public code). Arithmetic is float32.

    Args:
        x: Activations, at least three frames.
        select: Whose score, one of ``lowest``, ``largest_squared``.

    Returns:
        float32 scores of the ``U = T - 2`` inner frames, in [-2, 2] or [0, 1].

    Raises:
        ValueError: Unknown ``select``, a wrong rank or fewer than three frames.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, -1.0]])[None, :, None, None, :]
    >>> frame_triplet_similarity(x).tolist(), frame_triplet_similarity(x, select="largest_squared").tolist()
    ([[1.0, 0.0]], [[0.5, 1.0]])
    """
    require_choice("select", select, SELECTIONS)
    if x.ndim != 5:
        raise ValueError(f"x must have the axes N T H W C, received shape {x.shape}.")
    if x.shape[1] < 3:
        raise ValueError(
            f"x must have at least 3 frames, since the first and the last are never selected, received T={x.shape[1]}."
        )
    g = jnp.mean(x, axis=(2, 3), dtype=jnp.float32)
    # A maximum inside the root: the root of 0 would give the gradient of a frame of zeros as NaN.
    g = g / jnp.sqrt(jnp.maximum(jnp.sum(g * g, axis=-1, keepdims=True), COSINE_EPSILON**2))
    cosine = jnp.sum(g[:, :-1] * g[:, 1:], axis=-1)
    if select == "lowest":
        return cosine[:, :-1] + cosine[:, 1:]
    return (cosine[:, :-1] ** 2 + cosine[:, 1:] ** 2) / 2


def select_frames(
    x: Float[Array, "N T H W C"], num_frames: int | None = None, *, select: str = "lowest"
) -> Float[Array, "N S H W C"]:
    """Keeps, per sample and in order of time, the frames that :func:`frame_triplet_similarity` singles out.

    Only frames with two neighbours compete. Of equal scores the first in time is kept; a score that is not a number
    comes last. The kept frames pass their gradient back to where they stood; the choice itself has none.

    Args:
        x: Activations, at least three frames.
        num_frames: How many to keep, 1 to T - 2; ``None`` keeps ``floor(T / 2)``.
        select: ``lowest`` keeps the frames that resemble their neighbours least, the thesis' "most informative" ones;
            ``largest_squared`` keeps those of the largest mean squared cosine, as the authors' public code does.

    Returns:
        ``S = num_frames`` frames, in the dtype of ``x``.

    Raises:
        ValueError: Unknown ``select``, a wrong rank, fewer than three frames, or ``num_frames`` out of range.

    Note:
        The thesis and the code contradict each other; the thesis does not say what happens at the two ends, and takes
        the code's answer here. Two frames are an error in the code too: keep both without calling this.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, -1.0]])[None, :, None, None, :]
    >>> select_frames(x, 1).ravel().tolist(), select_frames(x, 1, select="largest_squared").ravel().tolist()
    ([0.0, 1.0], [0.0, 1.0])
    """
    scores = frame_triplet_similarity(lax.stop_gradient(x), select=select)
    frames = x.shape[1]
    if num_frames is None:
        num_frames = frames // 2
    if not 1 <= num_frames <= frames - 2:
        raise ValueError(
            f"num_frames must be from 1 to T - 2 = {frames - 2}, since the first and the last frame are never "
            f"selected, received num_frames={num_frames}."
        )
    return _take_frames(x, _first_in_order(scores if select == "lowest" else -scores, num_frames) + 1)


def _first_in_order(scores: Array, count: int) -> Int[Array, "N S"]:
    """The places of the ``count`` least scores of each row, ascending."""
    # A stable sort, not lax.top_k: what is done with ties is then the same on every backend.
    return jnp.sort(jnp.argsort(scores, axis=1, stable=True)[:, :count], axis=1)


def _take_frames(x: Array, index: Int[Array, "N S"]) -> Array:
    # One gather with the batch as its batching axis, so that data sharding keeps every sample where it is; whole
    # frames are copied, and the backward pass may assume that no frame is met twice.
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(2, 3, 4),
        collapsed_slice_dims=(1,),
        start_index_map=(1,),
        operand_batching_dims=(0,),
        start_indices_batching_dims=(0,),
    )
    return lax.gather(
        x,
        index[..., None],
        numbers,
        slice_sizes=(1, 1, *x.shape[2:]),
        unique_indices=True,
        indices_are_sorted=True,
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )
