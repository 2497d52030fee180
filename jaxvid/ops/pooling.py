"""Max, average and stochastic pooling over time and space; all of them leave the padding out."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvid.ops.pooling_windows import Pads, Windows

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

Padding = str | Sequence[int | tuple[int, int]]

LARGE_WINDOW = 64
"""A window of more entries is summed axis by axis: all terms in one loop, 1024 of 32x32, took XLA 40 s to compile."""


def max_pool3d(
    x: Float[Array, "N T H W C"],
    window: Size3,
    strides: Size3 | None = None,
    padding: Padding = (0, 0, 0),
) -> Float[Array, "N To Ho Wo C"]:
    """Takes the largest value of every window; the padding is minus infinity, so it never wins.

    The gradient of a window goes to its largest value, to the first of equals in the order T, H, W (as in torch and
    XLA). A NaN in a window is its result.

    Args:
        x: Activations.
        window: Size in frames, rows, columns.
        strides: Steps; ``None`` means the window's size.
        padding: ``"SAME"``, ``"VALID"``, or per axis one number for both sides or a pair, each smaller than the window.

    Returns:
        One value per window that fits: ``floor((size + padding - window) / stride) + 1`` along each axis.

    Raises:
        ValueError: A wrong rank or number of entries, a padding as large as the window, or no window fits.

    Note:
        ``flax.linen.max_pool`` gives the same values and gradients, but its backward pass (XLA's select-and-scatter) is
        slow on CPU: forward and backward after a stem of width 16 took 189 ms of processor time, here 40 ms.

    >>> import jax.numpy as jnp
    >>> max_pool3d(jnp.arange(4.0).reshape(1, 1, 1, 4, 1), (1, 1, 2)).ravel().tolist()
    [1.0, 3.0]
    """
    strides, pads = _check(x, window, strides, padding)
    # A maximum is separable. The last axis goes first, so that the first of equals is so in the order T, H, W.
    for axis in (3, 2, 1):
        x = _max_along(x, axis, window[axis - 1], strides[axis - 1], pads[axis - 1])
    return x


def max_pool3d_reference(
    x: Float[Array, "N T H W C"], window: Size3, strides: Size3 | None = None, padding: Padding = (0, 0, 0)
) -> Float[Array, "N To Ho Wo C"]:
    """Specification of :func:`max_pool3d`: XLA's reduction over windows."""
    strides, pads = _check(x, window, strides, padding)
    lowest = np.asarray(-np.inf, x.dtype)  # not an array of jax: the gradient is known for this constant only
    return lax.reduce_window(x, lowest, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))


def avg_pool3d(
    x: Float[Array, "N T H W C"], window: Size3, strides: Size3 | None = None, padding: Padding = (0, 0, 0)
) -> Float[Array, "N To Ho Wo C"]:
    """Takes the mean of the real values of every window: padding is neither added nor counted.

    Sums are float32 whatever the dtype of ``x`` is.

    Args:
        x: Activations.
        window: Size in frames, rows, columns.
        strides: Steps; ``None`` means the window's size.
        padding: ``"SAME"``, ``"VALID"``, or per axis one number for both sides or a pair, each smaller than the window.

    Returns:
        One value per window that fits, as in :func:`max_pool3d`, in the dtype of ``x``.

    Raises:
        ValueError: As in :func:`max_pool3d`.

    Note:
        torch counts padded taps by default (``count_include_pad=True``). Where nothing is padded, as in the 1x2x2
        pooling of MTConv, there is no difference. Forward / forward and backward, 3x3x3 windows of stride 2 on
        4x8x28x28x64, two CPU cores: 1.0 / 2.3 ms of processor time, XLA's reduction over windows 2.1 / 26.

    >>> import jax.numpy as jnp
    >>> avg_pool3d(jnp.arange(1.0, 4.0).reshape(1, 1, 1, 3, 1), (1, 1, 2), padding=(0, 0, (1, 0))).ravel().tolist()
    [1.0, 2.5]
    """
    strides, pads = _check(x, window, strides, padding)
    total = _window_sums(x.astype(jnp.float32), tuple(window), tuple(strides), pads)
    return (total / _num_real_taps(x.shape[1:4], window, strides, pads)).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _window_sums(x: Array, window: Size3, strides: Size3, pads: Sequence[tuple[int, int]]) -> Array:
    if math.prod(window) > LARGE_WINDOW:
        return _separate_sums(x, window, strides, pads)
    return functools.reduce(jnp.add, _taps(x, window, strides, pads))


