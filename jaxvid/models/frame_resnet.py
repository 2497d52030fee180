"""The 2-D ResNet that looks at every frame by itself; what lets its frames see each other is a subclass's part."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models import options
from jaxvid.models.interface import POOLS, check_video, make_conv, make_norm, make_srtg, named_output
from jaxvid.models.options import SRTGOptions
from jaxvid.models.residual import ResidualBlock
from jaxvid.models.resnet import Stem
from jaxvid.models.stages import Stage, mean_of_probabilities, mean_of_windows
from jaxvid.models.variants import STAGE_SIZES

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

OPTIONS = ("width", "pool")
"""The options of every network of this kind beside those of :func:`jaxvid.models.options.network_fields`."""

_EXPANSION = 4  # output channels of a bottleneck per plane (He et al. 2016)


class FrameHead(nn.Module):
    """A linear classifier of every frame and the mean of the frames' logits; everything in float32.

    Dropout draws for every frame anew. The classifier being linear, it is applied to the mean over the frames.

    Attributes:
      num_classes: outputs.
      dropout: share of a frame's features that a training step drops.
      window: see :class:`jaxvid.models.stages.Head`.
    """

    num_classes: int
    dropout: float
    window: Size3 | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N K"]:
        """Returns logits; of several windows the logarithms of probabilities, which softmax leaves as they are."""
        if train:
            x = jnp.mean(x.astype(jnp.float32), axis=(2, 3), keepdims=True)
            x = nn.Dropout(self.dropout, name="dropout")(x, deterministic=False)
        x = mean_of_windows(x, None if train else self.window)
        classifier = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.001), name="classifier")
        return named_output(self, mean_of_probabilities(classifier(x)))


class FrameResNet(nn.Module):
    """A ResNet for images (He et al. 2016) on every frame, whose blocks have a temporal part that a subclass gives.

    ``stem``, a 3x3 pooling with stride 2, ``stage1`` … ``stage4``, ``head``. The stages have ``width`` times 1, 2, 4, 8
    planes; stages 2 to 4 halve space, time keeps its length. Convolutions start Kaiming-normal (fan out), BN at 1 and
    0, the classifier at N(0, 0.001) and 0, as in the code of both TSM and TAM. Outputs are captured and differentiated
    by the names of the six blocks, as those of :class:`jaxvid.models.resnet.ResNet3D` are.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: blocks of each stage.
      bottleneck: blocks of three convolutions with expansion 4, not two.
      width: channels of the stem and planes of stage 1.
      pool: one of :data:`jaxvid.models.options.POOLS`; ``max`` is the papers'.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics, recurrences, TAM's branches and the head stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`jaxvid.models.stages.Head`.
      srtg: SRTG in every block, or ``None``.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    bottleneck: bool
    width: int = 64
    pool: str = "max"
    dropout: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    conv: str = "auto"
    remat: bool = False
    window: Size3 | None = None
    srtg: SRTGOptions | None = None

    @nn.nowrap
    def temporal_part(self, block: int) -> Mapping[str, Any]:
        """What lets the frames see each other in block number ``block`` of a stage: fields of its ResidualBlock."""
        raise NotImplementedError

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
            would normalise a single value; TAM: it has another number of frames than the one at the start.
        """
        check_video(video, (1, 32, 32), train and not self.is_initializing())
        conv, norm = make_conv(self.conv, self.dtype), make_norm(self.dtype)
        srtg, placement = make_srtg(self.srtg, self.dtype)
        x = Stem(self.width, 1, False, None, conv, norm, name="stem")(video.astype(self.dtype), train)
        x = POOLS[self.pool](x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for stage, num_blocks in enumerate(self.stage_sizes):
            planes = self.width * 2**stage
            block = functools.partial(
                ResidualBlock,
                planes=planes,
                bottleneck=self.bottleneck,
                expansion=_EXPANSION if self.bottleneck else 1,
                inner=planes,
                groups=1,
                factorised=False,
                shared_middle=True,
                per_frame=True,
                conv=conv,
                norm=norm,
                srtg=srtg,
                placement=placement,
            )
            blocks = [
                functools.partial(block, stride=2 if stage > 0 and index == 0 else 1, **self.temporal_part(index))
                for index in range(num_blocks)
            ]
            x = Stage(tuple(blocks), self.remat, name=f"stage{stage + 1}")(x, train)
        return FrameHead(self.num_classes, self.dropout, self.window, name="head")(x, train)


def frame_resnet_fields(
    name: str,
    depth: int,
    num_classes: int,
    own: tuple[str, ...] = (),
    *,
    width: int | None = None,
    pool: str = "max",
    **common: Any,
) -> dict[str, Any]:
    """The fields of a :class:`FrameResNet` from a builder's options, checked.

    Args:
      name: the network's registered name.
      depth: a key of :data:`jaxvid.models.variants.STAGE_SIZES`; from 50 on the blocks are bottlenecks.
      num_classes: outputs, at least 1.
      own: the options that the builder takes beside these.
      width: channels of the stem; the stages have ``width`` times 1, 2, 4, 8 planes. ``None`` is the papers' 64.
      pool: ``"max"``, ``"avg"`` or ``"soft"``, the pooling behind the stem.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    options.require_choice("pool", pool, options.POOLS)
    return {
        "stage_sizes": STAGE_SIZES[depth],
        "bottleneck": depth >= 50,
        "width": options.count("width", 64 if width is None else width),
        "pool": pool,
        **options.network_fields(name, (*OPTIONS, *own), num_classes, **common),
    }
