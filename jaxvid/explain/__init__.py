"""Why a network says what it says: heat maps over videos, and pictures about a whole evaluation.

Apply functions, pytrees and arrays come in; configs, runs and files are known to :mod:`jaxvid.inference` alone.
There are two kinds:

* An *explainer* is ``(apply, variables, video uint8[N T H W 3], class_index, **options) -> float32[N T H W C]``, with
  an apply function that may be looked into (:class:`OpenApply`); ``class_index`` is ``int[N C]``, or ``None`` for what
  the network itself has chosen, and the maps have the frames' size. :data:`EXPLAINERS` names them.
* A *picture* is made of what was collected in a pass over a whole split, and is a :class:`Picture`. :data:`PICTURES`
  names those functions.

A new one is a file here, a line below, and what :mod:`jaxvid.inference.explain` collects for a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jaxvid.explain.class_similarity import u2s_similarity
from jaxvid.explain.embedding import u2s_tsne
from jaxvid.explain.interface import OpenApply, Picture
from jaxvid.explain.masks import u2s_masks
from jaxvid.explain.weight_similarity import u2s_weights
from jaxvid.ops.choices import require_choice

__all__ = ["EXPLAINERS", "PICTURES", "OpenApply", "Picture", "require_method"]

EXPLAINERS: Mapping[str, Callable[..., Any]] = MappingProxyType({"u2s_masks": u2s_masks})
"""Name -> explainer of videos. Read-only."""

PICTURES: Mapping[str, Callable[..., Picture]] = MappingProxyType(
    {"u2s_similarity": u2s_similarity, "u2s_tsne": u2s_tsne, "u2s_weights": u2s_weights}
)
"""Name -> function that makes a picture about a whole evaluation. Read-only."""


def require_method(name: str) -> None:
    """Raises ``ValueError`` with the nearest valid name where neither table has this one.

    >>> require_method("u2s_mask")
    Traceback (most recent call last):
    ...
    ValueError: method must be one of u2s_masks, u2s_similarity, u2s_tsne, u2s_weights, received ...
    """
    require_choice("method", name, sorted([*EXPLAINERS, *PICTURES]))
