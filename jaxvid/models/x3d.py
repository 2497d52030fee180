"""X3D: narrow, deep networks of depthwise convolutions (Feichtenhofer, "X3D", CVPR 2020)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models import options
from jaxvid.models.interface import check_video, make_conv, make_norm, make_srtg, named_output, plain_and_srtg
from jaxvid.models.options import SRTGOptions
from jaxvid.models.residual import MakeModule, place_srtg
from jaxvid.models.stages import Stage, mean_of_probabilities, mean_of_windows
from jaxvid.nn.convolution import Conv3D
from jaxvid.nn.squeeze_excitation import SqueezeExcitation
from jaxvid.ops.convolution import IMPLEMENTATIONS

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

SOURCE = "Feichtenhofer 2020, the authors' code"

DEPTHWISE_CONVS = tuple(name for name in IMPLEMENTATIONS if name not in options.CONVS)
"""Formulations that only depthwise kernels have: with one of these the dense convolutions are ``auto``."""

_BASE_WIDTH = 12  # channels of the stem at width factor 1; the stages have 1, 2, 4, 8 times as many
_FULL_WIDTH = 64  # of the option `width`: what the other families' networks have in stage 1
_BOTTLENECK = 2.25  # inner channels of a block per outer channel
_SQUEEZE = 1 / 16  # channels of squeeze-and-excitation per inner channel
_HEAD_FEATURES = 2048


@dataclass(frozen=True)
class Variant:
    """What differs between the networks of the family; the size of the clip is no property of the network.

    Attributes:
      stage_sizes: blocks of each stage.
      width_factor: on the channels of stem and stages.
    """

    stage_sizes: tuple[int, ...]
    width_factor: float


# Depth factors 2.2 and 5 on (1, 2, 5, 3) blocks, rounded up (the paper, table 2, and the authors' configurations).
_SMALL, _LARGE = (3, 5, 11, 7), (5, 10, 25, 15)
VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "x3d_xs": Variant(_SMALL, 2.0),
        "x3d_s": Variant(_SMALL, 2.0),
        "x3d_m": Variant(_SMALL, 2.0),
        "x3d_l": Variant(_LARGE, 2.0),
        "x3d_xl": Variant(_LARGE, 2.9),
    }
)
"""XS, S and M are one network, for clips of 4x160x160, 13x160x160 and 16x224x224."""


def round_width(width: float) -> int:
    """The multiple of 8, at least 8, that is nearest to ``width`` and not more than a tenth below it.

    >>> [round_width(12 * 2.9 * 2**i) for i in range(4)], [round_width(c / 16) for c in (54, 162, 216, 432)]
    ([32, 72, 136, 280], [8, 16, 16, 32])
    """
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def stage_widths(width_factor: float, stages: int) -> list[int]:
    """The channels of the stages; the stem has those of the first.

    >>> stage_widths(2.0, 4)
    [24, 48, 96, 192]
    """
    return [round_width(_BASE_WIDTH * width_factor * 2**stage) for stage in range(stages)]


def inner_channels(features: int) -> int:
    """The channels inside a block, and before the mean of the head."""
    return int(_BOTTLENECK * features)


def residual_shortcut(
    x: Array,
    features: int,
    strides: tuple[int, int, int],
    conv: MakeModule,
    norm: MakeModule,
    train: bool,
    *,
    normalise: bool = False,
) -> Array:
    """The shortcut of the block that calls this: a strided 1x1x1 where the shape changes, BN where the channels do.

    With ``normalise`` every convolution has its BN.
    """
    inputs = x.shape[-1]
    if strides == (1, 1, 1) and inputs == features:
        return x
    x = conv(features, (1, 1, 1), strides, (0, 0, 0), name="shortcut_conv")(x)
    return norm(name="shortcut_norm")(x, not train) if normalise or inputs != features else x


class Stem(nn.Module):
    """A 1x3x3 convolution with stride 2 in space, a depthwise 5x1x1 one, BN, ReLU.

    Attributes:
      features: output channels.
      conv: makes a dense convolution.
      depthwise: makes a depthwise convolution.
      norm: makes a normalisation.
    """

    features: int
    conv: MakeModule
    depthwise: MakeModule
    norm: MakeModule

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W 3"], train: bool) -> Float[Array, "N T h w C"]:
        """Convolves the video; time keeps its length."""
        x = self.conv(self.features, (1, 3, 3), (1, 2, 2), (0, 1, 1), name="spatial")(x)
        x = self.depthwise(self.features, (5, 1, 1), (1, 1, 1), (2, 0, 0), groups=self.features, name="temporal")(x)
        return named_output(self, nn.relu(self.norm(name="norm")(x, not train)))


class Block(nn.Module):
    """``1x1x1, BN, ReLU, depthwise 3x3x3, BN, squeeze-and-excitation, Swish, 1x1x1, BN``, the shortcut added, ReLU.

    The shortcut is a strided 1x1x1 convolution where the shape changes, with BN only where the number of channels
    does: so the first block of stage 1 has one without BN, unless ``shortcut_norm`` asks for it.

    Attributes:
      features: output channels.
      stride: in space, of the 3x3x3 and of the shortcut.
      squeeze: whether the block has squeeze-and-excitation.
      zero_init: whether the scale of the last BN starts at 0, so that the block starts as its shortcut.
      conv: makes a dense convolution.
      depthwise: makes a depthwise convolution.
      norm: makes a normalisation.
      shortcut_norm: whether every convolution of a shortcut has a BN.
      srtg: makes an SRTG from its name, or ``None``.
      placement: of SRTG, as in :class:`jaxvid.models.residual.ResidualBlock`; ``mid`` is behind Swish.
    """

    features: int
    stride: int
    squeeze: bool
    zero_init: bool
    conv: MakeModule
    depthwise: MakeModule
    norm: MakeModule
    shortcut_norm: bool = False
    srtg: MakeModule | None = None
    placement: str = "final"

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N T h w F"]:
        """Applies the block; ``train`` chooses batch statistics."""
        inner, strides = inner_channels(self.features), (1, self.stride, self.stride)
        x = self._place(x, "start")
        shortcut = residual_shortcut(
            x, self.features, strides, self.conv, self.norm, train, normalise=self.shortcut_norm
        )
        shortcut = self._place(shortcut, "res")
        x = self.conv(inner, (1, 1, 1), (1, 1, 1), (0, 0, 0), name="conv1")(x)
        x = self._place(nn.relu(self.norm(name="norm1")(x, not train)), "top")
        x = self.depthwise(inner, (3, 3, 3), strides, (1, 1, 1), groups=inner, name="conv2")(x)
        x = self.norm(name="norm2")(x, not train)
        if self.squeeze:
            x = SqueezeExcitation(round_width(_SQUEEZE * inner), name="squeeze")(x)
        x = self._place(nn.swish(x), "mid")
        x = self.conv(self.features, (1, 1, 1), (1, 1, 1), (0, 0, 0), name="conv3")(x)
        scale_init = nn.initializers.zeros if self.zero_init else nn.initializers.ones
        x = self._place(self.norm(scale_init=scale_init, name="norm3")(x, not train), "end")
        return self._place(nn.relu(x + shortcut), "final")

    def _place(self, x: Array, place: str) -> Array:
        return place_srtg(self.srtg, self.placement == place, x)


class Head(nn.Module):
    """``1x1x1, BN, ReLU``, the mean over time and space, ``1x1x1, ReLU``, dropout, a linear classifier.

    From the mean on everything is float32.

    Attributes:
      num_classes: outputs.
      inner: channels of the first convolution.
      dropout: share of the features that a training step drops.
      conv: makes a dense convolution.
      norm: makes a normalisation.
      window: see :class:`jaxvid.models.stages.Head`.
    """

    num_classes: int
    inner: int
    dropout: float
    conv: MakeModule
    norm: MakeModule
    window: Size3 | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N K"]:
        """Returns logits."""
        x = self.conv(self.inner, (1, 1, 1), (1, 1, 1), (0, 0, 0), name="conv1")(x)
        x = nn.relu(self.norm(name="norm1")(x, not train))
        x = mean_of_windows(x, None if train else self.window)
        x = nn.relu(Conv3D(_HEAD_FEATURES, (1, 1, 1), name="conv2")(x))
        x = nn.Dropout(self.dropout, name="dropout")(x, deterministic=not train)
        classifier = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="classifier")
        return named_output(self, mean_of_probabilities(classifier(x)))


class X3D(nn.Module):
    """An X3D for clips of any length and size.

    ``stem``, ``stage1`` … ``stage4``, ``head``. The stem and the first block of every stage halve space; time keeps its
    length. The blocks 0, 2, 4, … of a stage have squeeze-and-excitation. Convolutions start Kaiming-normal (fan out),
    BN at 1 and 0 but for ``zero_init``, the classifier at N(0, 0.01) and 0. Outputs are captured and differentiated by
    the names of the six blocks, as those of :class:`jaxvid.models.resnet.ResNet3D` are.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: blocks of each stage.
      width_factor: the stem and the stages have ``12 * width_factor`` times 1, 1, 2, 4, 8 channels, rounded by
        :func:`round_width`.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics, squeeze-and-excitation's weights and the head from its mean on
        stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS` or of :data:`DEPTHWISE_CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`jaxvid.models.stages.Head`.
      zero_init: whether the last BN of every block starts at scale 0.
      shortcut_norm: whether every convolution of a shortcut has a BN, in stage 1 too.
      srtg: SRTG in every block, or ``None``.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    width_factor: float = 2.0
    dropout: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    conv: str = "auto"
    remat: bool = False
    window: Size3 | None = None
    zero_init: bool = True
    shortcut_norm: bool = False
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
        check_video(video, (1, 32, 32), train and not self.is_initializing())
        depthwise = make_conv(self.conv, self.dtype)
        conv = make_conv("auto" if self.conv in DEPTHWISE_CONVS else self.conv, self.dtype)
        norm = make_norm(self.dtype)
        srtg, placement = make_srtg(self.srtg, self.dtype)
        block = functools.partial(
            Block,
            zero_init=self.zero_init,
            conv=conv,
            depthwise=depthwise,
            norm=norm,
            shortcut_norm=self.shortcut_norm,
            srtg=srtg,
            placement=placement,
        )
        widths = stage_widths(self.width_factor, len(self.stage_sizes))
        x = Stem(widths[0], conv, depthwise, norm, name="stem")(video.astype(self.dtype), train)
        for stage, (num_blocks, features) in enumerate(zip(self.stage_sizes, widths, strict=True)):
            blocks = [
                functools.partial(block, features=features, stride=2 if index == 0 else 1, squeeze=index % 2 == 0)
                for index in range(num_blocks)
            ]
            x = Stage(tuple(blocks), self.remat, name=f"stage{stage + 1}")(x, train)
        inner = inner_channels(widths[-1])
        return Head(self.num_classes, inner, self.dropout, conv, norm, self.window, name="head")(x, train)


