"""Batch normalisation with torch's running statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015), equal to torch's in value and state.

    In training ``y = (x - mean) / sqrt(var + epsilon) * scale + bias`` with the biased variance of the batch, and the
    running variance receives the unbiased one, ``n / (n - 1)`` times larger; Flax's own module stores the biased one.
    Statistics and the normalisation are float32. Under ``jit`` a batch that is sharded over devices is one batch.

    Parameters ``scale [C]``, ``bias [C]``; collection ``batch_stats``: ``mean [C]``, ``var [C]``.

    Attributes:
        momentum: Share of the old running statistics that stays (0.9 is torch's ``momentum=0.1``).
        epsilon: Added to the variance.
        dtype: Of the result; ``None`` keeps the input's.
        scale_init: Initialiser of ``scale``; zeros make a residual block start as the identity.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = None
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "*batch C"], use_running_average: bool) -> Float[Array, "*batch C"]:
        """Normalises ``x``.

        Args:
            x: Activations, channels last.
            use_running_average: True in evaluation; False normalises by this batch and updates ``batch_stats``, which
                must then be mutable.

        Returns:
            An array of the same shape.

        Raises:
            ValueError: Training on a single value per channel, whose variance means nothing.
        """
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)

        x32 = x.astype(jnp.float32)
        if use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            axes = tuple(range(x.ndim - 1))
            count = int(np.prod(x.shape[:-1]))
            mean = jnp.mean(x32, axes)
            var = jnp.mean(jnp.square(x32 - mean), axes)
            if not self.is_initializing():
                if count < 2:
                    raise ValueError(
                        f"BatchNorm in training needs more than one value per channel, received shape {x.shape}."
                    )
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * var * (count / (count - 1))
        inverse = scale / jnp.sqrt(var + self.epsilon)
        return ((x32 - mean) * inverse + bias).astype(self.dtype or x.dtype)
