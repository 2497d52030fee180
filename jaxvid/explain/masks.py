"""Where and when U2S looks again: the masks that its mask network makes (Zhao et al. 2020, figures 5 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from jaxvid.explain.interface import OpenApply
from jaxvid.ops.resize import resize_trilinear
from jaxvid.types import Array, Variables

if TYPE_CHECKING:
    from jaxtyping import Float, Int, UInt8


def u2s_masks(
    apply: OpenApply,
    variables: Variables,
    video: UInt8[Array, "N T H W 3"],
    class_index: Int[Array, "N C"] | None = None,
) -> Float[Array, "N T H W C"]:
    """The masks of classes over the frames.

    Args:
      apply: of a network that sows ``u2s/all`` ``[N t h w K]`` and ``u2s/selected`` ``[N t h w 1]`` into ``masks``.
      variables: the network's.
      video: clips, as the network is given them.
      class_index: whose masks; ``None`` is the one that multiplies the features, the mean of the masks of the classes
        that are confused with the universal network's prediction (then ``C`` is 1).

    Returns:
      The masks before their sigmoid (any numbers, not in [0, 1]), interpolated to the size of the clip.

    Raises:
      ValueError: the network has no masks, or there is no such class.
    """
    _, outputs = apply.with_outputs(sown=("masks",))(variables, video)
    if "masks/u2s/all" not in outputs:
        raise ValueError("u2s_masks must be given a network with masks of its classes, received one that sows none.")
    if class_index is None:
        masks = outputs["masks/u2s/selected"]
    else:
        masks = _of_classes(outputs["masks/u2s/all"], np.asarray(class_index))
    _, T, H, W, _ = video.shape
    return resize_trilinear(jnp.asarray(masks), (T, H, W))


def _of_classes(masks: Array, index: np.ndarray) -> Array:
    N, K = masks.shape[0], masks.shape[-1]
    if index.ndim != 2 or len(index) != N or index.dtype.kind not in "iu":
        raise ValueError(f"class_index must be int[N C] with N={N}, received {index.dtype}{list(index.shape)}.")
    if index.size and not 0 <= index.min() <= index.max() < K:
        raise ValueError(f"class_index must be in [0, {K}), received {index.min()} to {index.max()}.")
    return jnp.take_along_axis(masks, jnp.asarray(index)[:, None, None, None, :], axis=-1)