def _separate_sums(x: Array, window: Size3, strides: Size3, pads: Sequence[tuple[int, int]]) -> Array:
    for axis in (1, 2, 3):
        x = functools.reduce(jnp.add, _taps_along(x, axis, window[axis - 1], strides[axis - 1], pads[axis - 1], 0.0))
    return x


def _window_sums_backward(
    window: Size3, strides: Size3, pads: Sequence[tuple[int, int]], size: tuple[int, ...], y_bar: Array
) -> tuple[Array]:
    """The transpose of the sums axis by axis: fewer terms than that of all taps, whose forward pass is one loop."""
    x = jax.ShapeDtypeStruct((y_bar.shape[0], *size, y_bar.shape[4]), y_bar.dtype)
    return tuple(jax.linear_transpose(lambda x: _separate_sums(x, window, strides, pads), x)(y_bar))


_window_sums.defvjp(
    lambda x, window, strides, pads: (_window_sums(x, window, strides, pads), x.shape[1:4]), _window_sums_backward
)


def avg_pool3d_reference(
    x: Float[Array, "N T H W C"], window: Size3, strides: Size3 | None = None, padding: Padding = (0, 0, 0)
) -> Float[Array, "N To Ho Wo C"]:
    """Specification of :func:`avg_pool3d`: the sum over windows by the number of their real entries."""
    strides, pads = _check(x, window, strides, padding)
    total, count = (
        lax.reduce_window(v, np.float32(0), lax.add, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))
        for v in (x.astype(jnp.float32), jnp.ones((1, *x.shape[1:4], 1), jnp.float32))
    )
    return (total / count).astype(x.dtype)


def stochastic_pool3d(
    x: Float[Array, "N T H W C"],
    window: Size3,
    strides: Size3 | None = None,
    padding: Padding = (0, 0, 0),
    *,
    key: Array | None,
) -> Float[Array, "N To Ho Wo C"]:
    """Draws one value of every window, with a probability proportional to the value (Zeiler and Fergus 2013).

    With ``p_i = a_i / sum_k a_k`` over the window and ``a = relu(x)``: in training ``a_i`` with probability ``p_i``
    (their equation 5), independently for every window and channel; in evaluation the mean ``sum_i p_i a_i`` (their
    equation 6). A window without a positive value, or of padding alone, gives 0 and passes no gradient; one that holds
    infinity or no number draws that. Arithmetic is float32.

    Args:
        x: Activations, not negative after a ReLU; what is negative counts as 0.
        window: Size in frames, rows, columns.
        strides: Steps; ``None`` means the window's size.
        padding: ``"SAME"``, ``"VALID"``, or per axis one number for both sides or a pair, each smaller than the window;
            it is never drawn.
        key: Of the draw, which is the same for the same key; ``None`` gives the mean (evaluation).

    Returns:
        One value per window that fits, as in :func:`max_pool3d`, in the dtype of ``x``. The gradient of a drawn value
        is that of the entry it came from; the probabilities have none. The mean has its true gradient.

    Raises:
        ValueError: As in :func:`max_pool3d`.

    Note:
        Forward / forward and backward of a draw, 3x3x3 windows of stride 2 on 4x8x28x28x64, two CPU cores: 2.2 / 6.0
        ms of processor time; the reference, which lays all taps side by side, 79 / 101.

    >>> import jax
    >>> x = jax.numpy.array([1.0, 3.0, 0.0, 0.0]).reshape(1, 1, 1, 4, 1)
    >>> stochastic_pool3d(x, (1, 1, 2), key=None).ravel().tolist()  # 1/4 of 1 and 3/4 of 3
    [2.5, 0.0]
    >>> stochastic_pool3d(x, (1, 1, 2), key=jax.random.key(1)).ravel().tolist()
    [3.0, 0.0]
    """
    strides, pads = _check(x, window, strides, padding)
    x32 = jax.nn.relu(x.astype(jnp.float32))
    taps = list(_taps(x32, window, strides, pads))
    if key is None:
        total = functools.reduce(jnp.add, taps)
        # Where nothing is positive every weight is 0 over 1, and so is its gradient.
        share = 1 / jnp.where(total > 0, total, 1)
        return functools.reduce(jnp.add, (tap * (tap * share) for tap in taps)).astype(x.dtype)
    number, total = _draw(lax.stop_gradient(x32), window, strides, pads, key)
    drawn = functools.reduce(jnp.add, (jnp.where(number == k, tap, 0) for k, tap in enumerate(taps)))
    return jnp.where(jnp.isfinite(total), drawn, total).astype(x.dtype)


