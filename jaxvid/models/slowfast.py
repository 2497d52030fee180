"""SlowFast: a wide pathway of few frames and a narrow one of many (Feichtenhofer et al., ICCV 2019)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.models import options
from jaxvid.models.bottleneck import Bottleneck
from jaxvid.models.interface import POOLS, check_video, make_conv, make_norm, make_srtg, named_output, plain_and_srtg
from jaxvid.models.options import SRTGOptions
from jaxvid.models.residual import MakeModule
from jaxvid.models.stages import Stage, mean_of_probabilities, mean_of_windows
from jaxvid.models.variants import STAGE_SIZES

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from jaxvid.types import Size3

SOURCE = "Feichtenhofer et al. 2019, the authors' code"

_BETA_INVERSE = 8  # channels of the slow pathway per channel of the fast one
_FUSION_RATIO = 2  # channels of a lateral connection per channel of the fast pathway
_FAST_FRAMES = (3, 3, 3, 3)  # of the first kernel of a block, stage by stage

SLOW_FRAMES = (1, 1, 3, 3)
"""The same of the slow pathway."""

EXPANSION = 4
"""Output channels of a block per plane."""


@dataclass(frozen=True)
class Variant:
    """What differs between the networks of the family; the length of the clip is no property of the network.

    Attributes:
      depth: a key of :data:`jaxvid.models.variants.STAGE_SIZES`.
      alpha: frames of the fast pathway per frame of the slow one.
      fusion_frames: length in time of the kernels between the pathways.
      temporal_blocks: blocks of each stage whose first kernel may be longer than one frame; the others follow.
    """

    depth: int
    alpha: int
    fusion_frames: int
    temporal_blocks: tuple[int, ...]


# The authors' configurations, `NUM_BLOCK_TEMP_KERNEL` among them. R101 16x8 is their `50_50`: its stage 3 has as many
# temporal kernels as that of R50.
VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "slowfast_r50_4x16": Variant(50, 8, 5, (3, 4, 6, 3)),
        "slowfast_r50_8x8": Variant(50, 4, 7, (3, 4, 6, 3)),
        # 62,913,240 parameters; with fusion_frames=5, as in the published weights, 62,826,968.
        "slowfast_r101_8x8": Variant(101, 4, 7, (3, 4, 23, 3)),
        "slowfast_r101_16x8": Variant(101, 4, 5, (3, 4, 6, 3)),
    }
)
"""The first number of a name counts the slow pathway's frames: clips of 32, 32, 32 and 64 frames."""


class Pathways(NamedTuple):
    """The features of both pathways, ``[N T/alpha H W C]`` and ``[N T H W C/8]``."""

    slow: Array
    fast: Array


