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
from collections.abc import Callable
from typing import Any

import jax
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from jaxvid.ops.pooling_windows import Windows
from jaxvid.ops.soft_pooling_form import FLOOR, Form, Statistics, finite

THREADS = 128
MIN_CHANNELS = 8
"""Channels are padded to a multiple of this, or tiles would be one channel wide."""
MAX_PER_THREAD = 8
"""Numbers of a tile per thread; a window's taps are all in registers at once."""

Tile = tuple[int, int]


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


def choose_tile(columns: int, channels: int) -> Tile:
    """A tile for so many columns and channels: up to 128 channels wide, and no more columns than needed.

    >>> choose_tile(28, 64), choose_tile(7, 24)
    ((4, 64), (16, 8))
    """
    wide = math.gcd(channels, THREADS)
    high = THREADS // wide
    while high * wide < 2 * THREADS and columns % (2 * high) == 0:
        high *= 2
    return high, wide


def check_tile(tile: Tile, channels: int) -> int:
    """Raises on a tile that a warpgroup cannot hold; returns how many neighbouring numbers a thread takes."""
    high, wide = tile
    if high < 1 or wide < 1 or (high * wide) % THREADS or channels % wide:
        raise ValueError(
            f"a tile must have a multiple of {THREADS} numbers and its channels must divide {channels}, "
            f"received tile={tile}."
        )
    if high * wide > MAX_PER_THREAD * THREADS:
        raise ValueError(f"a tile must have at most {MAX_PER_THREAD * THREADS} numbers, received tile={tile}.")
    return math.gcd(math.gcd(high * wide // THREADS, wide), 4)


def _run_statistics(x: Array, windows: Windows, *, residuals: bool, tile: Tile | None, interpret: Any) -> Statistics:
    given, windows = windows, windows.as_3d()
    batch, num_channels = x.shape[0], x.shape[-1]
    x = _fill_channels(windows.pad(_as_3d(x, windows)), -jnp.inf)
    channels, columns = x.shape[-1], windows.outs[2]
    high, wide = tile or choose_tile(columns, channels)
    access = _Access((high, wide), channels, x.dtype)
    tiles = math.ceil(columns / high)
    _, frames, rows, *_ = x.shape
    out_frames, out_rows, _ = windows.outs
    x = _rows_of(x, tiles * high + windows.halo[2], windows.strides[2], -jnp.inf)
    grid = (batch, out_frames, out_rows, tiles, channels // wide)

    def body(x_ref: Any, *refs: Any) -> None:
        n, t, h, w, c = _unravel(lax.axis_index("block"), grid)

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
    results = _launch(body, [jax.ShapeDtypeStruct(out, dtype) for dtype in dtypes], math.prod(grid), interpret)(x)
    shape = (batch, *given.outs, num_channels)
    return tuple(v[:, :columns, :num_channels].reshape(shape) for v in results)  # type: ignore[return-value]


def _run_gather(
    x: Array, top: Array, a: Array, b: Array, windows: Windows, *, tile: Tile | None, interpret: Any
) -> Array:
    given, windows = windows, windows.as_3d()
    batch, num_channels = x.shape[0], x.shape[-1]
    x = _fill_channels(windows.pad(_as_3d(x, windows)), -jnp.inf)
    channels, columns = x.shape[-1], windows.groups[2]
    high, wide = tile or choose_tile(columns, channels)
    access = _Access((high, wide), channels, x.dtype)
    tiles = math.ceil(columns / high)
    _, frames, rows, width, _ = x.shape
    stride_t, stride_h, stride_w = windows.strides
    halo_t, halo_h, halo_w = windows.halo
    seen = []
    for values, fill in ((top, float(jnp.finfo(top.dtype).max)), (a, 0), (b, 0)):
        values = windows.surround(values.reshape(batch, *windows.outs, num_channels), fill)
        _, window_frames, window_rows, *_ = values.shape
        seen.append(_rows_of(_fill_channels(values, fill), tiles * high + halo_w, 1, fill))
    grid = (batch, frames, rows, tiles, channels // wide)

    def body(x_ref: Any, top_ref: Any, a_ref: Any, b_ref: Any, out_ref: Any) -> None:
        n, t, h, w, c = _unravel(lax.axis_index("block"), grid)
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

    x = _rows_of(x, tiles * high, stride_w, -jnp.inf)
    (gradient,) = _launch(body, [jax.ShapeDtypeStruct(x.shape, x.dtype)], math.prod(grid), interpret)(x, *seen)
    gradient = gradient.reshape(batch, frames, rows, -1, channels)[:, :, :, :width, :num_channels]
    return windows.unpad(gradient).reshape(batch, *given.sizes, num_channels)


def _as_3d(x: Array, windows: Windows) -> Array:
    return x.reshape(x.shape[0], *windows.sizes, x.shape[-1])


def _fill_channels(x: Array, fill: float) -> Array:
    """Pads the channels to a multiple of ``MIN_CHANNELS``."""
    return jnp.pad(x, [(0, 0)] * 4 + [(0, -x.shape[-1] % MIN_CHANNELS)], constant_values=fill)


def _rows_of(x: Array, groups: int, stride: int, fill: float) -> Array:
    """``[N T H W C]`` as ``[N * T * H, groups, stride * C]``, padded along W (or cropped) to so many groups."""
    config = [(0, 0, 0)] * 3 + [(0, groups * stride - x.shape[3], 0), (0, 0, 0)]
    x = lax.pad(x, jnp.array(fill, x.dtype), config)
    return x.reshape(-1, groups, stride * x.shape[-1])


def _unravel(index: Any, grid: tuple[int, ...]) -> list[Any]:
    """Place of a block in the grid; CUDA bounds all axes of a grid but the first, so that one holds everything."""
    place = []
    for size in reversed(grid):
        place.append(lax.rem(index, size))
        index = lax.div(index, size)
    return place[::-1]


class _Access:
    """Reads and writes tiles of ``[rows, columns, channels]`` arrays in global memory."""

    def __init__(self, tile: Tile, channels: int, dtype: Any) -> None:
        if dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
            raise ValueError(f"the GPU kernel of softpool needs float32, bfloat16 or float16, received {dtype}.")
        self.tile = tile
        self.layout = plgpu.Layout.WG_STRIDED(tile, vec_size=check_tile(tile, channels))

    def load(self, ref: Any, row: Any, column: Any, channel: Any) -> Array:
        part = ref.at[self._index(row, column, channel)]
        nothing = ((),) if jax.__version_info__ < (0, 11) else ()  # the further index that jax 0.10 wants
        return plgpu.load(part, *nothing, layout=self.layout, optimized=False).astype(jnp.float32)

    def store(self, ref: Any, row: Any, column: Any, channel: Any, value: Array) -> None:
        ref[self._index(row, column, channel)] = value.astype(ref.dtype)

    def _index(self, row: Any, column: Any, channel: Any) -> tuple[Any, ...]:
        return row, pl.ds(column, self.tile[0]), pl.ds(channel, self.tile[1])


def _launch(
    body: Callable[..., None], out: list[jax.ShapeDtypeStruct], blocks: int, interpret: Any
) -> Callable[..., Any]:
    return plgpu.kernel(
        body,
        out_type=out,
        grid=(blocks,),
        grid_names=("block",),
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
        interpret=interpret,
    )


FORM = form()
