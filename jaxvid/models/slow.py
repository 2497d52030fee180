"""Slow-only: the slow pathway of SlowFast as a network of its own (Feichtenhofer et al., ICCV 2019, table 1)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models import options
from jaxvid.models.bottleneck import Bottleneck
from jaxvid.models.interface import POOLS, check_video, make_conv, make_norm, make_srtg, plain_and_srtg
from jaxvid.models.options import SRTGOptions
from jaxvid.models.residual import MakeModule
from jaxvid.models.resnet import Stem
from jaxvid.models.slowfast import EXPANSION, SLOW_FRAMES, SOURCE
from jaxvid.models.stages import Head, Stage
from jaxvid.models.variants import STAGE_SIZES

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

DEPTHS: Mapping[str, int] = MappingProxyType({"slow_r50_4x16": 50, "slow_r50_8x8": 50, "slow_r101_8x8": 101})
"""Name -> a key of :data:`jaxvid.models.variants.STAGE_SIZES`. The two of depth 50 are one network; the name tells the
frames of its clips and the distance between them."""


class SlowOnly(nn.Module):
    """The slow pathway alone, for clips of any length and size.

    ``stem`` (1x7x7), a 1x3x3 pooling with stride 2 in space, ``stage1`` … ``stage4``, ``head``. The stages have
    ``width`` times 1, 2, 4, 8 planes and four times as many outputs; stages 2 to 4 halve space, and time keeps its
    length. The first convolution of every block is 1x1x1 in stages 1 and 2 and 3x1x1 in stages 3 and 4, the second one
    1x3x3. Convolutions start Kaiming-normal (fan out), BN at 1 and 0 but for ``zero_init``, the classifier at
    N(0, 0.01) and 0. Outputs are captured and differentiated by the names of the six blocks, as those of
    :class:`jaxvid.models.resnet.ResNet3D` are.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: blocks of each stage.
      width: channels of the stem and planes of stage 1.
      pool: one of :data:`jaxvid.models.options.POOLS`; ``max`` is the paper's.
      zero_init: whether the last BN of every block starts at scale 0.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics, recurrences and the head stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`jaxvid.models.stages.Head`.
      srtg: SRTG in every block, or ``None``.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    width: int = 64
    pool: str = "max"
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
        check_video(video, (1, 32, 32), train and not self.is_initializing())
        conv, norm = make_conv(self.conv, self.dtype), make_norm(self.dtype)
        x = Stem(self.width, 1, False, None, conv, norm, name="stem")(video.astype(self.dtype), train)
        x = POOLS[self.pool](x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for index, num_blocks in enumerate(self.stage_sizes):
            block = self._block(self.width * 2**index, SLOW_FRAMES[index], conv, norm)
            first = functools.partial(block, strides=(1, 1, 1) if index == 0 else (1, 2, 2))
            others = (functools.partial(block, strides=(1, 1, 1)),) * (num_blocks - 1)
            x = Stage((first, *others), self.remat, name=f"stage{index + 1}")(x, train)
        return Head(self.num_classes, self.dropout, self.window, name="head")(x, train)

    def _block(self, planes: int, frames: int, conv: MakeModule, norm: MakeModule) -> functools.partial[Bottleneck]:
        srtg, placement = make_srtg(self.srtg, self.dtype)
        return functools.partial(
            Bottleneck,
            inner=planes,
            features=EXPANSION * planes,
            frames=frames,
            kernel_size=(1, 3, 3),
            conv=conv,
            conv2=conv,
            norm=norm,
            zero_init=self.zero_init,
            srtg=srtg,
            placement=placement,
        )


def builders() -> dict[str, Callable[..., SlowOnly]]:
    """Name -> builder of every network of :data:`DEPTHS`, each plain and with SRTG."""
    return plain_and_srtg(build_slow, DEPTHS)


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(builders(), SOURCE)


def build_slow(
    name: str,
    depth: int,
    num_classes: int,
    *,
    width: int = 64,
    pool: str = "max",
    zero_init: bool = True,
    **common: Any,
) -> SlowOnly:
    """Builds one network of the family.

    Args:
      name: its registered name; one that begins with ``srtg_`` has SRTG in every block.
      depth: a key of :data:`jaxvid.models.variants.STAGE_SIZES`.
      num_classes: outputs, at least 1.
      width: scales the stem and every stage; the stages have ``width`` times 1, 2, 4, 8 planes, and 64 is the paper's.
      pool: ``"max"``, ``"avg"`` or ``"soft"``, the pooling behind the stem.
      zero_init: whether the last BN of every block starts at scale 0, so that the block starts as its shortcut.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    options.require_choice("pool", pool, options.POOLS)
    return SlowOnly(
        stage_sizes=STAGE_SIZES[depth],
        width=options.count("width", width),
        pool=pool,
        zero_init=options.flag("zero_init", zero_init),
        **options.network_fields(name, ("width", "pool", "zero_init"), num_classes, **common),
    )