def slow_frames(num_frames: int, alpha: int) -> Int[np.ndarray, " t"]:
    """The frames of the fast pathway that the slow one sees: ``T // alpha`` of them, the first and the last included.

    As in the authors' code the positions are equally spaced and cut down to whole numbers, so that the distances are
    not all ``alpha``; and as there they are computed in float32, from both ends, which decides where a position is
    nearly whole.

    >>> slow_frames(32, 4).tolist(), slow_frames(8, 8).tolist()
    ([0, 4, 8, 13, 17, 22, 26, 31], [0])
    """
    count = num_frames // alpha
    index, last = np.arange(count, dtype=np.float32), np.float32(num_frames - 1)
    if count == 1:
        return np.zeros(1, np.int64)
    step = last / np.float32(count - 1)
    return np.where(index < count // 2, step * index, last - step * index[::-1]).astype(np.int64)


class Convolved(nn.Module):
    """A convolution with its BN and ReLU.

    Attributes:
      features: output channels.
      kernel_size: odd numbers; the input is padded by half of them.
      strides: ``(T, H, W)``.
      conv: makes a 3-D convolution.
      norm: makes a normalisation.
    """

    features: int
    kernel_size: Size3
    strides: Size3
    conv: MakeModule
    norm: MakeModule

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Convolves ``x``; ``train`` chooses batch statistics."""
        t, h, w = self.kernel_size
        x = self.conv(self.features, self.kernel_size, self.strides, (t // 2, h // 2, w // 2), name="conv")(x)
        return nn.relu(self.norm(name="norm")(x, not train))


class Stem(nn.Module):
    """The first convolutions, ``slow`` (1x7x7) and ``fast`` (5x7x7), with stride 2 in space; each with BN and ReLU.

    Attributes:
      features: output channels of the two.
      conv: makes a 3-D convolution.
      norm: makes a normalisation.
    """

    features: tuple[int, int]
    conv: MakeModule
    norm: MakeModule

    @nn.compact
    def __call__(self, x: Pathways, train: bool) -> Pathways:
        """Convolves both videos; time keeps its length."""
        make = functools.partial(Convolved, strides=(1, 2, 2), conv=self.conv, norm=self.norm)
        slow = make(self.features[0], (1, 7, 7), name="slow")(x.slow, train)
        return named_output(self, Pathways(slow, make(self.features[1], (5, 7, 7), name="fast")(x.fast, train)))


class PathwayStage(nn.Module):
    """The lateral connection ``fusion``, then the blocks of the pathways ``slow`` and ``fast``.

    The lateral connection convolves the fast pathway in time with stride ``alpha`` and gives the slow one its channels
    beside its own.

    Attributes:
      fusion: makes the lateral connection from its number of channels.
      slow: blocks of the slow pathway, see :class:`jaxvid.models.stages.Stage`.
      fast: blocks of the fast pathway.
      remat: see :class:`jaxvid.models.stages.Stage`.
    """

    fusion: MakeModule
    slow: tuple[functools.partial[Bottleneck], ...]
    fast: tuple[functools.partial[Bottleneck], ...]
    remat: bool = False

    @nn.compact
    def __call__(self, x: Pathways, train: bool) -> Pathways:
        """Applies the blocks of both pathways."""
        lateral = self.fusion(_FUSION_RATIO * x.fast.shape[-1], name="fusion")(x.fast, train)
        slow = Stage(self.slow, self.remat, name="slow")(jnp.concatenate([x.slow, lateral], -1), train)
        return named_output(self, Pathways(slow, Stage(self.fast, self.remat, name="fast")(x.fast, train)))


class Head(nn.Module):
    """The mean of each pathway over time and space, both beside each other, dropout, a linear classifier; in float32.

    Attributes:
      num_classes: outputs.
      dropout: share of the features that a training step drops.
      alpha: frames of the fast pathway per frame of the slow one.
      window: see :class:`jaxvid.models.stages.Head`; its first number counts frames of the slow pathway.
    """

    num_classes: int
    dropout: float
    alpha: int
    window: Size3 | None = None

    @nn.compact
    def __call__(self, x: Pathways, train: bool) -> Float[Array, "N K"]:
        """Returns logits."""
        window = None if train else self.window
        slow = mean_of_windows(x.slow, window)
        # The fast pathway's windows begin and end where the slow one's do.
        fast = mean_of_windows(x.fast, window and (self.alpha * window[0], *window[1:]))[:, :: self.alpha]
        features = jnp.concatenate([slow, fast], -1)
        features = nn.Dropout(self.dropout, name="dropout")(features, deterministic=not train)
        classifier = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="classifier")
        return named_output(self, mean_of_probabilities(classifier(features)))


class SlowFast(nn.Module):
    """A SlowFast network for clips of any size and of a number of frames that ``alpha`` divides.

    ``stem``, a 1x3x3 pooling with stride 2 in space, ``stage1`` … ``stage4``, ``head``. The slow pathway has ``width``
    times 1, 2, 4, 8 planes, the fast one an eighth of them, and both have four times as many outputs; stages 2 to 4
    halve space, and time keeps its length. Convolutions start Kaiming-normal (fan out), BN at 1 and 0 but for
    ``zero_init``, the classifier at N(0, 0.01) and 0.

    The output of ``stem`` and of every stage is a :class:`Pathways`, before the next lateral connection: capturing
    gives both features, and the perturbation and the gradient of that name (see
    :class:`jaxvid.models.resnet.ResNet3D`) are pairs too. The modules ``slow`` and ``fast`` inside of a stage have
    outputs and perturbations of their own.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: blocks of each stage.
      alpha: frames of the fast pathway per frame of the slow one.
      fusion_frames: length in time of the kernels between the pathways, an odd number.
      temporal_blocks: of each stage, see :class:`Variant`.
      width: channels of the slow stem and planes of the slow stage 1.
      pool: one of :data:`jaxvid.models.options.POOLS`, of both pathways; ``max`` is the paper's.
      zero_init: whether the last BN of every block starts at scale 0.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics, recurrences and the head stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`jaxvid.models.stages.Head`; in time it counts the slow pathway's frames.
      srtg: SRTG in every block of both pathways, or ``None``.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    alpha: int
    fusion_frames: int
    temporal_blocks: tuple[int, ...]
    width: int = 64
    pool: str = "max"
    zero_init: bool = True
    dropout: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    conv: str = "auto"
    remat: bool = False
    window: Size3 | None = None
    srtg: SRTGOptions | None = None

    def __call__(self, video: Float[Array, "N T H W 3"], train: bool = False) -> Float[Array, "N K"]:
        """Classifies clips; the slow pathway sees the :func:`slow_frames` of what the fast one sees.

        Args:
          video: normalised RGB.
          train: batch statistics and dropout (which needs ``rngs={"dropout": key}``).

        Returns:
          Logits in float32.

        Raises:
          ValueError: the video has another rank, dtype or number of channels, a number of frames that ``alpha`` does
            not divide, or is so small that a training step would normalise a single value.
        """
        check_video(video, (self.alpha, 32, 32), train and not self.is_initializing())
        if video.shape[1] % self.alpha:
            raise ValueError(
                f"the number of frames must be divisible by alpha={self.alpha}, received a video of shape "
                f"{video.shape}."
            )
        return self.forward_pathways(video[:, slow_frames(video.shape[1], self.alpha)], video, train)

    @nn.compact
    def forward_pathways(
        self, slow: Float[Array, "N t H W 3"], fast: Float[Array, "N T H W 3"], train: bool = False
    ) -> Float[Array, "N K"]:
        """Classifies clips whose pathways are given (``apply(..., method="forward_pathways")``).

        Args:
          slow: normalised RGB, ``T // alpha`` frames.
          fast: normalised RGB, ``T`` frames.
          train: batch statistics and dropout (which needs ``rngs={"dropout": key}``).

        Returns:
          Logits in float32.

        Raises:
          ValueError: a video is not what :meth:`__call__` takes, or their shapes do not belong together.
        """
        training = train and not self.is_initializing()
        check_video(slow, (1, 32, 32), training)
        check_video(fast, (self.alpha, 32, 32), training)
        clips, frames, *size = slow.shape
        if fast.shape != (clips, self.alpha * frames, *size):
            raise ValueError(
                f"the fast pathway's shape must be the slow one's with alpha={self.alpha} times its frames, received "
                f"slow {slow.shape} and fast {fast.shape}."
            )
        conv, norm = make_conv(self.conv, self.dtype), make_norm(self.dtype)
        stem = Stem((self.width, _fast(self.width)), conv, norm, name="stem")
        x = stem(Pathways(slow.astype(self.dtype), fast.astype(self.dtype)), train)
        x = Pathways(*(POOLS[self.pool](path, (1, 3, 3), (1, 2, 2), (0, 1, 1)) for path in x))
        fusion = functools.partial(
            Convolved, kernel_size=(self.fusion_frames, 1, 1), strides=(self.alpha, 1, 1), conv=conv, norm=norm
        )
        for index in range(len(self.stage_sizes)):
            planes = self.width * 2**index
            slow_blocks = self._blocks(index, planes, SLOW_FRAMES[index], conv, norm)
            fast_blocks = self._blocks(index, _fast(planes), _FAST_FRAMES[index], conv, norm)
            x = PathwayStage(fusion, slow_blocks, fast_blocks, self.remat, name=f"stage{index + 1}")(x, train)
        return Head(self.num_classes, self.dropout, self.alpha, self.window, name="head")(x, train)

    def _blocks(
        self, stage: int, planes: int, frames: int, conv: MakeModule, norm: MakeModule
    ) -> tuple[functools.partial[Bottleneck], ...]:
        srtg, placement = make_srtg(self.srtg, self.dtype)
        block = functools.partial(
            Bottleneck,
            inner=planes,
            features=EXPANSION * planes,
            kernel_size=(1, 3, 3),
            conv=conv,
            conv2=conv,
            norm=norm,
            zero_init=self.zero_init,
            srtg=srtg,
            placement=placement,
        )
        return tuple(
            functools.partial(
                block,
                frames=frames if index < self.temporal_blocks[stage] else 1,
                strides=(1, 2, 2) if stage > 0 and index == 0 else (1, 1, 1),
            )
            for index in range(self.stage_sizes[stage])
        )


def _fast(channels: int) -> int:
    """The fast pathway's channels beside ``channels`` of the slow one."""
    return max(1, channels // _BETA_INVERSE)


def builders() -> dict[str, Callable[..., SlowFast]]:
    """Name -> builder of every network of :data:`VARIANTS`, each plain and with SRTG."""
    return plain_and_srtg(build_slowfast, VARIANTS)


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(builders(), SOURCE)


def build_slowfast(
    name: str,
    variant: Variant,
    num_classes: int,
    *,
    width: int = 64,
    alpha: int | None = None,
    fusion_frames: int | None = None,
    pool: str = "max",
    zero_init: bool = True,
    **common: Any,
) -> SlowFast:
    """Builds one network of the family.

    Args:
      name: its registered name; one that begins with ``srtg_`` has SRTG in every block of both pathways.
      variant: its row.
      num_classes: outputs, at least 1.
      width: scales the stem and every stage of both pathways; 64 is the paper's.
      alpha: frames of the fast pathway per frame of the slow one; ``None`` is the network's own.
      fusion_frames: length in time of the kernels between the pathways, an odd number; ``None`` is the network's own.
      pool: ``"max"``, ``"avg"`` or ``"soft"``, the pooling behind the stem.
      zero_init: whether the last BN of every block starts at scale 0, so that the block starts as its shortcut.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    options.require_choice("pool", pool, options.POOLS)
    own = ("width", "alpha", "fusion_frames", "pool", "zero_init")
    fusion_frames = options.count("fusion_frames", variant.fusion_frames if fusion_frames is None else fusion_frames)
    if fusion_frames % 2 == 0:
        raise ValueError(f"fusion_frames must be an odd number, received fusion_frames={fusion_frames}.")
    return SlowFast(
        stage_sizes=STAGE_SIZES[variant.depth],
        alpha=options.count("alpha", variant.alpha if alpha is None else alpha),
        fusion_frames=fusion_frames,
        temporal_blocks=variant.temporal_blocks,
        width=options.count("width", width),
        pool=pool,
        zero_init=options.flag("zero_init", zero_init),
        **options.network_fields(name, own, num_classes, **common),
    )
