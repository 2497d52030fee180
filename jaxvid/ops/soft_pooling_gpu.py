"""SoftPool's GPU kernels (Pallas on Mosaic GPU, by ``plgpu.kernel``): one tile of columns x channels a block.

A block is one warpgroup of 128 threads. It reads its taps from global memory into registers, where all arithmetic
stays, and writes its tile: no shared memory, so nothing to budget there. In the polyphase view
``[rows, groups, stride * C]`` every tap of a tile is one contiguous rectangle, overlapping windows included; what
overlaps is read again from the cache.
Lowering is tested for CUDA and the numbers in Mosaic GPU's interpret mode; no GPU was at hand to time it.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxvid.ops.gpu_tiles import Access, Tile, choose_tile, fill_channels, launch, rows_of, unravel
from jaxvid.ops.pooling_windows import Windows
from jaxvid.ops.soft_pooling_form import FLOOR, Form, Statistics, finite


def form(*, tile: Tile | None = None, interpret: Any = None) -> Form:
    """The kernels as a :class:`Form`.

    Args:
        tile: ``(columns, channels)`` of a block; ``None`` chooses one.
        interpret: What ``plgpu.kernel`` takes to simulate a GPU on a CPU, very slowly, as tests do.
    """
    options: dict[str, Any] = {"tile": tile, "interpret": interpret}
    return Form(
        lambda x, windows: _run_statistics(x, windows, residuals=False, **options)[0],
        functools.partial(_run_statistics, residuals=True, **options),
        functools.partial(_run_gather, **options),
    )


def _run_statistics(x: Array, windows: Windows, *, residuals: bool, tile: Tile | None, interpret: Any) -> Statistics:
    given, windows = windows, windows.as_3d()
    batch, num_channels = x.shape[0], x.shape[-1]
    columns = windows.outs[2]
    x, access, tiles = _tiled(x, windows, columns, tile)
    high, wide = access.tile
    _, frames, rows, _, channels = x.shape
    out_frames, out_rows, _ = windows.outs
    x = rows_of(x, tiles * high + windows.halo[2], windows.strides[2], -jnp.inf)
    grid = (batch, out_frames, out_rows, tiles, channels // wide)

    def body(x_ref: Any, *refs: Any) -> None:
        n, t, h, w, c = unravel(lax.axis_index("block"), grid)

        def tap(i: int, j: int, k: int) -> Array:
            row = (n * frames + t * windows.strides[0] + i) * rows + h * windows.strides[1] + j
            group, phase = divmod(k, windows.strides[2])
            return access.load(x_ref, row, w * high + group, phase * channels + c * wide)

        taps = [tap(*k) for k in windows.taps]
        highest = functools.reduce(jnp.maximum, taps)
        top = finite(highest)
        distances = [jnp.maximum(finite(values) - top, FLOOR) for values in taps]
        weights = [jnp.exp(d) for d in distances]
        total = functools.reduce(jnp.add, weights)
        mean = functools.reduce(jnp.add, (e * d for e, d in zip(weights, distances, strict=True))) / total
        row = (n * out_frames + t) * out_rows + h
        for ref, value in zip(refs, (highest + mean, top, total, mean), strict=False):
            access.store(ref, row, w * high, c * wide, value)

    out = (batch * out_frames * out_rows, tiles * high, channels)
    dtypes = [x.dtype, *([jnp.dtype(jnp.float32)] * 3 if residuals else [])]
    results = launch(body, [jax.ShapeDtypeStruct(out, dtype) for dtype in dtypes], math.prod(grid), interpret)(x)
    shape = (batch, *given.outs, num_channels)
    return tuple(v[:, :columns, :num_channels].reshape(shape) for v in results)  # type: ignore[return-value]


def _run_gather(
    x: Array, top: Array, a: Array, b: Array, windows: Windows, *, tile: Tile | None, interpret: Any
) -> Array:
    given, windows = windows, windows.as_3d()
    batch, num_channels = x.shape[0], x.shape[-1]
    x, access, tiles = _tiled(x, windows, windows.groups[2], tile)
    high, wide = access.tile
    _, frames, rows, width, channels = x.shape
    stride_t, stride_h, stride_w = windows.strides
    halo_t, halo_h, halo_w = windows.halo
    seen = []
    for values, fill in ((top, float(jnp.finfo(top.dtype).max)), (a, 0), (b, 0)):
        values = windows.surround(values.reshape(batch, *windows.outs, num_channels), fill)
        _, window_frames, window_rows, *_ = values.shape
        seen.append(rows_of(fill_channels(values, fill), tiles * high + halo_w, 1, fill))
    grid = (batch, frames, rows, tiles, channels // wide)

    def body(x_ref: Any, top_ref: Any, a_ref: Any, b_ref: Any, out_ref: Any) -> None:
        n, t, h, w, c = unravel(lax.axis_index("block"), grid)
        row = (n * frames + t) * rows + h
        for phase in range(stride_w):
            at = (row, w * high, phase * channels + c * wide)
            values = finite(access.load(x_ref, *at))
            gradient = jnp.zeros_like(values)
            for j, i in itertools.product(range(halo_t + 1), range(halo_h + 1)):
                window_t, window_h = lax.div(t, stride_t) - j + halo_t, lax.div(h, stride_h) - i + halo_h
                seen_row = (n * window_frames + window_t) * window_rows + window_h
                part = jnp.zeros_like(values)
                for k in range(phase, windows.window[2], stride_w):
                    place = (seen_row, w * high + halo_w - k // stride_w, c * wide)
                    window_top, window_a, window_b = (access.load(ref, *place) for ref in (top_ref, a_ref, b_ref))
                    d = jnp.maximum(values - window_top, FLOOR)
                    part += jnp.exp(d) * (window_a + window_b * d)
                # Whether the window reaches this row depends on the row's phases, which are known only here.
                reaches = (lax.rem(t, stride_t) + j * stride_t < windows.window[0]) & (
                    lax.rem(h, stride_h) + i * stride_h < windows.window[1]
                )
                gradient += jnp.where(reaches, part, 0)
            access.store(out_ref, *at, gradient)

    x = rows_of(x, tiles * high, stride_w, -jnp.inf)
    (gradient,) = launch(body, [jax.ShapeDtypeStruct(x.shape, x.dtype)], math.prod(grid), interpret)(x, *seen)
    gradient = gradient.reshape(batch, frames, rows, -1, channels)[:, :, :, :width, :num_channels]
    return windows.unpad(gradient).reshape(batch, *given.sizes, num_channels)


def _tiled(x: Array, windows: Windows, columns: int, tile: Tile | None) -> tuple[Array, Access, int]:
    """The padded input ``[N T H W C]``, how tiles are read, and how many of them it takes for so many columns."""
    x = fill_channels(windows.pad(x.reshape(x.shape[0], *windows.sizes, x.shape[-1])), -jnp.inf)
    tile = tile or choose_tile(columns, x.shape[-1])
    return x, Access(tile, x.shape[-1], x.dtype, "softpool"), math.ceil(columns / tile[0])


FORM = form()
