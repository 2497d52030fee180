"""The multi-temporal convolution (MTConv; Stergiou & Poppe 2021; Stergiou, thesis 2022, section 5.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from jaxvid.nn.convolution import Conv3D
from jaxvid.nn.normalization import BatchNorm
from jaxvid.ops.choices import require_choice
from jaxvid.ops.pooling import avg_pool3d, max_pool3d, stochastic_pool3d
from jaxvid.ops.resize import resize_trilinear
from jaxvid.ops.selection import select_frames
from jaxvid.ops.soft_pooling import softpool

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

_POOLS: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {"avg": avg_pool3d, "max": max_pool3d, "soft": softpool, "stochastic": stochastic_pool3d}
)
PROLONGED_POOLS = tuple(_POOLS)
"""How the prolonged branch reduces space."""

SELECTIONS = ("lowest", "none")
"""How the prolonged branch reduces time; ``none`` pools it together with space."""


def split_channels(channels: int, delta: float) -> tuple[int, int]:
    """The channels of the local and of the prolonged branch, ``floor(delta C)`` and the others (equation 5.1).

    Of the 54 channels of the thesis' example (table 6.1) 47 are local at ``delta = 7/8``:

    >>> split_channels(54, 7 / 8), split_channels(100, 0.29), split_channels(24, 1.0)
    ((47, 7), (29, 71), (24, 0))
    """
    local = math.floor(round(channels * delta, 9))  # 100 * 0.29 is a little less than 29
    return local, channels - local


def size_of(x: Array) -> Size3:
    """Frames, rows and columns."""
    _, t, h, w, _ = x.shape
    return t, h, w


class MTConv(nn.Module):
    """A multi-temporal convolution: one part of the channels at full resolution, the other at half of it.

    With the input ``x`` divided into ``x_L`` and ``x_P`` and ``P`` the reduction of the prolonged branch,

    * local: ``a_L = relu(norm_local(local(x_L)))``;
    * prolonged: ``a_P = I(relu(norm_prolonged(prolonged(P(x_P)))) + relu(norm_lateral(lateral(P(a_L)))))``
      (equations 5.3 and 5.4), where ``lateral`` is 1x1x1 and ``I`` resizes trilinearly to the frames, rows and columns
      of ``a_L``;
    * the result is ``a_L`` and ``a_P`` side by side as channels (equation 5.2).

    ``P`` pools 2x2 positions of every frame (equation 5.5 is SoftPool) and keeps the half of the frames that resemble
    their neighbours least (equations 5.6 and 5.7), so that the prolonged branch costs 1/8 per channel and tap. An axis
    that is too short to be halved stays as it is, and so do two frames.

    Note:
        The text lets both branches see all channels of the input; its parameters (table 5.6, a parabola in ``delta``
        that is least at 1/2) and its example (54 channels: 47 and 7, and 47 to 7) say that each sees its own, and so it
        is here and in the authors' code. An odd length under a stride may leave the two terms of the sum one position
        apart; then the lateral one is resized to the other, as their code does.

    Attributes:
        features: Output channels of both branches together.
        kernel_size: ``(T, H, W)``, odd numbers; the input is padded by half of it.
        strides: ``(T, H, W)``, of both branches' convolutions.
        delta: Share of the channels, of input and output, that the local branch has, in (0, 1]; 1 leaves the prolonged
            branch out.
        groups: Of both branches' convolutions; ``None`` is one per channel (channel-separated, depthwise).
        pool: One of :data:`PROLONGED_POOLS`. ``stochastic`` draws in training, from the rng ``pool``, and takes the
            expectation in evaluation.
        selection: One of :data:`SELECTIONS`.
        conv: Makes a convolution.
        grouped: Makes the two convolutions of ``kernel_size``, which may be depthwise; ``None`` is ``conv``.
        norm: Makes a normalisation.
    """

    features: int
    kernel_size: Size3
    strides: Size3 = (1, 1, 1)
    delta: float = 0.875
    groups: int | None = 1
    pool: str = "soft"
    selection: str = "lowest"
    conv: Callable[..., Any] = Conv3D
    grouped: Callable[..., Any] | None = None
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Convolves ``x``.

        Args:
            x: Activations; ``stochastic`` takes negative ones for 0.
            train: Chooses batch statistics, and the draw of stochastic pooling.

        Raises:
            ValueError: An attribute has a value that does not exist, or a branch would see or give no channels.
        """
        inputs, features = self._split(x.shape[-1])
        local = self._branch(x[..., : inputs[0]], features[0], "local", train)
        if not features[1]:
            return local
        prolonged = self._branch(self._reduce(x[..., inputs[0] :], train), features[1], "prolonged", train)
        lateral = resize_trilinear(self._reduce(local, train), size_of(prolonged))
        lateral = self.conv(features[1], (1, 1, 1), (1, 1, 1), (0, 0, 0), name="lateral")(lateral)
        prolonged = prolonged + nn.relu(self.norm(name="norm_lateral")(lateral, not train))
        return jnp.concatenate([local, resize_trilinear(prolonged, size_of(local))], axis=-1)

    def _branch(self, x: Array, features: int, name: str, train: bool) -> Array:
        padding = tuple(length // 2 for length in self.kernel_size)
        groups = x.shape[-1] if self.groups is None else self.groups
        make = self.grouped or self.conv
        x = make(features, self.kernel_size, self.strides, padding, groups=groups, name=name)(x)
        return nn.relu(self.norm(name=f"norm_{name}")(x, not train))

    def _reduce(self, x: Array, train: bool) -> Array:
        t, h, w = size_of(x)
        window = 1 if self.selection == "lowest" else min(2, t), min(2, h), min(2, w)
        if self.pool == "stochastic":
            x = stochastic_pool3d(x, window, key=self.make_rng("pool") if train else None)
        else:
            x = _POOLS[self.pool](x, window)
        return select_frames(x) if self.selection == "lowest" and x.shape[1] > 2 else x

    def _split(self, channels: int) -> tuple[tuple[int, int], tuple[int, int]]:
        require_choice("pool", self.pool, PROLONGED_POOLS)
        require_choice("selection", self.selection, SELECTIONS)
        inputs, features = split_channels(channels, self.delta), split_channels(self.features, self.delta)
        if not 0 < self.delta <= 1 or not (inputs[0] and features[0]) or bool(inputs[1]) != bool(features[1]):
            raise ValueError(
                f"delta must be in (0, 1] and give each branch channels of the input and of the output, received "
                f"delta={self.delta}, which splits {channels} into {inputs} and {self.features} into {features}."
            )
        return inputs, features
