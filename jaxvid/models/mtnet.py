"""MTNet: X3D with multi-temporal convolutions and a recurrence in every block (Stergiou, thesis 2022, chapter 5).

:mod:`jaxvid.models.mtnet_reference` is the network of the authors' public code, which is another one.
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
from jaxvid.models.interface import check_video, make_conv, make_norm
from jaxvid.models.residual import MakeModule
from jaxvid.models.stages import Stage
from jaxvid.models.x3d import DEPTHWISE_CONVS, VARIANTS, Head, Stem, inner_channels, residual_shortcut, stage_widths
from jaxvid.nn.mtconv import PROLONGED_POOLS, SELECTIONS, MTConv
from jaxvid.nn.srtg import SRTG

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

SOURCE = "Stergiou, thesis 2022, section 5.3 and table 6.1b"

BACKBONES: Mapping[str, str] = MappingProxyType({"mtnet_s": "x3d_s", "mtnet_m": "x3d_m", "mtnet_l": "x3d_l"})
"""Name -> the X3D whose widths and blocks it has. S and M are one network, for clips of different size."""

_FULL_WIDTH = 64


class MTBlock(nn.Module):
    """MTConvs of 1x1x1, 3x3x3 and 1x1x1, Squeeze-and-Recursion, the shortcut added, ReLU (thesis, figure 5.2).

    Every MTConv has its norms and ReLU inside; squeeze-and-excitation and Swish of the X3D block, which this one
    replaces, are gone. The shortcut is X3D's.

    Attributes:
      features: output channels.
      stride: in space, of the 3x3x3 and of the shortcut.
      groups: of the 3x3x3, see :class:`jaxvid.nn.mtconv.MTConv`.
      mtconv: makes an MTConv.
      recur: makes the recurrence.
      conv: makes the shortcut's convolution.
      norm: makes the shortcut's normalisation.
    """

    features: int
    stride: int
    groups: int | None
    mtconv: MakeModule
    recur: MakeModule
    conv: MakeModule
    norm: MakeModule

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N T h w F"]:
        """Applies the block; ``train`` chooses batch statistics."""
        inner, strides = inner_channels(self.features), (1, self.stride, self.stride)
        shortcut = residual_shortcut(x, self.features, strides, self.conv, self.norm, train)
        x = self.mtconv(inner, (1, 1, 1), name="conv1")(x, train)
        x = self.mtconv(inner, (3, 3, 3), strides, groups=self.groups, name="conv2")(x, train)
        x = self.mtconv(self.features, (1, 1, 1), name="conv3")(x, train)
        return nn.relu(self.recur(name="sr")(x) + shortcut)


class MTNet(nn.Module):
    """The thesis' MTNet for clips of any length and size.

    ``stem``, ``stage1`` … ``stage4`` and ``head`` as in :class:`jaxvid.models.x3d.X3D`, from which it differs in its
    blocks alone. Outputs are captured and differentiated by the names of the six blocks, as those of
    :class:`jaxvid.models.resnet.ResNet3D` are.

    Note:
      The parameters and GFLOPs that the thesis prints follow neither from this nor from its public code, see
      ``docs/mtnet.md``.

    Attributes:
      num_classes: outputs ``K``.
      stage_sizes: blocks of each stage.
      width_factor: as in X3D.
      delta: share of the channels that the local branches have, in (0, 1]; 1 leaves the prolonged ones out.
      groups: of the 3x3x3 convolutions; ``None`` is one per channel.
      pool: of the prolonged branches, one of :data:`jaxvid.nn.mtconv.PROLONGED_POOLS`.
      selection: of the prolonged branches, one of :data:`jaxvid.nn.mtconv.SELECTIONS`.
      cell: of the recurrences, see :class:`jaxvid.nn.srtg.SRTG`.
      num_layers: of the recurrences.
      initialization: of the recurrences.
      dropout: before the classifier.
      dtype: of the activations; parameters, statistics, recurrences and the head from its mean on stay float32.
      conv: one of :data:`jaxvid.models.options.CONVS`, or with ``groups=None`` of
        :data:`jaxvid.models.x3d.DEPTHWISE_CONVS`.
      remat: see :class:`jaxvid.models.stages.Stage`.
      window: see :class:`jaxvid.models.stages.Head`.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    width_factor: float = 2.0
    delta: float = 0.875
    groups: int | None = None
    pool: str = "soft"
    selection: str = "lowest"
    cell: str = "gru"
    num_layers: int = 1
    initialization: str = "identity"
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
          train: batch statistics, dropout (which needs ``rngs={"dropout": key}``) and the draws of stochastic pooling
            (``rngs={"pool": key}``).

        Returns:
          Logits in float32.

        Raises:
          ValueError: the video has another rank, dtype or number of channels, or is so small that a training step
            would normalise a single value.
        """
        check_video(video, (2, 64, 64), train and not self.is_initializing())
        depthwise = make_conv(self.conv, self.dtype)
        conv = make_conv("auto" if self.conv in DEPTHWISE_CONVS else self.conv, self.dtype)
        norm = make_norm(self.dtype)
        block = functools.partial(
            MTBlock,
            groups=self.groups,
            mtconv=self._mtconv(conv, depthwise, norm),
            recur=functools.partial(
                SRTG, self.cell, self.num_layers, initialization=self.initialization, dtype=self.dtype
            ),
            conv=conv,
            norm=norm,
        )
        widths = stage_widths(self.width_factor, len(self.stage_sizes))
        x = Stem(widths[0], conv, depthwise, norm, name="stem")(video.astype(self.dtype), train)
        for stage, (num_blocks, features) in enumerate(zip(self.stage_sizes, widths, strict=True)):
            strides = (2, *(1 for _ in range(num_blocks - 1)))
            blocks = tuple(functools.partial(block, features=features, stride=stride) for stride in strides)
            x = Stage(blocks, self.remat, name=f"stage{stage + 1}")(x, train)
        inner = inner_channels(widths[-1])
        return Head(self.num_classes, inner, self.dropout, conv, norm, self.window, name="head")(x, train)

    def _mtconv(self, conv: MakeModule, depthwise: MakeModule, norm: MakeModule) -> MakeModule:
        make = functools.partial(
            MTConv, delta=self.delta, pool=self.pool, selection=self.selection, conv=conv, norm=norm
        )
        # Only the convolution of one group per channel can take a formulation that depthwise kernels alone have.
        return lambda *args, groups=1, **fields: make(
            *args, groups=groups, grouped=depthwise if groups is None else conv, **fields
        )


def builders() -> dict[str, Callable[..., MTNet]]:
    """Name -> builder of every network of :data:`BACKBONES`."""
    return {name: functools.partial(build_mtnet, name) for name in BACKBONES}


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(BACKBONES, SOURCE)


def build_mtnet(
    name: str,
    num_classes: int,
    *,
    width: int | None = None,
    delta: float = 0.875,
    groups: int | None = None,
    pool: str = "soft",
    selection: str = "lowest",
    cell: str = "gru",
    num_layers: int = 1,
    init: str = "identity",
    **common: Any,
) -> MTNet:
    """Builds one network of the family; the thesis' ablations are one option each.

    Args:
      name: its registered name.
      num_classes: outputs, at least 1.
      width: scales the network as it scales an X3D, see :func:`jaxvid.models.x3d.build_x3d`.
      delta: share of the channels that the local branches have, in (0, 1] (table 5.6).
      groups: of the 3x3x3 convolutions of both branches; ``None`` is one per channel, 1 makes them dense.
      pool: of the prolonged branches: ``"avg"``, ``"max"``, ``"stochastic"`` or ``"soft"`` (table 5.8).
      selection: ``"lowest"`` keeps the half of the frames that resemble their neighbours least; ``"none"`` pools time
        together with space (table 5.8).
      cell: of the recurrences: ``"rnn"``, ``"lstm"``, ``"peephole_lstm"`` or ``"gru"`` (table 5.7).
      num_layers: of the recurrences; the text says 2, the parameters of table 5.7 say 1.
      init: ``"identity"`` starts every recurrence near 1, ``"torch"`` as torch does.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`; SRTG has none here.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown or has an impossible value.
    """
    options.require_choice("pool", pool, PROLONGED_POOLS)
    options.require_choice("selection", selection, SELECTIONS)
    for option, value in (("cell", cell), ("num_layers", num_layers), ("init", init)):
        options.require_choice(option, value, options.SRTG_CHOICES[option])
    own = ("width", "delta", "groups", "pool", "selection", "cell", "num_layers", "init")
    convs = (*options.CONVS, *(DEPTHWISE_CONVS if groups is None else ()))
    variant = VARIANTS[BACKBONES[name]]
    return MTNet(
        stage_sizes=variant.stage_sizes,
        width_factor=variant.width_factor
        * options.count("width", _FULL_WIDTH if width is None else width)
        / _FULL_WIDTH,
        delta=options.local_share(delta),
        groups=None if groups is None else options.count("groups", groups),
        pool=pool,
        selection=selection,
        cell=cell,
        num_layers=num_layers,
        initialization=init,
        **options.network_fields(name, own, num_classes, convs=convs, residual=False, **common),
    )
