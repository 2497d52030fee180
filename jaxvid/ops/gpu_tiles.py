"""Tiles of columns x channels that the GPU kernels (Pallas on Mosaic GPU) keep in the registers of one warpgroup."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

THREADS = 128
MIN_CHANNELS = 8
"""Channels are padded to a multiple of this, or tiles would be one channel wide."""
MAX_PER_THREAD = 8
"""Numbers of a tile per thread; a window's taps are all in registers at once."""

Tile = tuple[int, int]


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


def fill_channels(x: Array, fill: float) -> Array:
    """Pads the channels to a multiple of ``MIN_CHANNELS``."""
    return jnp.pad(x, [(0, 0)] * 4 + [(0, -x.shape[-1] % MIN_CHANNELS)], constant_values=fill)


def rows_of(x: Array, groups: int, stride: int, fill: float) -> Array:
    """``[N T H W C]`` as ``[N * T * H, groups, stride * C]``, padded along W (or cropped) to so many groups."""
    config = [(0, 0, 0)] * 3 + [(0, groups * stride - x.shape[3], 0), (0, 0, 0)]
    x = lax.pad(x, jnp.array(fill, x.dtype), config)
    return x.reshape(-1, groups, stride * x.shape[-1])


def unravel(index: Any, grid: tuple[int, ...]) -> list[Any]:
    """Place of a block in the grid; CUDA bounds all axes of a grid but the first, so that one holds everything."""
    place = []
    for size in reversed(grid):
        place.append(lax.rem(index, size))
        index = lax.div(index, size)
    return place[::-1]


class Access:
    """Reads and writes tiles of ``[rows, columns, channels]`` arrays in global memory.

    Raises:
        ValueError: A dtype that the kernel ``name`` does not have, or a tile that a warpgroup cannot hold.
    """

    def __init__(self, tile: Tile, channels: int, dtype: Any, name: str) -> None:
        if dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
            raise ValueError(f"the GPU kernel of {name} needs float32, bfloat16 or float16, received {dtype}.")
        self.tile = tile
        self.layout = plgpu.Layout.WG_STRIDED(tile, vec_size=check_tile(tile, channels))

    def load(self, ref: Any, row: Any, column: Any, channel: Any) -> Array:
        """A tile in float32, of global memory."""
        part = ref.at[self._index(row, column, channel)]
        nothing = ((),) if jax.__version_info__ < (0, 11) else ()  # the further index that jax 0.10 wants
        return plgpu.load(part, *nothing, layout=self.layout, optimized=False).astype(jnp.float32)

    def store(self, ref: Any, row: Any, column: Any, channel: Any, value: Array) -> None:
        """Writes a tile in the dtype of the array."""
        ref[self._index(row, column, channel)] = value.astype(ref.dtype)

    def _index(self, row: Any, column: Any, channel: Any) -> tuple[Any, ...]:
        return row, pl.ds(column, self.tile[0]), pl.ds(channel, self.tile[1])


def launch(
    body: Callable[..., None], out: list[jax.ShapeDtypeStruct], blocks: int, interpret: Any
) -> Callable[..., Any]:
    """``body`` as a function of its input arrays: so many blocks of one warpgroup each."""
    return plgpu.kernel(
        body,
        out_type=out,
        grid=(blocks,),
        grid_names=("block",),
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
        interpret=interpret,
    )
