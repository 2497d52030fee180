"""Temporal cyclic consistency of two sequences, and the product that it gates (SRTG's temporal gate)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.ops.choices import require_choice

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

GATE_GRADIENTS = ("hard", "straight_through")


def soft_nearest_neighbor(
    a: Float[Array, "N T C"], b: Float[Array, "N U C"]
) -> tuple[Float[Array, "N T C"], Int[Array, "N T"]]:
    """Finds for every step of ``a`` its soft nearest neighbour in ``b``, and the step of ``b`` closest to that.

    ``soft_t = sum_i softmax_i(-||a_t - b_i||^2) b_i`` and ``index_t = argmin_i ||soft_t - b_i||^2`` (thesis, equations
    4.6 and 4.7; temporal cycle consistency of Dwibedi et al. 2019). Distances and the softmax are float32.

    Args:
        a: The sequence that asks.
        b: The sequence that answers; it may have another length.

    Returns:
        ``(soft, index)``: the neighbours in the dtype of ``b``, and int32 steps of ``b``; of equally near steps the
        first one.

    Note:
        The equation as printed compares with ``a_t``; the index only makes sense over the steps of ``b``, as here.

    >>> import jax.numpy as jnp
    >>> a = jnp.array([[[0.0], [10.0]]])
    >>> soft, index = soft_nearest_neighbor(a, a[:, ::-1])
    >>> index.tolist()
    [[1, 0]]
    """
    a32, b32 = a.astype(jnp.float32), b.astype(jnp.float32)
    near = jax.nn.softmax(-_squared_distances(a32, b32), axis=-1)
    soft = jnp.einsum("ntu,nuc->ntc", near, b32, precision=lax.Precision.HIGHEST)
    index = jnp.argmin(_squared_distances(soft, b32), axis=-1).astype(jnp.int32)
    return soft.astype(b.dtype), index


def cyclic_consistency(a: Float[Array, "N T C"], b: Float[Array, "N T C"]) -> Bool[Array, " N"]:
    """Tells for every sample whether ``a`` and ``b`` agree in time: each step is the other's soft nearest neighbour.

    True where :func:`soft_nearest_neighbor` leads from every step ``t`` to the same step ``t``, from ``a`` to ``b`` and
    from ``b`` to ``a`` (thesis, section 4.2). A single step (``T = 1``) always agrees. The decision has no gradient.

    Args:
        a: Pooled activations.
        b: The recurrent cell's outputs, of the same shape.

    Returns:
        One decision per sample.

    Raises:
        ValueError: The shapes differ.

    Note:
        The authors' public code decides by an in-place comparison that is never true; this is the published gate.
    """
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"a and b must have one shape N T C, received {a.shape} and {b.shape}.")
    a, b = lax.stop_gradient(a), lax.stop_gradient(b)
    steps = jnp.arange(a.shape[1])
    there = jnp.all(soft_nearest_neighbor(a, b)[1] == steps, axis=-1)
    back = jnp.all(soft_nearest_neighbor(b, a)[1] == steps, axis=-1)
    return there & back


def gate_product(
    x: Float[Array, "N T H W C"],
    h: Float[Array, "N T C"],
    is_open: Bool[Array, " N"],
    *,
    gradient: str = "hard",
) -> Float[Array, "N T H W C"]:
    """Multiplies the open samples of ``x`` by ``h`` and leaves the closed ones exactly as they are.

    Args:
        x: Activations.
        h: One factor per step and channel.
        is_open: The gate's decision per sample.
        gradient: ``hard`` is the true gradient: a closed sample gives none to ``h``. ``straight_through``
            differentiates as if every gate were open, that is ``x * h``, so that a closed cell still learns.

    Returns:
        ``x * h`` or ``x`` per sample, in the dtype of ``x``.

    Raises:
        ValueError: Unknown ``gradient``.
    """
    require_choice("gradient", gradient, GATE_GRADIENTS)
    factor = h.astype(x.dtype)[:, :, None, None, :]
    mask = is_open[:, None, None, None, None]
    return _straight_through(x, factor, mask) if gradient == "straight_through" else _hard(x, factor, mask)


def _hard(x: Array, factor: Array, mask: Array) -> Array:
    # The choice is made on the small factor, not on the activations: x * 1 is x, bit for bit.
    return x * jnp.where(mask, factor, 1)


@jax.custom_jvp
def _straight_through(x: Array, factor: Array, mask: Array) -> Array:
    return _hard(x, factor, mask)


@_straight_through.defjvp
def _straight_through_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    x, factor, mask = primals
    x_dot, factor_dot, _ = tangents
    return _hard(x, factor, mask), x_dot * factor + x * factor_dot


def _squared_distances(a: Array, b: Array) -> Array:
    # Written as differences, not as |a|^2 + |b|^2 - 2ab: the index is decided by small distances.
    return jnp.sum(jnp.square(a[:, :, None, :] - b[:, None, :, :]), axis=-1)