def builders() -> dict[str, Callable[..., X3D]]:
    """Name -> builder of every network of :data:`VARIANTS`, each plain and with SRTG."""
    return plain_and_srtg(build_x3d, VARIANTS)


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(builders(), SOURCE)


def build_x3d(
    name: str,
    variant: Variant,
    num_classes: int,
    *,
    width: int | None = None,
    width_factor: float | None = None,
    zero_init: bool = True,
    shortcut_norm: bool = False,
    **common: Any,
) -> X3D:
    """Builds one network of the family.

    Args:
      name: its registered name; one that begins with ``srtg_`` has SRTG in every block.
      variant: its row.
      num_classes: outputs, at least 1.
      width: scales the network as it scales a ResNet: 64 is the paper's, 32 has half its ``width_factor``. Numbers of
        channels are rounded to multiples of 8, see :func:`round_width`.
      width_factor: as in the paper; ``None`` is the network's own, 2 or 2.9.
      zero_init: whether the last BN of every block starts at scale 0, so that the block starts as its shortcut.
      shortcut_norm: whether every convolution of a shortcut has a BN, in stage 1 too: so it is in PySlowFast's code and
        weights; pytorchvideo's have none where the number of channels stays.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`. The paper trains with
        ``dropout=0.5``. ``conv`` is ``"auto"``, ``"direct"`` or ``"folded"`` for all convolutions, or one of
        :data:`DEPTHWISE_CONVS` for the depthwise ones, with ``"auto"`` for the others.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    if width is not None and width_factor is not None:
        raise ValueError(
            f"width and width_factor may not both be set, received width={width!r} and width_factor={width_factor!r}."
        )
    if width is not None:
        width_factor = variant.width_factor * options.count("width", width) / _FULL_WIDTH
    elif width_factor is None:
        width_factor = variant.width_factor
    own, convs = ("width", "width_factor", "zero_init", "shortcut_norm"), (*options.CONVS, *DEPTHWISE_CONVS)
    return X3D(
        stage_sizes=variant.stage_sizes,
        width_factor=options.positive("width_factor", width_factor),
        zero_init=options.flag("zero_init", zero_init),
        shortcut_norm=options.flag("shortcut_norm", shortcut_norm),
        **options.network_fields(name, own, num_classes, convs=convs, **common),
    )
