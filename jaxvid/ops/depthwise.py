"""Depthwise 3-D convolution as shifts and sums: what a CPU can do well where its libraries cannot."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

Pads = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise_shift_and_add(
    x: Float[Array, "N T H W C"],
    kernel: Float[Array, "kT kH kW 1 C"],
    strides: Size3,
    pads: Pads,
    dilation: Size3,
) -> Float[Array, "N To Ho Wo C"]:
    """Adds up, over the taps of the kernel, the shifted input times that tap; float32 inside.

    The gradient of the input is the same with the kernel reversed. The gradient of the kernel is summed frame by frame:
    one sum over all frames would read the input from memory once for each tap. Derivatives of any order in reverse
    mode; forward mode needs another formulation.

    Args:
        x: Activations.
        kernel: One channel in, one channel out, for each of the ``C`` groups.
        strides: Steps in frames, rows, columns.
        pads: Zeros before and after along T, H, W.
        dilation: Distance of the kernel's taps.

    Returns:
        The result in the dtype of ``x``.
    """
    padded = _pad(x, [(low, high, 0) for low, high in pads])
    out = tuple(
        (size - step * (width - 1) - 1) // stride + 1
        for size, width, stride, step in zip(padded.shape[1:4], kernel.shape, strides, dilation, strict=False)
    )
    return _sum_of_taps(padded, kernel, [range(width) for width in kernel.shape[:3]], out, strides, dilation)


def _forward(x: Array, kernel: Array, *geometry: Any) -> tuple[Array, tuple[Array, Array]]:
    return depthwise_shift_and_add(x, kernel, *geometry), (x, kernel)


def _backward(
    strides: Size3, pads: Pads, dilation: Size3, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    return _of_input(x, kernel, strides, pads, dilation, g), _of_kernel(x, kernel, strides, pads, dilation, g)


depthwise_shift_and_add.defvjp(_forward, _backward)


def _of_input(x: Array, kernel: Array, strides: Size3, pads: Pads, dilation: Size3, g: Array) -> Array:
    sides = []
    for size, width, stride, (low, _), step, out in zip(
        x.shape[1:4], kernel.shape, strides, pads, dilation, g.shape[1:4], strict=False
    ):
        reach = step * (width - 1)
        sides.append((reach - low, size + low - _span(out, stride), stride - 1))
    spread = _pad(g, sides)
    backwards = [range(width - 1, -1, -1) for width in kernel.shape[:3]]
    return _sum_of_taps(spread, kernel, backwards, x.shape[1:4], (1, 1, 1), dilation)


def _of_kernel(x: Array, kernel: Array, strides: Size3, pads: Pads, dilation: Size3, g: Array) -> Array:
    padded = _pad(x, [(low, high, 0) for low, high in pads])
    out = g.shape[1:4]

    def add_frame(total: Array, frame: tuple[Array, Array]) -> tuple[Array, None]:
        t, of_frame = frame[0], frame[1][:, None].astype(jnp.float32)
        sums = []
        for i in range(kernel.shape[0]):
            plane = lax.dynamic_slice_in_dim(padded, t * strides[0] + i * dilation[0], 1, axis=1)
            for j, k in itertools.product(range(kernel.shape[1]), range(kernel.shape[2])):
                seen = _tap(plane, (0, j, k), (1, *out[1:]), strides, dilation)
                sums.append(jnp.sum(seen.astype(jnp.float32) * of_frame, axis=(0, 1, 2, 3)))
        return total + jnp.stack(sums).reshape(kernel.shape), None

    start = jnp.zeros(kernel.shape, jnp.float32)
    total, _ = lax.scan(add_frame, start, (jnp.arange(out[0]), jnp.moveaxis(g, 1, 0)))
    return total.astype(kernel.dtype)


def _sum_of_taps(
    x: Array, kernel: Array, order: list[range], out: tuple[int, ...], strides: Size3, dilation: Size3
) -> Array:
    """Place ``i`` along an axis of the padded ``x`` meets entry ``order[axis][i]`` of the kernel."""
    weights = kernel[..., 0, :].astype(jnp.float32)
    total = jnp.zeros((), jnp.float32)
    for place, entry in zip(itertools.product(*map(range, kernel.shape[:3])), itertools.product(*order), strict=True):
        total = total + _tap(x, place, out, strides, dilation).astype(jnp.float32) * weights[entry]
    return total.astype(x.dtype)


def _tap(x: Array, place: tuple[int, ...], out: tuple[int, ...], strides: Size3, dilation: Size3) -> Array:
    """What one tap sees of ``[N T H W C]``."""
    starts = [tap * step for tap, step in zip(place, dilation, strict=True)]
    limits = [start + _span(count, stride) for start, count, stride in zip(starts, out, strides, strict=True)]
    return lax.slice(x, (0, *starts, 0), (x.shape[0], *limits, x.shape[4]), (1, *strides, 1))


def _span(count: int, stride: int) -> int:
    return (count - 1) * stride + 1


def _pad(x: Array, sides: list[tuple[int, int, int]]) -> Array:
    """Zeros before, after and between the entries of T, H, W; a negative number cuts off."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *sides, (0, 0, 0)])