def _draw(x: Array, window: Size3, strides: Size3, pads: Sequence[tuple[int, int]], key: Array) -> tuple[Array, Array]:
    """The number of the tap that every window draws (beyond the last one where the sum is 0), and the windows' sums."""
    total = functools.reduce(jnp.add, _taps(x, window, strides, pads))
    # The inverse of the cumulative distribution: the first tap whose running sum passes the threshold. The threshold is
    # below the total, so there is one; and a tap of 0 is never the first.
    threshold = total * jax.random.uniform(key, total.shape)
    number, running = jnp.zeros(total.shape, jnp.int32), jnp.zeros_like(total)
    for tap in _taps(x, window, strides, pads):
        running = running + tap
        number = number + (running <= threshold)
    return number, total


def stochastic_pool3d_reference(
    x: Float[Array, "N T H W C"],
    window: Size3,
    strides: Size3 | None = None,
    padding: Padding = (0, 0, 0),
    *,
    key: Array | None,
) -> Float[Array, "N To Ho Wo C"]:
    """Specification of :func:`stochastic_pool3d`: all taps side by side, and one of them by its number."""
    strides, pads = _check(x, window, strides, padding)
    taps = jnp.stack(list(_taps(jax.nn.relu(x.astype(jnp.float32)), window, strides, pads)))
    total = jnp.sum(taps, axis=0)
    if key is None:
        return jnp.sum(taps * taps / jnp.where(total > 0, total, 1), axis=0).astype(x.dtype)
    running = jnp.cumsum(lax.stop_gradient(taps), axis=0)
    number = jnp.sum(running <= running[-1] * jax.random.uniform(key, total.shape), axis=0)
    number = jnp.minimum(number, len(taps) - 1)  # a window of zeros passes nowhere, and its last tap is 0 as well
    return jnp.take_along_axis(taps, number[None], axis=0)[0].astype(x.dtype)


def _check(x: Array, window: Size3, strides: Size3 | None, padding: Padding) -> tuple[Size3, Pads]:
    """Raises on what cannot be meant; returns the strides, and the padding as three pairs."""
    if x.ndim != 5:
        raise ValueError(f"x must have the axes N T H W C, received shape {x.shape}.")
    windows = Windows.of(x.shape, window, strides, padding)
    t, h, w = windows.strides
    return (t, h, w), windows.pads


def _max_along(x: Array, axis: int, width: int, stride: int, pads: tuple[int, int]) -> Array:
    taps = _taps_along(x, axis, width, stride, pads, -jnp.inf)
    best = next(taps)
    for tap in taps:
        best = jnp.where((tap > best) | jnp.isnan(tap), tap, best)
    return best


def _taps(x: Array, window: Size3, strides: Size3, pads: Sequence[tuple[int, int]]) -> Iterator[Array]:
    """Entry ``(i, j, k)`` of every window, for all of them in the order T, H, W; padding is 0."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    counts = [(size - width) // stride for size, width, stride in zip(x.shape[1:4], window, strides, strict=True)]
    for start in itertools.product(*map(range, window)):
        end = (k + count * stride + 1 for k, count, stride in zip(start, counts, strides, strict=True))
        yield lax.slice(x, (0, *start, 0), (x.shape[0], *end, x.shape[4]), (1, *strides, 1))


def _taps_along(x: Array, axis: int, width: int, stride: int, pads: tuple[int, int], fill: float) -> Iterator[Array]:
    """The first entry of every window along one axis, the second one, and so on."""
    x = jnp.pad(x, [pads if a == axis else (0, 0) for a in range(x.ndim)], constant_values=fill)
    last = (x.shape[axis] - width) // stride * stride
    return (lax.slice_in_dim(x, k, k + last + 1, stride, axis) for k in range(width))


def _num_real_taps(size: Sequence[int], window: Size3, strides: Size3, pads: Sequence[tuple[int, int]]) -> np.ndarray:
    """``float32[To Ho Wo 1]``: how many entries of each window are not padding, at least 1."""
    counts = []
    for n, width, stride, (low, high) in zip(size, window, strides, pads, strict=True):
        start = np.arange(0, n + low + high - width + 1, stride) - low
        counts.append(np.minimum(start + width, n) - np.maximum(start, 0))
    return np.einsum("t,h,w->thw", *counts)[..., None].astype(np.float32)
