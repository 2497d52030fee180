"""The residual block of the ResNets: two or three convolutions, a shortcut, and a place for SRTG."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import flax.linen as nn

from jaxvid.nn.fast import FASTConv

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

MakeModule: TypeAlias = Callable[..., Any]
"""A Linen module class with some of its fields filled in (``functools.partial``)."""

PLACEMENTS = ("start", "top", "mid", "end", "res", "final")
"""Where SRTG may sit in a block (thesis section 4.3.3); see :class:`ResidualBlock`."""


def middle_channels(inputs: int, outputs: int, kernel_size: Size3 = (3, 3, 3)) -> int:
    """Middle channels of a (2+1)D convolution that has as many weights as the 3-D one that it replaces.

    ``floor(t h w I O / (h w I + t O))`` (Tran et al., "A Closer Look at Spatiotemporal Convolutions", CVPR 2018, 3.5).

    >>> [middle_channels(i, o) for i, o in ((64, 64), (64, 128), (128, 128), (256, 512))]
    [144, 230, 288, 921]
    """
    t, h, w = kernel_size
    return t * h * w * inputs * outputs // (h * w * inputs + t * outputs)


def place_srtg(srtg: MakeModule | None, here: bool, x: Array) -> Array:
    """``x`` through the block's SRTG, if it has one and that sits here."""
    return srtg(name="srtg")(x) if srtg is not None and here else x


