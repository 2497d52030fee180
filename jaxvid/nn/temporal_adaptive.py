"""The temporal adaptive module: every clip mixes its frames by kernels of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jaxvid.nn.convolution import Conv3D
from jaxvid.nn.normalization import BatchNorm

if TYPE_CHECKING:
    from jaxtyping import Array, Float

_FRAMES_FACTOR = 2  # alpha of the paper: width of the global branch per frame
_REDUCTION = 4  # beta of the paper: channels of the module per channel of the local branch

torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""``U(-1/sqrt(fan in), 1/sqrt(fan in))``, what torch's layers start with and the authors leave as it is."""


class TAM(nn.Module):
    """The temporal adaptive module (Liu et al., "TAM", ICCV 2021, section 3).

    From the mean over space ``p [N T C]`` two branches compute, in float32 whatever the dtype of ``x``,

    * local: ``l [N T C] = sigmoid(conv1(relu(BN(convK(p)))))`` along time, ``C / 4`` channels inside;
    * global: ``k [N C K] = softmax(W2 relu(BN(W1 p)))``, where ``W1 [T 2T]`` and ``W2 [2T K]`` act on the ``T`` numbers
      of one channel and are the same for all channels;

    and every channel of every clip is convolved along time with its own kernel, beyond whose ends there are zeros:
    ``y[t] = sum_j k[j] (l x)[t + j - K // 2]``.

    ``W1`` and ``W2`` belong to one number of frames: that of the video at the start.

    Parameters: ``reduce/kernel [K 1 1 C C/4]``, ``reduce_norm``, ``excite/kernel [1 1 1 C/4 C]``, ``frames/kernel
    [T 2T]``, ``frames_norm``, ``taps/kernel [2T K]``.

    Note:
        The sums of K products are elementwise work and no part of our counts of multiply-adds; a count of the authors'
        code, which calls a grouped convolution, has ``K T H W C`` more.

    Attributes:
        kernel_size: ``K``, odd.
    """

    kernel_size: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N T H W C"]:
        """Mixes the frames of every channel.

        Raises:
            ValueError: an even ``kernel_size``, or another number of frames than that of the parameters.
        """
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be an odd number >= 1, received kernel_size={self.kernel_size}.")
        self._check_frames(x.shape[1])
        pooled = jnp.mean(x.astype(jnp.float32), axis=(2, 3), keepdims=True)
        gate, taps = self._local(pooled, train), self._global(pooled, train)
        return convolve_frames(x * gate.astype(x.dtype), taps.astype(x.dtype))

    def _local(self, pooled: Float[Array, "N T 1 1 C"], train: bool) -> Float[Array, "N T 1 1 C"]:
        channels, k = pooled.shape[-1], self.kernel_size
        inner = max(1, channels // _REDUCTION)
        along_time = Conv3D(inner, (k, 1, 1), padding=(k // 2, 0, 0), kernel_init=torch_uniform, name="reduce")
        x = nn.relu(BatchNorm(name="reduce_norm")(along_time(pooled), not train))
        return nn.sigmoid(Conv3D(channels, (1, 1, 1), kernel_init=torch_uniform, name="excite")(x))

    def _global(self, pooled: Float[Array, "N T 1 1 C"], train: bool) -> Float[Array, "N C K"]:
        x = jnp.swapaxes(pooled[:, :, 0, 0], 1, 2)
        width = _FRAMES_FACTOR * x.shape[-1]
        x = nn.Dense(width, use_bias=False, kernel_init=torch_uniform, name="frames")(x)
        x = nn.relu(BatchNorm(name="frames_norm")(x, not train))
        return nn.softmax(nn.Dense(self.kernel_size, use_bias=False, kernel_init=torch_uniform, name="taps")(x))

    def _check_frames(self, frames: int) -> None:
        layer = self.variables.get("params", {}).get("frames")
        if layer is not None and layer["kernel"].shape[0] != frames:
            raise ValueError(
                f"the video must have as many frames as the network was made for, whose layers over time hold "
                f"{layer['kernel'].shape[0]}, received {frames} frames."
            )


def convolve_frames(x: Float[Array, "N T H W C"], taps: Float[Array, "N C K"]) -> Float[Array, "N T H W C"]:
    """Every channel of every clip along time with its own kernel, padded by zeros: ``sum_j taps[j] x[t + j - K // 2]``.

    >>> x = jnp.arange(1.0, 4.0).reshape(1, 3, 1, 1, 1)  # frames 1 2 3
    >>> convolve_frames(x, jnp.array([[[100.0, 10.0, 1.0]]])).ravel().tolist()
    [12.0, 123.0, 230.0]
    """
    frames, half = x.shape[1], taps.shape[-1] // 2
    no_pad = (0, 0, 0)
    padded = lax.pad(x, jnp.zeros((), x.dtype), [no_pad, (half, half, 0), no_pad, no_pad, no_pad])
    weights = jnp.moveaxis(taps, -1, 0)[:, :, None, None, None, :]
    return sum(
        (weight * lax.slice_in_dim(padded, j, j + frames, axis=1) for j, weight in enumerate(weights)),
        start=jnp.zeros((), x.dtype),
    )
