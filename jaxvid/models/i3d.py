"""I3D: Inception-v1 in three dimensions (Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models import options
from jaxvid.models.interface import POOLS, check_video, make_conv, make_norm, named_output
from jaxvid.models.residual import MakeModule
from jaxvid.models.stages import Stage, mean_of_probabilities, mean_of_windows
from jaxvid.ops.pooling import max_pool3d

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

SOURCE = "Carreira & Zisserman 2017, piergiaj's code"

# The paper, figure 3. Channels of an Inception module: 1x1x1; 1x1x1, 3x3x3; 1x1x1, 3x3x3; 1x1x1 behind the pooling.
_STEM = 64
_CONVOLUTIONS = ((64, 1), (192, 3))  # (channels, edge of the kernel): 2b and 2c
_MIXED = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),  # 3b, 3c
    (
        (192, 96, 208, 16, 48, 64),  # 4b
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),  # 4f
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),  # 5b, 5c
)
_STAGE_SIZES = (len(_CONVOLUTIONS), *map(len, _MIXED))
# (window, strides) of the pooling before each stage, and the window of the head's.
_POOLS_BEFORE = (((1, 3, 3), (1, 2, 2)), ((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)))
_HEAD_WINDOW = (2, 7, 7)
_FULL_WIDTH = 64  # of the option `width`

# Of the authors' BatchNorm.
_EPSILON, _MOMENTUM = 1e-3, 0.99


class Unit(nn.Module):
    """A convolution that keeps the size up to its stride (TensorFlow's ``SAME``), BN, ReLU.

    ``ceil(size / stride)`` positions: the padding follows from the input's size, and of an odd one the end has the
    larger half.

    Attributes:
      features: output channels.
      kernel_size: ``(T, H, W)``.
      conv: makes a convolution.
      norm: makes a normalisation.
      strides: ``(T, H, W)``.
      named: whether the unit is a block of the network, whose output has a name.
    """

    features: int
    kernel_size: Size3
    conv: MakeModule
    norm: MakeModule
    strides: Size3 = (1, 1, 1)
    named: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Applies the unit; ``train`` chooses batch statistics."""
        x = self.conv(self.features, self.kernel_size, self.strides, "SAME", name="conv")(x)
        x = nn.relu(self.norm(name="norm")(x, not train))
        return named_output(self, x) if self.named else x


class Inception(nn.Module):
    """Four branches side by side (Szegedy et al. 2015), their outputs one behind the other.

    ``1x1x1``; ``1x1x1, 3x3x3``; ``1x1x1, 3x3x3``; a 3x3x3 maximum with stride 1, ``1x1x1``; each a :class:`Unit`.

    Attributes:
      features: output channels of the six units in this order.
      conv: makes a convolution.
      norm: makes a normalisation.
    """

    features: tuple[int, ...]
    conv: MakeModule
    norm: MakeModule

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N T H W F"]:
        """Applies the branches; ``train`` chooses batch statistics."""
        unit = functools.partial(Unit, conv=self.conv, norm=self.norm)
        one, reduce1, three1, reduce2, three2, pooled = self.features
        wide1 = unit(reduce1, (1, 1, 1), name="branch1a")(x, train)
        wide2 = unit(reduce2, (1, 1, 1), name="branch2a")(x, train)
        branches = [
            unit(one, (1, 1, 1), name="branch0")(x, train),
            unit(three1, (3, 3, 3), name="branch1b")(wide1, train),
            unit(three2, (3, 3, 3), name="branch2b")(wide2, train),
            unit(pooled, (1, 1, 1), name="branch3")(max_pool3d(x, (3, 3, 3), (1, 1, 1), "SAME"), train),
        ]
        return jnp.concatenate(branches, axis=-1)


class Head(nn.Module):
    """The mean of every 2x7x7 window with stride 1, dropout, a linear classifier, the mean of all logits; in float32.

    A smaller map is one window along its short axes.

    Attributes:
      num_classes: outputs.
      dropout: share of the features that a training step drops, of each window by itself.
      window: see :class:`jaxvid.models.stages.Head`: the mean is of the logits inside of a map of that size, and of
        several such maps the logarithm of the mean of their softmax is returned.
    """

    num_classes: int
    dropout: float
    window: Size3 | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N K"]:
        """Returns logits; of several maps the logarithms of probabilities, which softmax leaves as they are."""
        size = x.shape[1:4]
        t, h, w = size if train or self.window is None else map(min, self.window, size)
        pt, ph, pw = map(min, _HEAD_WINDOW, (t, h, w))
        x = mean_of_windows(x, (pt, ph, pw))
        x = nn.Dropout(self.dropout, name="dropout")(x, deterministic=not train)
        classifier = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="classifier")
        logits = mean_of_windows(classifier(x), (t - pt + 1, h - ph + 1, w - pw + 1))
        return named_output(self, mean_of_probabilities(logits))


