"""The 3-D convolution layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from jaxvid.ops.convolution import conv3d

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Normal with variance ``2 / (O kT kH kW)`` (He et al. 2015), the papers' start of every convolution."""


class Conv3D(nn.Module):
    """A 3-D convolution that owns its kernel; :func:`jaxvid.ops.conv3d` computes it.

    Parameters ``kernel [kT kH kW I/groups O]`` and, with ``use_bias``, ``bias [O]``.

    Attributes:
        features: Output channels.
        kernel_size: ``(T, H, W)``.
        strides: ``(T, H, W)``.
        padding: ``"SAME"``, ``"VALID"``, or per axis a number or a pair.
        use_bias: Whether a bias is added; batch normalisation makes it useless.
        groups: Number of channel groups.
        implementation: One of :data:`jaxvid.ops.convolution.IMPLEMENTATIONS`, or ``None``, the fastest one here.
        dtype: Of computation and result; ``None`` keeps the input's.
        kernel_init: Initialiser of the kernel.
    """

    features: int
    kernel_size: Size3
    strides: Size3 = (1, 1, 1)
    padding: str | Sequence[int | tuple[int, int]] = "SAME"
    use_bias: bool = False
    groups: int = 1
    implementation: str | None = None
    dtype: Any = None
    kernel_init: nn.initializers.Initializer = kaiming_normal_fan_out

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W I"]) -> Float[Array, "N To Ho Wo O"]:
        """Convolves ``x``; raises ``ValueError`` where the channels do not divide into the groups."""
        channels = x.shape[-1]
        if channels % self.groups or self.features % self.groups:
            raise ValueError(
                f"groups must divide the input channels and features, "
                f"received groups={self.groups}, {channels} input channels, features={self.features}."
            )
        shape = (*self.kernel_size, channels // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = x.astype(self.dtype or x.dtype)
        y = conv3d(x, kernel, self.strides, self.padding, groups=self.groups, implementation=self.implementation)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(y.dtype)
        return y
