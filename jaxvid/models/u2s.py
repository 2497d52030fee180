"""The mixed 2-D and 3-D ResNet of U2S: pre-activation bottlenecks, the upper two stages in 3-D."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models import options
from jaxvid.models.interface import check_video, halve, make_conv, make_norm, make_srtg
from jaxvid.models.options import SRTGOptions
from jaxvid.models.residual import MakeModule, place_srtg
from jaxvid.models.resnet import Stem
from jaxvid.models.stages import Head, Stage

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

SOURCE = "Zhao et al., U2S (the paper; no public code)"

KERNELS = ("3x1x1", "3x3x3")
"""Of the 3-D blocks: 3x1x1 for the first convolution, or 3x3x3 for the second; the others are as in the 2-D blocks."""

_STAGE_SIZES = (3, 4, 6, 3)  # ResNet-50 (He et al. 2016, table 1)
_EXPANSION = 4
_FIRST_3D = 2  # the paper's groups 0 and 1 are 2-D, 2 and 3 are 3-D


class PreActivationBlock(nn.Module):
    """``BN, ReLU, 1x1, BN, ReLU, 3x3, BN, ReLU, 1x1``, and the shortcut added (He et al., "Identity Mappings", 2016).

    Where the shape changes, the shortcut is a strided 1x1x1 of what the first BN and ReLU return. The stride in space
    sits on the 3x3, that in time on the convolution that is longer than one frame.

    Attributes:
      planes: channels of the inner convolutions; the output has four times as many.
      stride: in space.
      time_stride: in time.
      kernel3d: one of :data:`KERNELS`, or ``None`` for a 2-D block.
      preactivate: whether the block begins with BN and ReLU; the first block's input comes from them already.
      last: whether BN and ReLU, those that end the network, follow the sum.
      conv: makes a 3-D convolution.
      norm: makes a normalisation.
      srtg: makes an SRTG from its name, or ``None``.
      placement: of SRTG, as in :class:`jaxvid.models.residual.ResidualBlock`; ``end`` is behind the last convolution,
        and ``final`` is the sum.
    """

    planes: int
    stride: int
    time_stride: int
    kernel3d: str | None
    preactivate: bool
    last: bool
    conv: MakeModule
    norm: MakeModule
    srtg: MakeModule | None = None
    placement: str = "final"

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Applies the block; ``train`` chooses batch statistics."""
        x = self._place(x, "start")
        shortcut = x
        if self.preactivate:
            x = nn.relu(self.norm(name="norm1")(x, not train))
        strides = (self.time_stride, self.stride, self.stride)
        if strides != (1, 1, 1) or x.shape[-1] != self.planes * _EXPANSION:
            shortcut = self._conv(x, self.planes * _EXPANSION, (1, 1, 1), strides, "shortcut_conv")
        shortcut = self._place(shortcut, "res")
        first, second = (3 if self.kernel3d == kernel else 1 for kernel in KERNELS)
        early = self.time_stride if first > 1 else 1
        x = self._conv(x, self.planes, (first, 1, 1), (early, 1, 1), "conv1")
        x = self._place(nn.relu(self.norm(name="norm2")(x, not train)), "top")
        strides = (self.time_stride // early, self.stride, self.stride)
        x = self._conv(x, self.planes, (second, 3, 3), strides, "conv2")
        x = self._place(nn.relu(self.norm(name="norm3")(x, not train)), "mid")
        x = self._place(self._conv(x, self.planes * _EXPANSION, (1, 1, 1), (1, 1, 1), "conv3"), "end")
        x = self._place(x + shortcut, "final")
        return nn.relu(self.norm(name="norm4")(x, not train)) if self.last else x

    def _place(self, x: Array, place: str) -> Array:
        return place_srtg(self.srtg, self.placement == place, x)

    def _conv(self, x: Array, features: int, kernel_size: Size3, strides: Size3, name: str) -> Array:
        padding = [length // 2 for length in kernel_size]
        return self.conv(features, kernel_size, strides, padding, name=name)(x)


class MixedResNet(nn.Module):
    """The trunk of U2S (Zhao et al.): a ResNet-50 whose first two stages see every frame alone.

    ``stem`` (1x7x7, BN, ReLU), a 1x3x3 pooling with stride 2, ``stage1`` and ``stage2`` in 2-D, ``stage3`` and
    ``stage4`` in 3-D, ``head``. Each of stages 2 to 4 halves space, and stage 3 halves time. The output of stage 4 is
    behind BN and ReLU, so that the share of its zeros is what the paper's channel sparsity asks for.

    Note:
      The paper gives ResNet-50, the border between 2-D and 3-D, and "preactivated batch normalization"; kernels in time
      and strides in time are ours. It prints 60.77 "G" for one network at 18x224x224 (table III, in a column that its
      head calls parameters and that can only be operations); ours has 63.28 G multiply-adds with 3x1x1 and 72.76 with
      3x3x3.

    Outputs of blocks can be captured and differentiated by name as those of :class:`jaxvid.models.resnet.ResNet3D`.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: blocks of each stage.
      kernel3d: one of :data:`KERNELS`.
      width: channels of the stem and planes of stage 1; the other stages have 2, 4, 8 times as many.
      pool: one of :data:`jaxvid.models.options.POOLS`; ``max`` is the paper's.
      pool_window: length of the pooling's window in space, 3 or 2.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics, recurrences and the head stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`jaxvid.models.stages.Head`.
      srtg: SRTG in every block, or ``None``.
    """

    num_classes: int
    stage_sizes: tuple[int, ...] = _STAGE_SIZES
    kernel3d: str = "3x1x1"
    width: int = 64
    pool: str = "max"
    pool_window: int = 3
    dropout: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    conv: str = "auto"
    remat: bool = False
    window: Size3 | None = None
    srtg: SRTGOptions | None = None

    @nn.compact
    def __call__(self, video: Float[Array, "N T H W 3"], train: bool = False) -> Float[Array, "N K"]:
        """Classifies clips.

        Args:
          video: normalised RGB; a clip of one frame is an image.
          train: batch statistics and dropout (which needs ``rngs={"dropout": key}``).

        Returns:
          Logits in float32.

        Raises:
          ValueError: the video has another rank, dtype or number of channels, or is so small that a training step
            would normalise a single value.
        """
        check_video(video, (2, 32, 32), train and not self.is_initializing())
        conv, norm = make_conv(self.conv, self.dtype), make_norm(self.dtype)
        x = Stem(self.width, 1, False, None, conv, norm, name="stem")(video.astype(self.dtype), train)
        x = halve(x, self.pool, self.pool_window, per_frame=True)
        for stage in range(len(self.stage_sizes)):
            blocks = tuple(self._block(stage, index, conv, norm) for index in range(self.stage_sizes[stage]))
            x = Stage(blocks, self.remat, name=f"stage{stage + 1}")(x, train)
        return Head(self.num_classes, self.dropout, self.window, name="head")(x, train)

    def _block(self, stage: int, index: int, conv: MakeModule, norm: MakeModule) -> functools.partial[Any]:
        srtg, placement = make_srtg(self.srtg, self.dtype)
        return functools.partial(
            PreActivationBlock,
            planes=self.width * 2**stage,
            stride=2 if stage > 0 and index == 0 else 1,
            time_stride=2 if (stage, index) == (_FIRST_3D, 0) else 1,
            kernel3d=self.kernel3d if stage >= _FIRST_3D else None,
            preactivate=(stage, index) != (0, 0),
            last=(stage, index) == (len(self.stage_sizes) - 1, self.stage_sizes[-1] - 1),
            conv=conv,
            norm=norm,
            srtg=srtg,
            placement=placement,
        )


def builders() -> dict[str, Callable[..., MixedResNet]]:
    """Name -> builder, plain and with SRTG."""
    return {name: functools.partial(build_u2s, name) for name in ("u2s_resnet_50", "srtg_u2s_resnet_50")}


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(builders(), SOURCE)


def build_u2s(
    name: str,
    num_classes: int,
    *,
    width: int | None = None,
    kernel3d: str = KERNELS[0],
    pool: str = "max",
    pool_window: int = 3,
    **common: Any,
) -> MixedResNet:
    """Builds the trunk of U2S.

    Args:
      name: its registered name; one that begins with ``srtg_`` has SRTG in every block.
      num_classes: outputs, at least 1.
      width: scales the stem and every stage; the stages have ``width`` times 1, 2, 4, 8 planes. ``None`` is 64.
      kernel3d: of the 3-D blocks, one of :data:`KERNELS`.
      pool: ``"max"``, ``"avg"`` or ``"soft"``, the pooling behind the stem.
      pool_window: length of its window in space, 3 or 2.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    width = options.count("width", 64 if width is None else width)
    options.require_choice("kernel3d", kernel3d, KERNELS)
    options.require_choice("pool", pool, options.POOLS)
    own = ("width", "kernel3d", "pool", "pool_window")
    common = options.network_fields(name, own, num_classes, **common)
    window = options.pool_window(pool_window)
    return MixedResNet(kernel3d=kernel3d, width=width, pool=pool, pool_window=window, **common)
