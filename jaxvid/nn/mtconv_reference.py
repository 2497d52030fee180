"""The multi-temporal convolution (MTConv) of the authors' public code, which is not that of the thesis.

:mod:`jaxvid.nn.mtconv` has the thesis'. Here two streams of activations, ``short`` (local) and ``long`` (prolonged), go
side by side through the whole network, and the long one keeps its own, lower resolution. Parameters and statistics have
the code's names, so that its checkpoints fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn

from jaxvid.nn.convolution import Conv3D
from jaxvid.nn.mtconv import size_of
from jaxvid.nn.normalization import BatchNorm
from jaxvid.ops.choices import require_choice
from jaxvid.ops.pooling import avg_pool3d
from jaxvid.ops.resize import resize_trilinear
from jaxvid.ops.selection import select_frames

if TYPE_CHECKING:
    from jaxtyping import Array

    from jaxvid.types import Size3

    Streams = tuple[Array, Array]
    """``short [N T H W C]`` and ``long [N t h w c]``."""

REFERENCE_POOLS = ("avg", "soft")
"""How the lateral path reduces space; the code's ``soft`` reduces nothing."""


def split_streams(channels: int, delta: float) -> tuple[int, int]:
    """The channels of the short stream, ``floor(delta * channels)``, and of the long one, which has the others.

    >>> split_streams(64, 0.875), split_streams(10, 0.75)
    ((56, 8), (7, 3))
    """
    short = int(channels * delta)
    return short, channels - short


def split_groups(groups: int, delta: float) -> tuple[int, int]:
    """The groups of the short stream's convolution and of the long one's, at least 1 each.

    >>> split_groups(8, 0.875), split_groups(1, 0.875), split_groups(4, 0.1)
    ((7, 1), (1, 1), (1, 3))
    """
    short = max(1, math.floor(groups * delta))
    return short, max(1, groups - short)


def pool_pairs(x: Array) -> Array:
    """The mean of 2x2 positions of every frame; an axis of a single row or column stays, where the code fails."""
    return avg_pool3d(x, (1, min(2, x.shape[2]), min(2, x.shape[3])))


def select_half(x: Array) -> Array:
    """The half of the frames that resembles its neighbours most; two frames, or one, are all kept."""
    return select_frames(x, select="largest_squared") if x.shape[1] > 2 else x


class MTConvReference(nn.Module):
    """One MTConv of the public code, on two streams.

    ``short' = norm_short(conv_short(short))`` and ``long' = norm_long(conv_long(long)) + norm_long(lateral)``, where
    ``lateral`` is ``conv_short(short)``, averaged over 2x2 positions, the half of its frames that resembles its
    neighbours most, resized to the long stream, and convolved 1x1x1 to its channels. There is no ReLU inside.

    ``norm_long`` is one module that is used twice: in training its statistics move twice, for the long stream first.
    With one group the norms are BatchNorm; with more they are GroupNorm, of as many groups as the stream's convolution.

    Note:
        The thesis selects the frames that resemble their neighbours *least*, pools with SoftPool, has a ReLU on
        both terms and brings the sum back to the resolution of the local branch.

    Attributes:
        features: Output channels of both streams together.
        kernel_size: ``(T, H, W)``, of both streams.
        strides: ``(T, H, W)``, of both streams.
        padding: ``(T, H, W)``.
        delta: Share of the output channels that the short stream has, see :func:`split_streams`; the streams have the
            input channels that they come with.
        groups: Divided between the streams by :func:`split_groups`.
        lateral: Whether the short stream is added to the long one.
        pool: One of :data:`REFERENCE_POOLS`.
        conv: Makes a convolution.
        norm: Makes a BatchNorm.
    """

    features: int
    kernel_size: Size3
    strides: Size3 = (1, 1, 1)
    padding: Size3 = (0, 0, 0)
    delta: float = 0.5
    groups: int = 1
    lateral: bool = True
    pool: str = "avg"
    conv: Callable[..., Any] = Conv3D
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: Streams, train: bool) -> Streams:
        """Convolves both streams.

        Args:
            x: ``short`` and ``long``.
            train: Chooses batch statistics.

        Returns:
            ``short`` and ``long``, each at its own resolution.

        Raises:
            ValueError: ``pool`` is unknown, a stream would have no channels, or the channels do not fit the groups.
        """
        require_choice("pool", self.pool, REFERENCE_POOLS)
        features, groups = split_streams(self.features, self.delta), split_groups(self.groups, self.delta)
        if min(features) < 1:
            raise ValueError(
                f"delta must leave each stream at least one channel, received delta={self.delta}, "
                f"features={self.features}."
            )
        short, long = (
            self.conv(wide, self.kernel_size, self.strides, self.padding, groups=count, name=f"conv_{name}")(stream)
            for wide, count, name, stream in zip(features, groups, ("short", "long"), x, strict=True)
        )
        norm_long = self._norm(groups[1], "norm_long", train)
        across = self._lateral(short, long) if self.lateral else None
        long = norm_long(long)
        if across is not None:
            long = long + norm_long(across)
        return self._norm(groups[0], "norm_short", train)(short), long

    def _lateral(self, short: Array, long: Array) -> Array:
        pooled = pool_pairs(short) if self.pool == "avg" else short
        resized = resize_trilinear(select_half(pooled), size_of(long))
        return self.conv(long.shape[-1], (1, 1, 1), (1, 1, 1), (0, 0, 0), name="conv_short2long")(resized)

    def _norm(self, groups: int, name: str, train: bool) -> Callable[[Array], Array]:
        if self.groups == 1:
            batch_norm = self.norm(name=name)
            return lambda x: batch_norm(x, not train)
        # The sum of squares minus the squared sum, Flax's default, loses digits where the mean is large.
        group_norm = nn.GroupNorm(groups, epsilon=1e-5, use_fast_variance=False, name=name)
        return lambda x: group_norm(x).astype(x.dtype)