class FactorisedConv(nn.Module):
    """A (2+1)D convolution: space, BatchNorm, ReLU, time. What follows it normalises its output.

    Attributes:
      features: output channels.
      middle: channels between the two convolutions.
      kernel_size: ``(T, H, W)``, odd numbers; the input is padded by half of it.
      strides: ``(T, H, W)``.
      groups: groups of channels that do not see each other, in both convolutions.
      conv: makes a 3-D convolution.
      norm: makes a normalisation.
    """

    features: int
    middle: int
    kernel_size: Size3
    strides: Size3
    conv: MakeModule
    norm: MakeModule
    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Convolves in space, then in time."""
        (t, h, w), (st, sh, sw) = self.kernel_size, self.strides
        spatial = self.conv(
            self.middle, (1, h, w), (1, sh, sw), (0, h // 2, w // 2), groups=self.groups, name="spatial"
        )
        temporal = self.conv(self.features, (t, 1, 1), (st, 1, 1), (t // 2, 0, 0), groups=self.groups, name="temporal")
        x = nn.relu(self.norm(name="norm")(spatial(x), not train))
        return temporal(x)


class ResidualBlock(nn.Module):
    """One residual block (He et al. 2016), simple or bottleneck, in 3-D, (2+1)D, FAST or 2-D, with SRTG or without.

    Simple: ``3x3x3, BN, ReLU, 3x3x3, BN``. Bottleneck: ``1x1x1, BN, ReLU, 3x3x3, BN, ReLU, 1x1x1, BN``. Then the
    shortcut is added and a ReLU follows. The stride sits on the first 3x3x3; the shortcut is a strided 1x1x1 with BN
    where the shape changes and the identity elsewhere.

    The places of SRTG (thesis section 4.3.3), each on a tensor of its own number of channels:

    * ``start``: the block's input, before branch and shortcut divide;
    * ``top``: after the first convolution, its BN and ReLU;
    * ``mid``: the middle of a simple block (the same tensor as ``top``); after the second convolution, its BN and
      ReLU, of a bottleneck;
    * ``end``: after the last convolution and its BN, before the addition;
    * ``res``: the shortcut, in every block;
    * ``final``: the block's output. The paper uses it everywhere.

    Note:
      The paper gives ``top`` and ``end`` for bottlenecks only. The authors' code differs: its ``mid`` of a simple block
      is our ``end``, its ``skip`` touches only shortcuts that are convolutions, and no other place but ``final`` works
      in its networks.

    Attributes:
      planes: channels of the stage; the block's output has ``planes * expansion``.
      stride: of all three axes; of the two of space where ``per_frame``.
      bottleneck: three convolutions, not two.
      expansion: output channels per plane.
      inner: channels of a bottleneck's 3x3x3 convolution.
      groups: groups of the bottleneck's 3x3x3 convolution.
      factorised: (2+1)D in place of 3x3x3.
      fast: FAST in place of 3x3x3, one of :data:`jaxvid.nn.fast.ARRANGEMENTS`, or ``None``.
      mtconv: makes the MTConv that a bottleneck has in place of its 3x3x3, that one's BN and its ReLU; ``None`` for
        none.
      per_frame: 1x3x3 in place of 3x3x3.
      shared_middle: (2+1)D only. True: the middle channels of all convolutions of a block follow from the *block's*
        input channels and planes, as in torchvision and the SRTG authors' code. False: each convolution has its own,
        as in Hara's.
      conv: makes a 3-D convolution.
      norm: makes a normalisation.
      srtg: makes an SRTG module; ``None`` for a plain block.
      placement: one of :data:`PLACEMENTS`.
      before_conv1: what the input of the first convolution goes through, not that of the shortcut; ``None`` is nothing.
      behind_conv1: makes a module ``temporal``, called with ``(x, train)`` behind the first convolution, its BN and
        ReLU; ``None`` for none. ``top`` is behind it.
    """

    planes: int
    stride: int
    bottleneck: bool
    expansion: int
    inner: int
    groups: int
    factorised: bool
    shared_middle: bool
    conv: MakeModule
    norm: MakeModule
    srtg: MakeModule | None = None
    placement: str = "final"
    per_frame: bool = False
    before_conv1: Callable[[Array], Array] | None = None
    behind_conv1: MakeModule | None = None
    fast: str | None = None
    mtconv: MakeModule | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Applies the block; ``train`` chooses batch statistics."""
        x = self._place(x, "start")
        block_inputs = x.shape[-1]
        shortcut = self._place(self._shortcut(x, train), "res")
        if self.before_conv1 is not None:
            x = self.before_conv1(x)
        if self.bottleneck:
            x = self._conv1x1x1(x, self.inner, 1, "conv1")
            x = self._place(self._behind_conv1(nn.relu(self.norm(name="norm1")(x, not train)), train), "top")
            x = self._place(self._middle(x, block_inputs, train), "mid")
            x = self._conv1x1x1(x, self.planes * self.expansion, 1, "conv3")
            x = self._place(self.norm(name="norm3")(x, not train), "end")
        else:
            x = self._conv3x3x3(x, self.planes, self.stride, block_inputs, "conv1", train)
            x = self._place(self._behind_conv1(nn.relu(self.norm(name="norm1")(x, not train)), train), "top", "mid")
            x = self._conv3x3x3(x, self.planes, 1, block_inputs, "conv2", train)
            x = self._place(self.norm(name="norm2")(x, not train), "end")
        return self._place(nn.relu(x + shortcut), "final")

    def _place(self, x: Array, *places: str) -> Array:
        return place_srtg(self.srtg, self.placement in places, x)

    def _middle(self, x: Array, block_inputs: int, train: bool) -> Array:
        if self.mtconv is not None:  # normalises and has its ReLU itself
            strides = self._strides(self.stride)
            return self.mtconv(self.inner, (3, 3, 3), strides, groups=self.groups, name="conv2")(x, train)
        x = self._conv3x3x3(x, self.inner, self.stride, block_inputs, "conv2", train)
        return nn.relu(self.norm(name="norm2")(x, not train))

    def _behind_conv1(self, x: Array, train: bool) -> Array:
        return x if self.behind_conv1 is None else self.behind_conv1(name="temporal")(x, train)

    def _shortcut(self, x: Array, train: bool) -> Array:
        outputs = self.planes * self.expansion
        if self.stride == 1 and x.shape[-1] == outputs:
            return x
        x = self._conv1x1x1(x, outputs, self.stride, "shortcut_conv")
        return self.norm(name="shortcut_norm")(x, not train)

    def _conv1x1x1(self, x: Array, features: int, stride: int, name: str) -> Array:
        return self.conv(features, (1, 1, 1), self._strides(stride), (0, 0, 0), name=name)(x)

    def _strides(self, stride: int) -> Size3:
        return (1 if self.per_frame else stride, stride, stride)

    def _conv3x3x3(self, x: Array, features: int, stride: int, block_inputs: int, name: str, train: bool) -> Array:
        groups = self.groups if self.bottleneck else 1
        strides = self._strides(stride)
        if self.per_frame:
            return self.conv(features, (1, 3, 3), strides, (0, 1, 1), groups=groups, name=name)(x)
        kernel_size = (3, 3, 3)
        if self.fast is not None:
            fast = FASTConv(features, kernel_size, strides, self.conv, self.norm, self.fast, groups, name=name)
            return fast(x, train)
        if not self.factorised:
            return self.conv(features, kernel_size, strides, (1, 1, 1), groups=groups, name=name)(x)
        if self.shared_middle:
            middle = middle_channels(block_inputs, self.planes)
            if self.bottleneck:
                middle = middle * self.inner // self.planes
        else:
            middle = middle_channels(x.shape[-1], features)
        return FactorisedConv(features, middle, kernel_size, strides, self.conv, self.norm, groups=groups, name=name)(
            x, train
        )
