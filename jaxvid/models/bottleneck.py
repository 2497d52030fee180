"""The bottleneck of SlowFast and of the channel-separated networks: convolutions of any kernel, a shortcut, SRTG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn

from jaxvid.models.residual import MakeModule, place_srtg

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3


class Bottleneck(nn.Module):
    """``Tx1x1, BN, ReLU, kernel, BN, ReLU, 1x1x1, BN``, the shortcut added, ReLU.

    All strides are those of the second convolution. The shortcut is a strided 1x1x1 convolution with BN where the shape
    changes and the identity elsewhere. Every convolution keeps the length of an axis that it does not stride over.

    Attributes:
      inner: channels of the first two convolutions.
      features: output channels.
      frames: length in time of the first kernel.
      kernel_size: of the second.
      strides: of the second, and of the shortcut.
      conv: makes a dense convolution.
      conv2: makes the second convolution.
      norm: makes a normalisation.
      interacts: whether a 1x1x1 convolution and its BN, without a ReLU, stand before the second convolution.
      zero_init: whether the scale of the last BN starts at 0, so that the block starts as its shortcut.
      srtg: makes an SRTG from its name, or ``None``.
      placement: of SRTG, as in :class:`jaxvid.models.residual.ResidualBlock`.
    """

    inner: int
    features: int
    frames: int
    kernel_size: Size3
    strides: Size3
    conv: MakeModule
    conv2: MakeModule
    norm: MakeModule
    interacts: bool = False
    zero_init: bool = True
    srtg: MakeModule | None = None
    placement: str = "final"

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Applies the block; ``train`` chooses batch statistics."""
        x = self._place(x, "start")
        shortcut = self._place(self._shortcut(x, train), "res")
        x = self.conv(self.inner, (self.frames, 1, 1), (1, 1, 1), (self.frames // 2, 0, 0), name="conv1")(x)
        x = self._place(nn.relu(self.norm(name="norm1")(x, not train)), "top")
        if self.interacts:
            x = self.conv(self.inner, (1, 1, 1), (1, 1, 1), (0, 0, 0), name="interaction_conv")(x)
            x = self.norm(name="interaction_norm")(x, not train)
        t, h, w = self.kernel_size
        x = self.conv2(self.inner, self.kernel_size, self.strides, (t // 2, h // 2, w // 2), name="conv2")(x)
        x = self._place(nn.relu(self.norm(name="norm2")(x, not train)), "mid")
        x = self.conv(self.features, (1, 1, 1), (1, 1, 1), (0, 0, 0), name="conv3")(x)
        scale_init = nn.initializers.zeros if self.zero_init else nn.initializers.ones
        x = self._place(self.norm(scale_init=scale_init, name="norm3")(x, not train), "end")
        return self._place(nn.relu(x + shortcut), "final")

    def _place(self, x: Array, place: str) -> Array:
        return place_srtg(self.srtg, self.placement == place, x)

    def _shortcut(self, x: Array, train: bool) -> Array:
        if self.strides == (1, 1, 1) and x.shape[-1] == self.features:
            return x
        x = self.conv(self.features, (1, 1, 1), self.strides, (0, 0, 0), name="shortcut_conv")(x)
        return self.norm(name="shortcut_norm")(x, not train)
