"""Depthwise 3-D convolution's TPU kernels (Pallas on Mosaic): a tile of output frames and rows a program.

A program has in VMEM the frames and rows that its tile's taps see, whole in W, of up to 128 channels: tiles overlap by
the kernel's reach, so the input is read little more than once. Channels lie in the lanes and columns in the sublanes.
XLA separates the phases of the stride in W while it pads, so that every tap is a contiguous load; what is not float32
is converted once in VMEM, because only 32-bit numbers can be loaded from any sublane. The gradient of the kernel walks
over the same tiles in order and adds to one ``[taps, channels]`` block per clip, of which XLA adds up the batch.

Lowering is tested for TPU and the numbers in interpret mode; no TPU was at hand to time it, nor to see it compiled.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxvid.ops.depthwise_form import Form, Geometry
from jaxvid.ops.tpu_memory import LANES, SPILL_BYTES, VMEM_BYTES, vmem_bytes

TILE_BYTES = 12 * 2**20
"""What the tile that is chosen may take: some of the VMEM of every TPU."""
MAX_FRAMES = 8

Tile = tuple[int, int, int]


def form(*, tile: Tile | None = None, interpret: bool = False) -> Form:
    """The kernels as a :class:`Form`.

    Args:
        tile: Frames, rows and channels of the output that one program makes; channels are all, or a multiple of 128.
            ``None`` chooses one.
        interpret: Whether to run them as plain JAX on any backend, slowly, as tests do.
    """
    return Form(
        functools.partial(_run_convolve, tile=tile, interpret=interpret),
        functools.partial(_run_of_kernel, tile=tile, interpret=interpret),
        divisible=False,
    )


def needed_bytes(tile: Tile, geometry: Geometry, dtype: Any) -> int:
    """Bytes of VMEM that a tile takes: its input, in float32 as well, its output or cotangent, and the kernel."""
    frames, rows, channels = tile
    size = jnp.dtype(dtype).itemsize
    seen_frames, seen_rows = _seen(tile, geometry)
    planes = seen_frames * seen_rows * geometry.strides[2]
    total = vmem_bytes(
        [(planes, geometry.groups[2], channels, size), (frames * rows, geometry.outs[2], channels, size)]
    )
    total += vmem_bytes([(1, geometry.num_taps, channels, 4)])
    if size != 4:
        total += vmem_bytes([(planes, geometry.groups[2], channels, 4)]) // 2  # not double-buffered
    return total


def choose_tile(geometry: Geometry, num_channels: int, dtype: Any) -> Tile:
    """Up to 8 frames, halved, along the axis that costs fewer loads, until the tile takes at most ``TILE_BYTES``.

    >>> choose_tile(Geometry((16, 56, 56), (3, 3, 3), (1, 1, 1), ((1, 1),) * 3), 54, jnp.float32)
    (8, 7, 54)
    """
    channels = min(num_channels, LANES)
    tile = (min(geometry.outs[0], MAX_FRAMES), geometry.outs[1], channels)
    while tile[:2] != (1, 1) and needed_bytes(tile, geometry, dtype) > TILE_BYTES:
        frames, rows, _ = tile
        halves = {(math.ceil(frames / 2), rows, channels), (frames, math.ceil(rows / 2), channels)} - {tile}
        tile = min(sorted(halves), key=lambda half: math.prod(_seen(half, geometry)) / math.prod(half[:2]))
    return tile


def _check(x: Array, geometry: Geometry, tile: Tile | None) -> Tile:
    """Raises on what Mosaic refuses or could not place in VMEM; returns the tile."""
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"the TPU kernel of conv3d needs float32 or bfloat16, received {x.dtype}.")
    num_channels = x.shape[-1]
    tile = tile or choose_tile(geometry, num_channels, x.dtype)
    if min(tile) < 1 or (tile[2] != num_channels and tile[2] % LANES):
        raise ValueError(
            f"a tile must have frames, rows and channels >= 1, and all {num_channels} channels or a multiple of "
            f"{LANES}, received tile={tile}."
        )
    needed = needed_bytes(tile, geometry, x.dtype)
    if needed > VMEM_BYTES:
        raise ValueError(
            f"the TPU kernel of conv3d holds a tile in VMEM: {tile[0]} frames of {tile[1]} rows of "
            f"{geometry.outs[2]} columns and {tile[2]} channels under a kernel of {geometry.window} "
            f"need {needed} bytes of the {VMEM_BYTES} there are."
        )
    return tile


def _seen(tile: Tile, geometry: Geometry) -> tuple[int, int]:
    """Frames and rows of the input that a tile's taps see, and what lies between them."""
    axes = zip(tile[:2], geometry.strides, geometry.window, strict=False)
    frames, rows = ((count - 1) * stride + taps for count, stride, taps in axes)
    return frames, rows


