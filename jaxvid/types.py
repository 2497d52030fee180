"""Names that every room shares: the letters of the axes, the batch, and a few aliases.

Axes are written with one letter each: ``N`` batch, ``V`` views of one clip, ``T`` time (frames), ``H`` height,
``W`` width, ``C`` channels, ``K`` classes. Arrays are ``N T H W C`` and every size tuple is ``(T, H, W)``.
This file imports neither jax nor flax, because the data room, whose code runs in worker processes, uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np

if TYPE_CHECKING:
    import jax

Array: TypeAlias = "np.ndarray | jax.Array"
Size3: TypeAlias = tuple[int, int, int]
"""``(T, H, W)``."""

Variables: TypeAlias = Mapping[str, Any]
"""Flax variables: ``{"params": ..., "batch_stats": ...}``."""

Apply: TypeAlias = "Callable[[Variables, jax.Array], jax.Array]"
"""``(variables, video uint8[N T H W 3]) -> logits float32[N K]``, in evaluation mode, normalisation included."""


class Batch(TypedDict):
    """What the pipeline yields and the steps consume.

    ``video`` is ``uint8[N T H W 3]`` in training and ``uint8[N V T H W 3]`` in evaluation (``V`` views of each clip).
    ``label`` is ``int32[N]``; ``id`` is ``int32[N]``, the record's position in its split, ``-1`` in padding rows;
    ``mask`` is ``bool[N]``, ``False`` in padding rows and for clips that could not be decoded (those keep their id).
    """

    video: Array
    label: Array
    id: Array
    mask: Array
