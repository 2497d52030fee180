"""FAST: a 3-D convolution as a spatial one and two that follow horizontal and vertical motion (experimental)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

ARRANGEMENTS = ("sequential", "parallel")
"""Whether the vertical convolution sees the horizontal one's output, or both see the spatial one's."""


class FASTConv(nn.Module):
    """Fractioned Adjacent Spatial and Temporal 3-D convolution (Stergiou and Poppe, arXiv:2002.02651). Experimental.

    With kernels ``S`` of 1 x kh x kw, ``H`` of kt x 1 x kw and ``V`` of kt x kh x 1, all of equally many channels, and
    ``r`` for BatchNorm and ReLU:

    * sequential: ``V * r(H * r(S * x))``;
    * parallel: ``H * r(S * x) + V * r(S * x)``.

    What follows normalises the output, as it does after an ordinary convolution. ``S`` has the strides of space and
    the first convolutions in time have that of time. Where a 3x3x3 kernel keeps the number of channels, the three have
    as many weights as it has.

    Note:
      Only the paper's abstract was at hand and no code is public. From the abstract are the three kernels, their order
      and that the last two may stand side by side; channels, places of BatchNorm and ReLU, strides and the sum are
      ours.

    Attributes:
      features: output channels, and those between the convolutions.
      kernel_size: ``(T, H, W)`` of the convolution that this replaces, odd numbers; the input is padded by half of it.
      strides: ``(T, H, W)``.
      conv: makes a 3-D convolution.
      norm: makes a normalisation.
      arrangement: one of :data:`ARRANGEMENTS`.
      groups: groups of channels that do not see each other, in all three convolutions.
    """

    features: int
    kernel_size: Size3
    strides: Size3
    conv: Callable[..., Any]
    norm: Callable[..., Any]
    arrangement: str = "sequential"
    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Convolves in space, then along time and one axis of space, twice.

        Raises:
          ValueError: the arrangement is unknown.
        """
        if self.arrangement not in ARRANGEMENTS:
            raise ValueError(
                f"arrangement must be one of {', '.join(ARRANGEMENTS)}, received arrangement={self.arrangement!r}."
            )
        (t, h, w), (st, sh, sw) = self.kernel_size, self.strides
        x = self._conv(x, (1, h, w), (1, sh, sw), "spatial")
        x = nn.relu(self.norm(name="spatial_norm")(x, not train))
        horizontal = self._conv(x, (t, 1, w), (st, 1, 1), "horizontal")
        if self.arrangement == "parallel":
            return horizontal + self._conv(x, (t, h, 1), (st, 1, 1), "vertical")
        x = nn.relu(self.norm(name="horizontal_norm")(horizontal, not train))
        return self._conv(x, (t, h, 1), (1, 1, 1), "vertical")

    def _conv(self, x: Array, kernel_size: Size3, strides: Size3, name: str) -> Array:
        padding = [length // 2 for length in kernel_size]
        return self.conv(self.features, kernel_size, strides, padding, groups=self.groups, name=name)(x)
