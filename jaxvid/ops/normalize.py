"""From pixels to the numbers that a network reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Float, UInt8


def normalize_video(
    video: UInt8[Array, "*batch T H W C"],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: Any = jnp.float32,
    *,
    reverse: bool = False,
) -> Float[Array, "*batch T H W C"]:
    """Turns uint8 pixels into ``(video / 255 - mean) / std`` per channel, computed in float32 and then cast.

    Args:
        video: Pixels in [0, 255]; any leading axes (batch, views).
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1]; positive.
        dtype: Of the result.
        reverse: Whether the channels are reversed first, RGB to BGR; ``mean`` and ``std`` belong to the reversed ones.

    Returns:
        The normalised video.

    Raises:
        ValueError: The video is not uint8, a constant has another length than the channels, or ``std`` is not positive.

    >>> import numpy as np
    >>> normalize_video(np.full((1, 1, 1, 1), 255, np.uint8), (0.5,), (0.25,)).item()
    2.0
    """
    if video.dtype != jnp.uint8:
        raise ValueError(f"video must be uint8 pixels in [0, 255], received dtype {video.dtype}.")
    channels = video.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ValueError(f"{name} must hold one number per channel ({channels}), received {name}={tuple(values)}.")
    if min(std) <= 0:
        raise ValueError(f"std must be > 0 in every channel, received std={tuple(std)}.")
    video = jnp.asarray(video)[..., ::-1] if reverse else jnp.asarray(video)
    shift, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return ((video.astype(jnp.float32) / 255 - shift) / scale).astype(dtype)
