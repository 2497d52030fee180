"""Depthwise 3-D convolution's GPU kernels (Pallas on Mosaic GPU, by ``plgpu.kernel``): a block marches through time.

A block is one warpgroup of 128 threads and has a tile of columns x channels in registers, with the kernel's taps for
it. It loads every tap in space once per input frame and adds it to the sums of all outputs that see this frame, of
which the oldest is then complete. The gradient of the kernel marches in the same way with one sum per tap, over some
rows of one clip; XLA adds up what the blocks found. Loads are contiguous rectangles of the polyphase view
``[rows, groups, stride * C]`` in global memory, what overlaps comes from the cache: no shared memory is used.

Lowering is tested for CUDA and the numbers in Mosaic GPU's interpret mode; no GPU was at hand to time it.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import jax
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from jaxvid.ops.depthwise_form import Form, Geometry
from jaxvid.ops.gpu_tiles import THREADS, Access, Tile, choose_tile, fill_channels, launch, rows_of, unravel

MAX_REGISTERS = 128
"""Of the 255 of a thread, how many may hold taps or their sums."""
PARTIAL_SHARE = 8
"""A block of the kernel's gradient reads this many times more than it writes, if there are rows enough."""


def form(*, tile: Tile | None = None, interpret: Any = None) -> Form:
    """The kernels as a :class:`Form`.

    Args:
        tile: ``(columns, channels)`` of a block; ``None`` chooses one.
        interpret: What ``plgpu.kernel`` takes to simulate a GPU on a CPU, very slowly, as tests do.
    """
    return Form(
        functools.partial(_run_convolve, tile=tile, interpret=interpret),
        functools.partial(_run_of_kernel, tile=tile, interpret=interpret),
        divisible=False,
    )


def rows_of_block(geometry: Geometry, tiles: int) -> int:
    """How many rows of the output a block of the kernel's gradient sums over: a divisor of all of them.

    >>> rows_of_block(Geometry((16, 28, 28), (3, 3, 3), (1, 1, 1), ((1, 1),) * 3), tiles=7)
    2
    """
    frames, rows, _ = geometry.outs
    wanted = geometry.num_taps * PARTIAL_SHARE / (frames * tiles)
    return next(count for count in range(1, rows + 1) if rows % count == 0 and (count >= wanted or count == rows))


def _tiling(x: Array, geometry: Geometry, tile: Tile | None) -> tuple[Array, Tile, Access]:
    """The input ``[N T H W C]`` with its padding, the tile, and how tiles are loaded and stored."""
    x = fill_channels(geometry.pad(x, 0), 0)
    high, wide = tile or choose_tile(geometry.outs[2], x.shape[-1])
    access = Access((high, wide), x.shape[-1], x.dtype, "conv3d")
    registers = geometry.num_taps * high * wide // THREADS
    if registers > MAX_REGISTERS:
        raise ValueError(
            f"a tile's taps must fit into {MAX_REGISTERS} registers of each of {THREADS} threads, received "
            f"tile={(high, wide)} for a kernel of {geometry.window}, which needs {registers}."
        )
    return x, (high, wide), access