def _run_convolve(x: Array, kernel: Array, geometry: Geometry, *, tile: Tile | None, interpret: bool) -> Array:
    tile = _check(x, geometry, tile)
    frames, rows, channels = tile
    outs = geometry.outs
    spread, x_spec, scratch = _spread(x, geometry, tile)
    weights = kernel.reshape(-1, x.shape[-1]).astype(jnp.float32)
    return pl.pallas_call(
        functools.partial(_convolve_kernel, geometry=geometry),
        grid=(x.shape[0], *_tiles(x, geometry, tile)),
        in_specs=[x_spec, pl.BlockSpec((geometry.num_taps, channels), lambda n, c, t, h: (0, c))],
        out_specs=pl.BlockSpec((None, frames, rows, outs[2], channels), lambda n, c, t, h: (n, t, h, 0, c)),
        out_shape=jax.ShapeDtypeStruct((x.shape[0], *outs, x.shape[-1]), x.dtype),
        scratch_shapes=scratch,
        compiler_params=_params(x, geometry, tile, ("parallel",) * 4),
        interpret=interpret,
    )(spread, weights)


def _run_of_kernel(x: Array, g: Array, geometry: Geometry, *, tile: Tile | None, interpret: bool) -> Array:
    tile = _check(x, geometry, tile)
    frames, rows, channels = tile
    spread, x_spec, scratch = _spread(x, geometry, tile)
    blocks, *tiles = _tiles(x, geometry, tile)
    # Whatever lies beyond the last output is multiplied with zeros.
    sides = [(0, count * size - out) for count, size, out in zip(tiles, tile, geometry.outs, strict=False)]
    g = jnp.pad(g, [(0, 0), *sides, (0, 0), (0, spread.shape[-1] - x.shape[-1])])
    sums = pl.pallas_call(
        functools.partial(_of_kernel_kernel, geometry=geometry),
        grid=(x.shape[0], blocks, *tiles),
        in_specs=[
            x_spec,
            pl.BlockSpec((None, frames, rows, geometry.outs[2], channels), lambda n, c, t, h: (n, t, h, 0, c)),
        ],
        out_specs=pl.BlockSpec((None, geometry.num_taps, channels), lambda n, c, t, h: (n, 0, c)),
        out_shape=jax.ShapeDtypeStruct((x.shape[0], geometry.num_taps, spread.shape[-1]), jnp.float32),
        scratch_shapes=scratch,
        compiler_params=_params(x, geometry, tile, ("parallel", "parallel", "arbitrary", "arbitrary")),
        interpret=interpret,
    )(spread, g)
    return sums.sum(0)[:, : x.shape[-1]].reshape(*geometry.window, 1, -1)


FORM = form()


def _tiles(x: Array, geometry: Geometry, tile: Tile) -> tuple[int, int, int]:
    """Blocks of channels, of frames and of rows."""
    frames, rows, channels = tile
    return pl.cdiv(x.shape[-1], channels), pl.cdiv(geometry.outs[0], frames), pl.cdiv(geometry.outs[1], rows)


def _params(x: Array, geometry: Geometry, tile: Tile, semantics: tuple[str, ...]) -> Any:
    limit = needed_bytes(tile, geometry, x.dtype) + SPILL_BYTES
    return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=limit)  # type: ignore[arg-type]


