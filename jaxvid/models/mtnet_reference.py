"""MTNet as the authors' public code has it, which differs from the thesis' network in almost everything.

Blocks of four multi-temporal convolutions at widths 64 to 512 behind the stem of an r3d, two streams, and a recurrence
for each. :mod:`jaxvid.models.mtnet` is the thesis' network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models import options
from jaxvid.models.interface import POOLS, check_video, make_conv, make_norm
from jaxvid.models.residual import MakeModule
from jaxvid.models.resnet import Stem
from jaxvid.models.stages import Head, Stage, mean_of_windows
from jaxvid.nn.mtconv import size_of
from jaxvid.nn.mtconv_reference import MTConvReference, pool_pairs, select_half, split_groups, split_streams
from jaxvid.nn.srtg import SRTG
from jaxvid.ops.resize import resize_trilinear

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.nn.mtconv_reference import Streams
    from jaxvid.types import Size3

SOURCE = "Stergiou & Poppe 2021, the authors' code (MTNet)"

STAGE_SIZES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        # The authors' builders; their `get_symbol` returns the network of `s` for the name `xs`.
        "xs": (2, 2, 2, 2),
        "s": (2, 2, 5, 3),
        "m": (3, 4, 6, 3),
        "l": (3, 4, 23, 3),
    }
)
"""Blocks per stage of each size."""

_GROUPS = 8  # of the names that end in _g8


class MTBlockReference(nn.Module):
    """Four MTConvs with ReLU between them, a recurrence for each stream, the shortcut added, ReLU.

    ``conv1_1`` 1x1x1 to the inner channels, ``conv1_2`` 1x1x1 back, ``conv2`` 3x3x3 with the stride, ``conv3`` 1x1x1
    where the shape changes and 1x3x3 elsewhere. The shortcut of a block that changes the shape is a strided 1x1x1
    MTConv without lateral path.

    Attributes:
      planes: output channels of both streams together.
      inner: channels between the convolutions.
      stride: of all three axes.
      delta: share of the channels that the short stream has.
      groups: of ``conv2`` and ``conv3``.
      initialization: of the recurrences, see :class:`jaxvid.nn.srtg.SRTG`.
      dtype: of the activations.
      conv: makes a 3-D convolution.
      norm: makes a BatchNorm.
    """

    planes: int
    inner: int
    stride: int
    delta: float
    groups: int
    initialization: str
    dtype: jax.typing.DTypeLike
    conv: MakeModule
    norm: MakeModule

    @nn.compact
    def __call__(self, x: Streams, train: bool) -> Streams:
        """Applies the block; ``train`` chooses batch statistics."""
        make = functools.partial(MTConvReference, delta=self.delta, conv=self.conv, norm=self.norm)
        inputs = x[0].shape[-1] + x[1].shape[-1]
        strides = (self.stride, self.stride, self.stride)
        changes = self.stride != 1 or inputs != self.planes
        y = _relu(make(self.inner, (1, 1, 1), name="conv1_1")(x, train))
        y = _relu(make(inputs, (1, 1, 1), name="conv1_2")(y, train))
        y = _relu(make(self.inner, (3, 3, 3), strides, (1, 1, 1), groups=self.groups, name="conv2")(y, train))
        kernel_size, padding = ((1, 1, 1), (0, 0, 0)) if changes else ((1, 3, 3), (0, 1, 1))
        y = make(self.planes, kernel_size, padding=padding, groups=self.groups, name="conv3")(y, train)
        shortcut = x
        if changes:
            downsample = make(self.planes, (1, 1, 1), strides, lateral=False, name="downsample")
            shortcut = downsample((x[0], _at_least_three(x[1])), train)
        recur = functools.partial(SRTG, "gru", 2, initialization=self.initialization, dtype=self.dtype)
        short, long = (
            recur(name=f"sr_{name}")(branch) + resize_trilinear(identity, size_of(branch))
            for name, branch, identity in zip(("short", "long"), y, shortcut, strict=True)
        )
        return _relu((short, long))


def _relu(x: Streams) -> Streams:
    return nn.relu(x[0]), nn.relu(x[1])


def _at_least_three(long: Array) -> Array:
    # The code asks for the height alone, and then makes the width 3 as well.
    return resize_trilinear(long, (long.shape[1], 3, 3)) if long.shape[2] < 3 else long


class MTNetReference(nn.Module):
    """The public code's MTNet for clips of any length and size.

    ``stem``, a 1x3x3 pooling with stride 2, half of the frames, two streams, ``stage1`` … ``stage4``, ``head``. The
    short stream has ``floor(delta * C)`` of the channels; the long one starts with half the rows, columns and frames
    of it. The stages have ``width`` times 1, 2, 4, 8 channels, and stages 2 to 4 halve time and space. Outputs are
    captured and differentiated by the names of the six blocks, as those of
    :class:`jaxvid.models.resnet.ResNet3D` are; those of the stages are pairs, short and long.

    Note:
      The authors' code takes at least 3 frames and more than 32 rows and columns; here an axis that is too short to be
      halved stays as it is.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: blocks of each stage.
      width: channels of the stem and of stage 1, rounded up to a multiple of ``groups``.
      delta: share of the channels that the short stream has.
      groups: of the convolutions that are not 1x1x1 at the front of a block; above 1 those blocks are ``groups`` times
        narrower inside, and GroupNorm follows them.
      initialization: of the recurrences, see :class:`jaxvid.nn.srtg.SRTG`.
      pool: one of :data:`jaxvid.models.options.POOLS`, behind the stem; ``max`` is the code's.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics, recurrences and the head stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`jaxvid.models.stages.Head`; in positions of the short stream, over which it moves by two, and
        by one over half of it in the long one.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    width: int = 64
    delta: float = 0.875
    groups: int = 1
    initialization: str = "identity"
    pool: str = "max"
    dropout: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    conv: str = "auto"
    remat: bool = False
    window: Size3 | None = None

    @nn.compact
    def __call__(self, video: Float[Array, "N T H W 3"], train: bool = False) -> Float[Array, "N K"]:
        """Classifies clips.

        Args:
          video: normalised RGB.
          train: batch statistics and dropout (which needs ``rngs={"dropout": key}``).

        Returns:
          Logits in float32.

        Raises:
          ValueError: the video has another rank, dtype or number of channels, or is so small that a training step
            would normalise a single value.
        """
        check_video(video, (32, 64, 64), train and not self.is_initializing())
        conv, norm = make_conv(self.conv, self.dtype), make_norm(self.dtype)
        first = round_up(self.width, self.groups)
        x = Stem(first, 3, False, None, conv, norm, name="stem")(video.astype(self.dtype), train)
        x = POOLS[self.pool](_pad_to_even(x), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        x = select_half(x)
        channels, _ = split_streams(first, self.delta)
        streams: Any = x[..., :channels], select_half(pool_pairs(x[..., channels:]))
        for index, num_blocks in enumerate(self.stage_sizes):
            planes = round_up(self.width * 2**index, self.groups)
            block = functools.partial(
                MTBlockReference,
                planes=planes,
                inner=round_up(planes // self.groups, self.groups),
                delta=self.delta,
                groups=self.groups,
                initialization=self.initialization,
                dtype=self.dtype,
                conv=conv,
                norm=norm,
            )
            strides = (1 if index == 0 else 2, *(1 for _ in range(num_blocks - 1)))
            blocks = tuple(functools.partial(block, stride=stride) for stride in strides)
            streams = Stage(blocks, self.remat, name=f"stage{index + 1}")(streams, train)
        features = windows_of_streams(streams, None if train else self.window)
        return Head(self.num_classes, self.dropout, (1, 1, 1), name="head")(features, train)


def windows_of_streams(x: Streams, window: Size3 | None) -> Float[Array, "N t h w C"]:
    """The means of the windows of both streams, side by side as channels, in float32."""
    if window is None:
        return jnp.concatenate([mean_of_windows(stream, None) for stream in x], axis=-1)
    short = mean_of_windows(x[0], window)[:, ::2, ::2, ::2]
    t, h, w = (-(-length // 2) for length in window)
    long = mean_of_windows(x[1], (t, h, w))
    t, h, w = map(min, short.shape[1:4], long.shape[1:4])
    return jnp.concatenate([stream[:, :t, :h, :w] for stream in (short, long)], axis=-1)


def _pad_to_even(x: Array) -> Array:
    """One more row *and* column, equal to the first and before it, where the number of either is odd (as the code)."""
    odd = (x.shape[2] | x.shape[3]) % 2
    return jnp.pad(x, ((0, 0), (0, 0), (odd, 0), (odd, 0), (0, 0)), mode="edge")


def round_up(channels: int, groups: int) -> int:
    """The least multiple of ``groups`` that is not below ``channels``, nor below 1."""
    return max(1, -(-channels // groups)) * groups


def builders() -> dict[str, Callable[..., MTNetReference]]:
    """Name -> builder of every size, with one group and with eight."""
    return {
        name: functools.partial(build_mtnet_reference, name, stage_sizes, groups)
        for suffix, groups in (("", 1), (f"_g{_GROUPS}", _GROUPS))
        for name, stage_sizes in ((f"mtnet_ref_{size}{suffix}", sizes) for size, sizes in STAGE_SIZES.items())
    }


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(builders(), SOURCE)


def build_mtnet_reference(
    name: str,
    stage_sizes: tuple[int, ...],
    groups: int,
    num_classes: int,
    *,
    width: int | None = None,
    delta: float = 0.875,
    pool: str = "max",
    init: str = "identity",
    **common: Any,
) -> MTNetReference:
    """Builds one network of the family.

    Args:
      name: its registered name.
      stage_sizes: its blocks.
      groups: its groups.
      num_classes: outputs, at least 1.
      width: channels of the stem and of stage 1; ``None`` is the code's 64.
      delta: share of the channels that the short stream has (the code's ``r``), between 0 and 1.
      pool: ``"max"``, ``"avg"`` or ``"soft"``, the pooling behind the stem.
      init: ``"identity"`` starts every recurrence near 1, ``"torch"`` as the code does.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`; SRTG has none here.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown or has an impossible value, or ``delta`` leaves a stream without a channel or
        with channels that its groups do not divide.
    """
    own = ("width", "delta", "pool", "init")
    options.require_choice("pool", pool, options.POOLS)
    options.require_choice("init", init, options.SRTG_CHOICES["init"])
    model = MTNetReference(
        stage_sizes=stage_sizes,
        width=options.count("width", 64 if width is None else width),
        delta=options.share("delta", delta),
        groups=groups,
        initialization=init,
        pool=pool,
        **options.network_fields(name, own, num_classes, residual=False, **common),
    )
    _check_delta(model.width, model.delta, groups, len(stage_sizes))
    return model


def _check_delta(width: int, delta: float, groups: int, stages: int) -> None:
    planes = [round_up(width * 2**index, groups) for index in range(stages)]
    for channels in (*planes, *(round_up(wide // groups, groups) for wide in planes)):
        streams = split_streams(channels, delta)
        if min(streams) < 1 or any(c % g for c, g in zip(streams, split_groups(groups, delta), strict=True)):
            raise ValueError(
                f"delta must split {channels} channels into two streams that their groups "
                f"{split_groups(groups, delta)} divide, received delta={delta}, which gives {streams}."
            )