def _run_convolve(x: Array, kernel: Array, geometry: Geometry, *, tile: Tile | None, interpret: Any) -> Array:
    batch, num_channels = x.shape[0], x.shape[-1]
    x, (high, wide), access = _tiling(x, geometry, tile)
    channels = x.shape[-1]
    out_frames, out_rows, columns = geometry.outs
    tiles = math.ceil(columns / high)
    halo = geometry.halo[0]
    taps_in_time, stride = geometry.window[0], geometry.strides[0]
    # A register tile cannot be spread over columns, so the taps are in memory for each column of a tile.
    weights = fill_channels(kernel.astype(jnp.float32), 0).reshape(-1, 1, channels)
    weights = jnp.broadcast_to(weights, (weights.shape[0], high, channels))
    grid = (batch, out_rows, tiles, channels // wide)
    of_tap = _Tap(access, x, geometry)

    def body(x_ref: Any, kernel_ref: Any, y_ref: Any) -> None:
        n, h, w, c = unravel(lax.axis_index("block"), grid)
        loaded = {tap: access.load(kernel_ref, k, 0, c * wide) for k, tap in enumerate(geometry.taps)}

        def group(g: Array, pending: tuple[Array, ...]) -> tuple[Array, ...]:
            """Adds ``stride`` frames to the outputs ``g``, ``g - 1``, ...; the last of them is complete then."""
            sums = [_zeros(access), *pending]
            for phase, tap in of_tap.of_group:
                values = of_tap.load(x_ref, n, g, phase, h, w, c, tap)
                for age in range(halo + 1):
                    i = age * stride + phase
                    if i < taps_in_time:
                        sums[age] += values * loaded[i, *tap]
            *younger, complete = sums

            @pl.when(g >= halo)
            def _() -> None:
                access.store(y_ref, (n * out_frames + g - halo) * out_rows + h, w * high, c * wide, complete)

            return tuple(younger)

        lax.fori_loop(0, out_frames + halo, group, (_zeros(access),) * halo)

    out = jax.ShapeDtypeStruct((batch * out_frames * out_rows, tiles * high, channels), x.dtype)
    (y,) = launch(body, [out], math.prod(grid), interpret)(
        rows_of(x, tiles * high + geometry.halo[2], geometry.strides[2], 0), weights
    )
    return y[:, :columns, :num_channels].reshape(batch, *geometry.outs, num_channels)


def _run_of_kernel(x: Array, g: Array, geometry: Geometry, *, tile: Tile | None, interpret: Any) -> Array:
    batch, num_channels = x.shape[0], x.shape[-1]
    x, (high, wide), access = _tiling(x, geometry, tile)
    channels = x.shape[-1]
    out_frames, out_rows, columns = geometry.outs
    tiles = math.ceil(columns / high)
    halo = geometry.halo[0]
    taps = list(geometry.taps)
    stride = geometry.strides[0]
    # The last groups of frames meet no new output, and the last tile's columns none at all: zeros.
    g = rows_of(fill_channels(jnp.pad(g, ((0, 0), (0, halo), (0, 0), (0, 0), (0, 0))), 0), tiles * high, 1, 0)
    rows = rows_of_block(geometry, tiles)
    grid = (batch * (out_rows // rows), channels // wide)
    of_tap = _Tap(access, x, geometry)

    def body(x_ref: Any, g_ref: Any, sums_ref: Any) -> None:
        block, c = unravel(lax.axis_index("block"), grid)
        n, first_row = lax.div(block, out_rows // rows), lax.rem(block, out_rows // rows) * rows

        def march(k: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            h, w = first_row + lax.div(k, tiles), lax.rem(k, tiles)

            def group(t: Array, carry: tuple[tuple[Array, ...], tuple[Array, ...]]) -> Any:
                """Adds the products of ``stride`` frames with the outputs ``t``, ``t - 1``, ..."""
                sums, earlier = dict(zip(taps, carry[0], strict=True)), carry[1]
                row = (n * (out_frames + halo) + t) * out_rows + h
                outputs = (access.load(g_ref, row, w * high, c * wide), *earlier)
                for phase, tap in of_tap.of_group:
                    values = of_tap.load(x_ref, n, t, phase, h, w, c, tap)
                    for age in range(halo + 1):
                        key = (age * stride + phase, *tap)
                        if key in sums:
                            sums[key] += values * outputs[age]
                return tuple(sums.values()), outputs[:halo]

            return lax.fori_loop(0, out_frames + halo, group, (sums, (_zeros(access),) * halo))[0]

        sums = lax.fori_loop(0, rows * tiles, march, (_zeros(access),) * len(taps))
        for k, total in enumerate(sums):
            access.store(sums_ref, block * len(taps) + k, 0, c * wide, total)

    out = jax.ShapeDtypeStruct((grid[0] * len(taps), high, channels), jnp.float32)
    rows_of_x = rows_of(x, tiles * high + geometry.halo[2], geometry.strides[2], 0)
    (sums,) = launch(body, [out], math.prod(grid), interpret)(rows_of_x, g)
    sums = sums.reshape(grid[0], len(taps), high, channels).sum((0, 2))
    return sums[:, :num_channels].reshape(*geometry.window, 1, num_channels)


FORM = form()


class _Tap:
    """Loads what taps see of the padded input ``[N T H W C]``."""

    def __init__(self, access: Access, x: Array, geometry: Geometry) -> None:
        _, self.frames, self.rows, _, self.channels = x.shape
        self.access, self.strides = access, geometry.strides
        # Phases of a group of frames that some tap falls on, with the taps in space.
        phases = range(min(geometry.strides[0], geometry.window[0]))
        in_space = itertools.product(*map(range, geometry.window[1:]))
        self.of_group = list(itertools.product(phases, in_space))

    def load(
        self, ref: Any, n: Array, group: Array, phase: int, h: Array, w: Array, c: Array, tap: tuple[int, ...]
    ) -> Array:
        high, wide = self.access.tile
        stride_t, stride_h, stride = self.strides
        row = (n * self.frames + group * stride_t + phase) * self.rows + h * stride_h + tap[0]
        return self.access.load(ref, row, w * high + tap[1] // stride, tap[1] % stride * self.channels + c * wide)


def _zeros(access: Access) -> Array:
    """Zeros that a loop can carry: in the layout of what is added to them."""
    return plgpu.layout_cast(jnp.zeros(access.tile, jnp.float32), access.layout)