def _spread(x: Array, geometry: Geometry, tile: Tile) -> tuple[Array, pl.BlockSpec, list[Any]]:
    """The input as ``[N T H phases groups C]``, padded to whole tiles; a program's part of it; room for a copy."""
    frames, rows, channels = tile
    blocks, *tiles = _tiles(x, geometry, tile)
    stride_t, stride_h, stride = geometry.strides
    seen = _seen(tile, geometry)
    groups = geometry.groups[2]
    steps = (frames * stride_t, rows * stride_h)
    extents = [(count - 1) * step + size for count, step, size in zip(tiles, steps, seen, strict=True)]
    axes = zip(x.shape[1:4], geometry.pads, (*extents, groups * stride), strict=True)
    sides = [(low, extent - size - low, 0) for size, (low, _), extent in axes]
    config = [(0, 0, 0), *sides, (0, blocks * channels - x.shape[-1], 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    dtype = x.dtype
    x = x.reshape(*x.shape[:3], groups, stride, -1).swapaxes(3, 4)
    size = (*seen, stride, groups, channels)
    spec = pl.BlockSpec(
        (None, *map(pl.Element, size)), lambda n, c, t, h: (n, t * steps[0], h * steps[1], 0, 0, c * channels)
    )
    return x, spec, [] if dtype == jnp.float32 else [pltpu.VMEM(size, jnp.float32)]


def _in_float32(x_ref: Any, scratch: tuple[Any, ...]) -> Any:
    """The tile's input, or its copy, converted row by row."""
    if not scratch:
        return x_ref
    (copy,) = scratch
    rows = copy.shape[1]

    def convert(k: Array, _: None) -> None:
        at = (pl.ds(lax.div(k, rows), 1), pl.ds(lax.rem(k, rows), 1))
        copy[at] = x_ref[at].astype(jnp.float32)

    lax.fori_loop(0, copy.shape[0] * rows, convert, None)
    return copy


def _row(x_ref: Any, t: Array, h: Array, tap: tuple[int, ...], geometry: Geometry) -> Array:
    """What a tap sees for one row of the output: ``[columns, channels]``."""
    i, j, k = tap
    stride_t, stride_h, stride = geometry.strides
    return x_ref[t * stride_t + i, h * stride_h + j, k % stride, pl.ds(k // stride, geometry.outs[2]), :]


def _convolve_kernel(x_ref: Any, kernel_ref: Any, y_ref: Any, *scratch: Any, geometry: Geometry) -> None:
    x_ref = _in_float32(x_ref, scratch)
    rows = y_ref.shape[1]

    def row(k: Array, _: None) -> None:
        t, h = lax.div(k, rows), lax.rem(k, rows)
        total = jnp.zeros(y_ref.shape[2:], jnp.float32)
        for index, tap in enumerate(geometry.taps):
            total += _row(x_ref, t, h, tap, geometry) * kernel_ref[index : index + 1]
        y_ref[t, h] = total.astype(y_ref.dtype)

    lax.fori_loop(0, y_ref.shape[0] * rows, row, None)


def _of_kernel_kernel(x_ref: Any, g_ref: Any, sums_ref: Any, *scratch: Any, geometry: Geometry) -> None:
    x_ref = _in_float32(x_ref, scratch)
    rows, columns = g_ref.shape[1], geometry.window[2]
    taps = list(geometry.taps)

    @pl.when((pl.program_id(2) == 0) & (pl.program_id(3) == 0))
    def _() -> None:
        sums_ref[...] = jnp.zeros(sums_ref.shape, jnp.float32)

    for first in range(0, len(taps), columns):  # the taps of one row of the kernel share what they load of g

        def add_row(k: Array, sums: tuple[Array, ...], first: int = first) -> tuple[Array, ...]:
            t, h = lax.div(k, rows), lax.rem(k, rows)
            of_row = g_ref[t, h].astype(jnp.float32)
            seen = (_row(x_ref, t, h, tap, geometry) for tap in taps[first : first + columns])
            return tuple(total + values * of_row for total, values in zip(sums, seen, strict=True))

        start = (jnp.zeros(g_ref.shape[2:], jnp.float32),) * columns
        sums = lax.fori_loop(0, g_ref.shape[0] * rows, add_row, start)
        for index, total in enumerate(sums, start=first):
            sums_ref[index : index + 1] += total.sum(0, keepdims=True)
