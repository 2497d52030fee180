"""MF-Net: units whose convolutions are cut into fibres (Chen et al., "Multi-Fiber Networks", ECCV 2018)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models import options
from jaxvid.models.interface import POOLS, check_video, make_conv, make_norm, make_srtg, named_output
from jaxvid.models.options import SRTGOptions
from jaxvid.models.residual import MakeModule, place_srtg
from jaxvid.models.stages import Head, Stage

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

SOURCE = "Chen et al. 2018, the authors' code"

# The paper, table 1; the stages have 1, 2, 4, 8 times the channels of the first one.
_STEM, _STAGE1, _GROUPS = 16, 96, 16
_STRIDES: tuple[Size3, ...] = ((2, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))
_FULL_WIDTH = 64  # of the option `width`

_xavier = nn.initializers.xavier_uniform()


class Stem(nn.Module):
    """A 3x5x5 convolution with stride 2 in space, BN, ReLU.

    Attributes:
      features: output channels.
      conv: makes a convolution.
      norm: makes a normalisation.
    """

    features: int
    conv: MakeModule
    norm: MakeModule

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W 3"], train: bool) -> Float[Array, "N T h w C"]:
        """Convolves the video; time keeps its length."""
        x = self.conv(self.features, (3, 5, 5), (1, 2, 2), (1, 2, 2), name="conv")(x)
        return named_output(self, nn.relu(self.norm(name="norm")(x, not train)))


class Unit(nn.Module):
    """One multi-fibre unit, SRTG at one place of it or none.

    Every convolution stands behind its own BN and ReLU. The multiplexer, two 1x1x1 convolutions over all channels, is
    added to the input; then come a 3x3x3 one in ``groups`` fibres and a 1x3x3 one in as many. In the first unit of a
    stage the last is a 1x1x1 one over all channels, the 3x3x3 has the stride, and the shortcut is a strided 1x1x1
    convolution; elsewhere the shortcut is the input, without the multiplexer's part.

    The places of SRTG, each on the tensor that :class:`jaxvid.models.residual.ResidualBlock` has there:

    * ``start``: the input, before branch and shortcut divide;
    * ``top``: behind the multiplexer, and the BN and ReLU before the 3x3x3;
    * ``mid``: behind the 3x3x3, and the BN and ReLU before the last convolution;
    * ``end``: behind the last convolution, before the addition;
    * ``res``: the shortcut;
    * ``final``: the output.

    Attributes:
      inner: channels of the 3x3x3.
      features: output channels.
      strides: ``(T, H, W)``, of the 3x3x3 and of the shortcut.
      first: whether it is the first of its stage.
      groups: fibres.
      conv: makes a convolution.
      norm: makes a normalisation.
      srtg: makes an SRTG from its name, or ``None``.
      placement: one of :data:`jaxvid.models.residual.PLACEMENTS`.
    """

    inner: int
    features: int
    strides: Size3
    first: bool
    groups: int
    conv: MakeModule
    norm: MakeModule
    srtg: MakeModule | None = None
    placement: str = "final"

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Applies the unit; ``train`` chooses batch statistics."""
        x = self._place(x, "start")
        shortcut = x
        if self.first:
            shortcut = self._point(
                self._activate(x, "shortcut_norm", train), self.features, "shortcut_conv", self.strides
            )
        shortcut = self._place(shortcut, "res")
        mixed = self._point(self._activate(x, "norm1", train), self.inner // 4, "conv1")
        mixed = self._point(self._activate(mixed, "norm2", train), x.shape[-1], "conv2")
        y = self._place(self._activate(x + mixed, "norm3", train), "top")
        y = self.conv(self.inner, (3, 3, 3), self.strides, (1, 1, 1), groups=self.groups, name="conv3")(y)
        y = self._place(self._activate(y, "norm4", train), "mid")
        if self.first:
            y = self._point(y, self.features, "conv4")
        else:
            y = self.conv(self.features, (1, 3, 3), (1, 1, 1), (0, 1, 1), groups=self.groups, name="conv4")(y)
        return self._place(self._place(y, "end") + shortcut, "final")

    def _place(self, x: Array, place: str) -> Array:
        return place_srtg(self.srtg, self.placement == place, x)

    def _activate(self, x: Array, name: str, train: bool) -> Array:
        return nn.relu(self.norm(name=name)(x, not train))

    def _point(self, x: Array, features: int, name: str, strides: Size3 = (1, 1, 1)) -> Array:
        return self.conv(features, (1, 1, 1), strides, (0, 0, 0), name=name)(x)


class MFNet(nn.Module):
    """An MF-Net for clips of any length and size.

    ``stem``, a 1x3x3 pooling with stride 2 in space, ``stage1`` … ``stage4``, ``head``. Stage 1 halves time, the others
    halve space. The BN and ReLU that close a pre-activated network belong to stage 4, so that the head is linear in the
    mean of its output. Convolutions and the classifier start Xavier-uniform, BN at 1 and 0. Outputs are captured and
    differentiated by the names of the six blocks, as those of :class:`jaxvid.models.resnet.ResNet3D` are.

    Note:
      The authors' code takes clips of 16x224x224 alone, whose last map is the window of its mean.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: units of each stage.
      groups: fibres.
      width: 64 is the paper's network; every layer has ``width / 64`` times its channels, rounded up to a multiple of
        ``groups``.
      pool: one of :data:`jaxvid.models.options.POOLS`; ``max`` is the paper's.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics, recurrences and the head stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`jaxvid.models.stages.Head`.
      srtg: SRTG in every unit, or ``None``.
    """

    num_classes: int
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    groups: int = _GROUPS
    width: int = _FULL_WIDTH
    pool: str = "max"
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
          video: normalised RGB.
          train: batch statistics and dropout (which needs ``rngs={"dropout": key}``).

        Returns:
          Logits in float32.

        Raises:
          ValueError: the video has another rank, dtype or number of channels, or is so small that a training step
            would normalise a single value.
        """
        check_video(video, (2, 32, 32), train and not self.is_initializing())
        conv = functools.partial(make_conv(self.conv, self.dtype), kernel_init=_xavier)
        norm = make_norm(self.dtype)
        srtg, placement = make_srtg(self.srtg, self.dtype)
        unit = functools.partial(
            Unit, groups=self.groups, conv=conv, norm=norm, srtg=srtg, placement=placement
        )  # fmt: skip
        x = Stem(self._channels(_STEM), conv, norm, name="stem")(video.astype(self.dtype), train)
        x = POOLS[self.pool](x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for index, (num_units, strides) in enumerate(zip(self.stage_sizes, _STRIDES, strict=True)):
            features = self._channels(_STAGE1 * 2**index)
            make = functools.partial(unit, features, features)
            first = functools.partial(make, strides=strides, first=True)
            others = (functools.partial(make, strides=(1, 1, 1), first=False),) * (num_units - 1)
            closing = norm if index == len(_STRIDES) - 1 else None
            x = Stage((first, *others), self.remat, closing, name=f"stage{index + 1}")(x, train)
        return Head(self.num_classes, self.dropout, self.window, _xavier, name="head")(x, train)

    def _channels(self, channels: int) -> int:
        return -(-channels * self.width // (_FULL_WIDTH * self.groups)) * self.groups


def builders() -> dict[str, Callable[..., MFNet]]:
    """Name -> builder, of the network and of the one with SRTG."""
    return {name: functools.partial(build_mfnet, name) for name in ("mfnet", "srtg_mfnet")}


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(builders(), SOURCE)


def build_mfnet(name: str, num_classes: int, *, width: int | None = None, pool: str = "max", **common: Any) -> MFNet:
    """Builds an MF-Net.

    Args:
      name: its registered name; one that begins with ``srtg_`` has SRTG in every unit.
      num_classes: outputs, at least 1.
      width: scales the channels of every layer, in steps of 16; ``None`` is the paper's 64.
      pool: ``"max"``, ``"avg"`` or ``"soft"``, the pooling behind the stem.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`. The authors fine-tune
        with ``dropout=0.5``.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    width = options.count("width", _FULL_WIDTH if width is None else width)
    options.require_choice("pool", pool, options.POOLS)
    return MFNet(width=width, pool=pool, **options.network_fields(name, ("width", "pool"), num_classes, **common))
