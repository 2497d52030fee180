"""Non-local block (Wang, Girshick, Gupta and He 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.nn.normalization import BatchNorm

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class NonLocalBlock(nn.Module):
    r"""Adds to every position a weighted mean over all positions of the clip, in time and in space.

    .. math:: z_i = x_i + BN(W_z y_i), \quad y_i = \sum_j softmax_j(\theta(x_i)^T \phi(x_j)) g(x_j)

    The embedded Gaussian of the paper (equations 2 to 6): theta, phi, g and W_z are point-wise, with half as many
    channels inside. The scale of the BatchNorm starts at 0, so the block starts as the identity (section 3.3).

    Attributes:
      dtype: of the activations; the softmax is float32.
    """

    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N T H W C"]:
        """Applies the block; ``train`` chooses batch statistics."""
        n, *_, channels = x.shape
        theta, phi, g = (
            nn.Dense(max(1, channels // 2), dtype=self.dtype, name=name)(x).reshape(n, -1, max(1, channels // 2))
            for name in ("theta", "phi", "g")
        )
        scores = jnp.einsum("nic,njc->nij", theta, phi, preferred_element_type=jnp.float32)
        attention = nn.softmax(scores).astype(g.dtype)
        y = jnp.einsum("nij,njc->nic", attention, g).reshape(*x.shape[:-1], -1)
        y = nn.Dense(channels, dtype=self.dtype, name="output")(y)
        norm = BatchNorm(dtype=self.dtype, scale_init=nn.initializers.zeros, name="norm")
        return x + norm(y, not train)
