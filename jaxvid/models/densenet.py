"""DenseNet (Huang et al., CVPR 2017): image networks applied to every frame, and a 3-D one of FAST convolutions."""

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
from jaxvid.models.interface import check_video, halve, make_conv, make_norm, named_output
from jaxvid.models.residual import MakeModule
from jaxvid.models.resnet import Stem
from jaxvid.models.stages import Head, rematerialise
from jaxvid.nn.fast import FASTConv

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

SOURCE = "Huang et al. 2017, as torchvision has it"
FAST_SOURCE = "experimental: Stergiou & Poppe, FAST (arXiv:2002.02651); the layout is ours"

_BOTTLENECK = 4  # channels between the two convolutions of a layer, in growth rates
_FULL_WIDTH = 64  # of the option `width`: what the ResNets have in stage 1


@dataclass(frozen=True)
class Variant:
    """What differs between the networks of the family.

    Attributes:
      stage_sizes: layers of each dense block.
      growth: channels that every layer adds.
      stem: channels of the first convolution.
    """

    stage_sizes: tuple[int, ...]
    growth: int = 32
    stem: int = 64


# The paper, table 1; 161 is there with growth 48 (section 4.4).
VARIANTS: Mapping[int, Variant] = MappingProxyType(
    {
        121: Variant((6, 12, 24, 16)),
        161: Variant((6, 12, 36, 24), 48, 96),
        169: Variant((6, 12, 32, 32)),
        201: Variant((6, 12, 48, 32)),
    }
)
"""Depth -> layout."""