class I3D(nn.Module):
    """An I3D for clips of any length and size.

    ``stem`` is the 7x7x7 convolution, ``stage1`` the two convolutions behind it (2b, 2c), ``stage2`` to ``stage4`` the
    Inception modules 3b-3c, 4b-4f and 5b-5c, then ``head``. Before every stage stands a pooling: all of them halve
    space, those before the stages 3 and 4 time too, as the stem does. All sizes are rounded up (``SAME``). Convolutions
    start Kaiming-normal (fan out), BN at 1 and 0, the classifier at N(0, 0.01) and 0. Outputs are captured and
    differentiated by the names of the six blocks, as those of :class:`jaxvid.models.resnet.ResNet3D` are.

    Note:
      piergiaj's code pads its maxima with zeros. Behind a ReLU that is the same as leaving the padding out, which the
      paper's own code does and so does ours. It fails on a last map below 2x7x7 or with more than one position in
      space; ours is the mean of what there is.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: blocks of each stage, of which the first ones are the paper's; fewer make a shorter network.
      width: 64 is the paper's network; every layer has ``width / 64`` times its channels, rounded down, at least 1.
      pool: one of :data:`jaxvid.models.options.POOLS`, the pooling before the stages; ``max`` is the paper's. That
        inside of the Inception modules, which keeps the size, is always a maximum.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics and the head stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`Head`.
    """

    num_classes: int
    stage_sizes: tuple[int, ...] = _STAGE_SIZES
    width: int = _FULL_WIDTH
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
          video: RGB; published weights take it in [-1, 1].
          train: batch statistics and dropout (which needs ``rngs={"dropout": key}``).

        Returns:
          Logits in float32.

        Raises:
          ValueError: the video has another rank, dtype or number of channels, or is so small that a training step
            would normalise a single value.
        """
        check_video(video, (8, 32, 32), train and not self.is_initializing())
        conv = make_conv(self.conv, self.dtype)
        norm = make_norm(self.dtype, epsilon=_EPSILON, momentum=_MOMENTUM)
        stem = Unit(self._channels(_STEM), (7, 7, 7), conv, norm, strides=(2, 2, 2), named=True, name="stem")
        x = stem(video.astype(self.dtype), train)
        convolutions = [
            functools.partial(Unit, self._channels(channels), (edge, edge, edge), conv=conv, norm=norm)
            for channels, edge in _CONVOLUTIONS
        ]
        mixed = [
            [functools.partial(Inception, tuple(map(self._channels, row)), conv=conv, norm=norm) for row in stage]
            for stage in _MIXED
        ]
        stages = zip((convolutions, *mixed), self.stage_sizes, _POOLS_BEFORE, strict=True)
        for index, (blocks, num_blocks, (window, strides)) in enumerate(stages):
            x = POOLS[self.pool](x, window, strides, "SAME")
            x = Stage(tuple(blocks[:num_blocks]), self.remat, name=f"stage{index + 1}")(x, train)
        return Head(self.num_classes, self.dropout, self.window, name="head")(x, train)

    def _channels(self, channels: int) -> int:
        return max(1, channels * self.width // _FULL_WIDTH)


NETWORKS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"i3d": {}})
"""Name -> fields of :class:`I3D` that differ from its defaults."""


def builders() -> dict[str, Callable[..., I3D]]:
    """Name -> builder of every network of :data:`NETWORKS`."""
    return {name: functools.partial(build_i3d, name) for name in NETWORKS}


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(NETWORKS, SOURCE)


def build_i3d(name: str, num_classes: int, *, width: int | None = None, pool: str = "max", **common: Any) -> I3D:
    """Builds an I3D.

    Args:
      name: its registered name.
      num_classes: outputs, at least 1.
      width: scales the channels of every layer; ``None`` is the paper's 64.
      pool: ``"max"``, ``"avg"`` or ``"soft"``, the pooling before every stage.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`, without those of SRTG,
        whose places are those of a residual block. The paper trains with ``dropout=0.5``.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    width = options.count("width", _FULL_WIDTH if width is None else width)
    options.require_choice("pool", pool, options.POOLS)
    fields = options.network_fields(name, ("width", "pool"), num_classes, residual=False, **common)
    return I3D(width=width, pool=pool, **fields)
