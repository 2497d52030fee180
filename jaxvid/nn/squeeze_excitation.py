"""Squeeze-and-excitation: channels weigh each other by what the whole clip holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from jaxvid.nn.convolution import Conv3D

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class SqueezeExcitation(nn.Module):
    """``x * sigmoid(W2 relu(W1 mean(x) + b1) + b2)``, the mean over time and space (Hu et al., CVPR 2018, eqs. 2-4).

    The weights of the channels are computed in float32 whatever the dtype of ``x``. Parameters: ``reduce`` and
    ``expand``, 1x1x1 convolutions with ``kernel [1 1 1 I O]`` and ``bias [O]``.

    Attributes:
        reduced: Channels between the two convolutions.
    """

    reduced: int

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"]) -> Float[Array, "N T H W C"]:
        """Scales every channel of every clip by a number between 0 and 1."""
        squeezed = jnp.mean(x.astype(jnp.float32), axis=(1, 2, 3), keepdims=True)
        hidden = nn.relu(Conv3D(self.reduced, (1, 1, 1), use_bias=True, name="reduce")(squeezed))
        weights = nn.sigmoid(Conv3D(x.shape[-1], (1, 1, 1), use_bias=True, name="expand")(hidden))
        return x * weights.astype(x.dtype)