class DenseLayer(nn.Module):
    """``BN, ReLU, 1x1x1, BN, ReLU, 3x3x3`` of all that the block has computed so far; returns what it adds.

    Attributes:
      growth: output channels.
      fast: FAST in place of the 3x3x3, or ``None``.
      per_frame: 1x3x3 in place of the 3x3x3.
      conv: makes a 3-D convolution.
      norm: makes a normalisation.
    """

    growth: int
    fast: str | None
    per_frame: bool
    conv: MakeModule
    norm: MakeModule

    @nn.compact
    def __call__(self, features: tuple[Float[Array, "N T H W _"], ...], train: bool) -> Float[Array, "N T H W G"]:
        """Applies the layer to the block's input and the outputs of the layers before, side by side."""
        # Taken one by one, so that rematerialisation keeps each of them once and not their concatenations.
        x = jnp.concatenate(features, axis=-1)
        x = nn.relu(self.norm(name="norm1")(x, not train))
        x = self.conv(_BOTTLENECK * self.growth, (1, 1, 1), (1, 1, 1), (0, 0, 0), name="conv1")(x)
        x = nn.relu(self.norm(name="norm2")(x, not train))
        if self.fast is not None:
            fast = FASTConv(self.growth, (3, 3, 3), (1, 1, 1), self.conv, self.norm, self.fast, name="conv2")
            return fast(x, train)
        t = 1 if self.per_frame else 3
        return self.conv(self.growth, (t, 3, 3), (1, 1, 1), (t // 2, 1, 1), name="conv2")(x)


class Transition(nn.Module):
    """``BN, ReLU, 1x1x1`` to half of the channels, and a pooling of 2 with stride 2.

    Attributes:
      pool: one of :data:`jaxvid.models.options.POOLS`; ``avg`` is the paper's.
      per_frame: whether time is left as it is.
      conv: makes a 3-D convolution.
      norm: makes a normalisation.
    """

    pool: str
    per_frame: bool
    conv: MakeModule
    norm: MakeModule

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Halves everything; the last position of an odd axis is dropped, and an axis of one position keeps it."""
        x = nn.relu(self.norm(name="norm")(x, not train))
        x = self.conv(x.shape[-1] // 2, (1, 1, 1), (1, 1, 1), (0, 0, 0), name="conv")(x)
        return halve(x, self.pool, 2, self.per_frame)


class DenseStage(nn.Module):
    """A transition (but in stage 1), a dense block, and in the last stage the BN and ReLU that end the network.

    Attributes:
      layers: of the dense block.
      make_layer: makes a :class:`DenseLayer` from its name.
      make_transition: makes the :class:`Transition`; ``None`` for none.
      make_norm: makes the last normalisation; ``None`` for none.
      remat: whether the backward pass computes the activations inside of a layer again instead of keeping them.
    """

    layers: int
    make_layer: functools.partial[DenseLayer]
    make_transition: functools.partial[Transition] | None
    make_norm: MakeModule | None
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Applies the stage; its output is all that its layers have computed, side by side."""
        make = rematerialise(self.make_layer) if self.remat else self.make_layer
        if self.make_transition is not None:
            x = self.make_transition(name="transition")(x, train)
        features = (x,)
        for index in range(self.layers):
            features = (*features, make(name=f"block{index}")(features, train))
        x = jnp.concatenate(features, axis=-1)
        if self.make_norm is not None:
            x = nn.relu(self.make_norm(name="norm")(x, not train))
        return named_output(self, x)


class DenseNet(nn.Module):
    """A DenseNet with bottlenecks and compression 1/2 (DenseNet-BC), on every frame or in 3-D.

    ``stem``, a pooling of 3 with stride 2, ``stage1`` … ``stage4``, ``head``. Stages 2 to 4 begin with the transition
    that halves their input, and stage 4 ends with BN and ReLU, so that the head's input is stage 4's output. In 3-D
    transitions and pooling halve time as well, and the stem is 7x7x7, as in the 3-D DenseNet of Hara et al. (2018).

    Outputs of blocks can be captured and differentiated by name as those of :class:`jaxvid.models.resnet.ResNet3D`.
    Convolutions start Kaiming-normal (fan out), BN at 1 and 0, the classifier at N(0, 0.01) and 0.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: layers of each dense block.
      growth: channels that every layer adds.
      stem_features: channels of the first convolution.
      fast: FAST convolutions in the layers, one of :data:`jaxvid.nn.fast.ARRANGEMENTS`, or ``None``.
      per_frame: a 2-D network, whose logits are those of the mean frame.
      pool: behind the stem, one of :data:`jaxvid.models.options.POOLS`; ``max`` is the paper's.
      pool_window: length of that pooling's window, 3, or 2 as in the SoftPool authors' code.
      transition_pool: in the transitions; ``avg`` is the paper's.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics and the head stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS`.
      remat: see :class:`DenseStage`.
      window: see :class:`jaxvid.models.stages.Head`.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    growth: int = 32
    stem_features: int = 64
    fast: str | None = None
    per_frame: bool = True
    pool: str = "max"
    pool_window: int = 3
    transition_pool: str = "avg"
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
        check_video(video, (1 if self.per_frame else 16, 32, 32), train and not self.is_initializing())
        conv, norm = make_conv(self.conv, self.dtype), make_norm(self.dtype)
        stem = Stem(self.stem_features, 1 if self.per_frame else 7, False, None, conv, norm, name="stem")
        x = halve(stem(video.astype(self.dtype), train), self.pool, self.pool_window, self.per_frame)
        layer = functools.partial(DenseLayer, self.growth, self.fast, self.per_frame, conv, norm)
        transition = functools.partial(Transition, self.transition_pool, self.per_frame, conv, norm)
        for index, layers in enumerate(self.stage_sizes):
            first, last = index == 0, index == len(self.stage_sizes) - 1
            stage = DenseStage(
                layers, layer, None if first else transition, norm if last else None, self.remat,
                name=f"stage{index + 1}",
            )  # fmt: skip
            x = stage(x, train)
        return Head(self.num_classes, self.dropout, self.window, name="head")(x, train)


def builders() -> dict[str, Callable[..., DenseNet]]:
    """Name -> builder of every DenseNet."""
    names = {f"densenet2d_{depth}": depth for depth in VARIANTS} | {"fast_densenet_121": 121}
    return {name: functools.partial(build_densenet, name, depth) for name, depth in names.items()}


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return {name: FAST_SOURCE if name.startswith("fast_") else SOURCE for name in builders()}


def build_densenet(
    name: str,
    depth: int,
    num_classes: int,
    *,
    width: int | None = None,
    pool: str = "max",
    pool_window: int = 3,
    transition_pool: str | None = None,
    fast: str | None = None,
    **common: Any,
) -> DenseNet:
    """Builds one network of the family.

    Args:
      name: its registered name; one that begins with ``fast_`` is 3-D and of FAST convolutions.
      depth: a key of :data:`VARIANTS`.
      num_classes: outputs, at least 1.
      width: scales growth and stem by ``width / 64``; ``None`` is the paper's 64.
      pool: ``"max"``, ``"avg"`` or ``"soft"``, the pooling behind the stem.
      pool_window: length of that pooling's window, 3 or 2.
      transition_pool: the pooling of the transitions; ``None`` is the paper's ``"avg"`` where ``pool`` is the paper's
        ``"max"``, and ``pool`` elsewhere, so that ``pool="soft"`` is SoftPool everywhere.
      fast: how the FAST convolutions stand, one of :data:`jaxvid.nn.fast.ARRANGEMENTS`; ``None`` is sequential.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`, but no SRTG: a DenseNet
        has no residual blocks.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.

    Note:
      The SoftPool authors' code replaces only the pooling behind the stem, by 2x2 windows: ``pool="soft"``,
      ``pool_window=2``, ``transition_pool="avg"``.
    """
    variant = VARIANTS[depth]
    width = options.count("width", _FULL_WIDTH if width is None else width)
    options.require_choice("pool", pool, options.POOLS)
    if transition_pool is None:
        transition_pool = "avg" if pool == "max" else pool
    options.require_choice("transition_pool", transition_pool, options.POOLS)
    fast = options.fast_arrangement(name, fast)
    own = ("width", "pool", "pool_window", "transition_pool", "fast")
    common = options.network_fields(name, own, num_classes, residual=False, **common)
    return DenseNet(
        stage_sizes=variant.stage_sizes,
        growth=max(1, variant.growth * width // _FULL_WIDTH),
        stem_features=max(1, variant.stem * width // _FULL_WIDTH),
        fast=fast,
        per_frame=fast is None,
        pool=pool,
        pool_window=options.pool_window(pool_window),
        transition_pool=transition_pool,
        **common,
    )
