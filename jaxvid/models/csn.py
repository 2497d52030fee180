"""Channel-separated networks: ResNets whose 3x3x3 convolutions are depthwise (Tran et al., ICCV 2019)."""

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
from jaxvid.models.bottleneck import Bottleneck
from jaxvid.models.interface import POOLS, check_video, make_conv, make_norm, make_srtg, plain_and_srtg
from jaxvid.models.options import SRTGOptions
from jaxvid.models.resnet import Stem
from jaxvid.models.stages import Head, Stage
from jaxvid.models.variants import STAGE_SIZES
from jaxvid.models.x3d import DEPTHWISE_CONVS

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

SOURCE = "Tran et al. 2019, the authors' code"

NO_POOL = "none"
"""Beside :data:`jaxvid.models.options.POOLS`: no pooling behind the stem, so that every stage is twice as large."""

_EXPANSION = 4


@dataclass(frozen=True)
class Variant:
    """One network.

    Attributes:
      depth: a key of :data:`jaxvid.models.variants.STAGE_SIZES`.
      preserved: interaction-preserved: a 1x1x1 convolution before each depthwise one. Interaction-reduced: none.
    """

    depth: int
    preserved: bool


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        f"{prefix}_csn_{depth}": Variant(depth, preserved)
        for prefix, preserved in (("ip", True), ("ir", False))
        for depth in (50, 101, 152)
    }
)
"""A 3x3x3 convolution between channels and positions at once is a 1x1x1 one between channels and a depthwise one
between positions (ip, section 3.3); ir leaves the first one out, and the block's other 1x1x1 convolutions remain."""


class CSN(nn.Module):
    """A channel-separated network for clips of any length and size.

    ``stem`` (3x7x7), a 1x3x3 pooling with stride 2 in space, ``stage1`` … ``stage4``, ``head``. The stages have
    ``width`` times 1, 2, 4, 8 planes and four times as many outputs; stages 2 to 4 halve time and space. Convolutions
    start Kaiming-normal (fan out), BN at 1 and 0 but for ``zero_init``, the classifier at N(0, 0.01) and 0. Outputs are
    captured and differentiated by the names of the six blocks, as those of :class:`jaxvid.models.resnet.ResNet3D` are.

    Note:
      The paper's figures, and all published weights, are of networks with the pooling. ``create_csn`` of pytorchvideo
      leaves it out where nobody asks for it: that is ``pool="none"``, with the same arrays and four times the work.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: blocks of each stage.
      preserved: interaction-preserved (ip), else interaction-reduced (ir).
      width: channels of the stem and planes of stage 1.
      pool: one of :data:`jaxvid.models.options.POOLS` or :data:`NO_POOL`; ``max`` is the paper's.
      epsilon: of every BN: 1e-5 in pytorchvideo, 1e-3 in the authors' code.
      zero_init: whether the last BN of every block starts at scale 0.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics, recurrences and the head stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS` or of :data:`jaxvid.models.x3d.DEPTHWISE_CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`jaxvid.models.stages.Head`.
      srtg: SRTG in every block, or ``None``.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    preserved: bool
    width: int = 64
    pool: str = "max"
    epsilon: float = 1e-5
    zero_init: bool = True
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
        pooled = self.pool != NO_POOL
        check_video(video, (8, 32, 32) if pooled else (8, 16, 16), train and not self.is_initializing())
        conv = make_conv("auto" if self.conv in DEPTHWISE_CONVS else self.conv, self.dtype)
        norm = make_norm(self.dtype, epsilon=self.epsilon)
        x = Stem(self.width, 3, False, None, conv, norm, name="stem")(video.astype(self.dtype), train)
        if pooled:
            x = POOLS[self.pool](x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for index, num_blocks in enumerate(self.stage_sizes):
            block = self._block(self.width * 2**index, conv, norm)
            first = functools.partial(block, strides=(1, 1, 1) if index == 0 else (2, 2, 2))
            others = (functools.partial(block, strides=(1, 1, 1)),) * (num_blocks - 1)
            x = Stage((first, *others), self.remat, name=f"stage{index + 1}")(x, train)
        return Head(self.num_classes, self.dropout, self.window, name="head")(x, train)

    def _block(self, planes: int, conv: functools.partial[Any], norm: functools.partial[Any]) -> functools.partial[Any]:
        srtg, placement = make_srtg(self.srtg, self.dtype)
        return functools.partial(
            Bottleneck,
            inner=planes,
            features=_EXPANSION * planes,
            frames=1,
            kernel_size=(3, 3, 3),
            conv=conv,
            conv2=functools.partial(make_conv(self.conv, self.dtype), groups=planes),
            norm=norm,
            interacts=self.preserved,
            zero_init=self.zero_init,
            srtg=srtg,
            placement=placement,
        )


def builders() -> dict[str, Callable[..., CSN]]:
    """Name -> builder of every network of :data:`VARIANTS`, each plain and with SRTG."""
    return plain_and_srtg(build_csn, VARIANTS)


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(builders(), SOURCE)


def build_csn(
    name: str,
    variant: Variant,
    num_classes: int,
    *,
    width: int = 64,
    pool: str = "max",
    epsilon: float | None = None,
    zero_init: bool = True,
    **common: Any,
) -> CSN:
    """Builds one network of the family.

    Args:
      name: its registered name; one that begins with ``srtg_`` has SRTG in every block.
      variant: its row.
      num_classes: outputs, at least 1.
      width: scales the stem and every stage; the stages have ``width`` times 1, 2, 4, 8 planes, and 64 is the paper's.
      pool: ``"max"``, ``"avg"`` or ``"soft"``, the pooling behind the stem, or ``"none"``.
      epsilon: of every BN. ``None`` is that of the code whose names the weights of the network have: 1e-5
        (pytorchvideo) for ir-CSN, 1e-3 (the authors' code) for ip-CSN.
      zero_init: whether the last BN of every block starts at scale 0, so that the block starts as its shortcut.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`. ``conv`` is ``"auto"``,
        ``"direct"`` or ``"folded"`` for all convolutions, or one of :data:`jaxvid.models.x3d.DEPTHWISE_CONVS` for the
        depthwise ones, with ``"auto"`` for the others.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    own, convs = ("width", "pool", "epsilon", "zero_init"), (*options.CONVS, *DEPTHWISE_CONVS)
    options.require_choice("pool", pool, (*options.POOLS, NO_POOL))
    if epsilon is None:
        epsilon = 1e-3 if variant.preserved else 1e-5
    return CSN(
        stage_sizes=STAGE_SIZES[variant.depth],
        preserved=variant.preserved,
        width=options.count("width", width),
        pool=pool,
        epsilon=options.positive("epsilon", epsilon),
        zero_init=options.flag("zero_init", zero_init),
        **options.network_fields(name, own, num_classes, convs=convs, **common),
    )
