"""Models: backbones ``stem -> stage1..stage4 -> head``, built by name.

``model.apply(variables, video, train=bool, rngs=...)`` maps a normalised video ``[N T H W 3]`` to float32 logits
``[N K]``::

    from jaxvid import models
    model = models.build("srtg_r3d_18", num_classes=10, width=16)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 64, 64, 3)))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from jaxvid.models import (
    csn,
    densenet,
    i3d,
    mfnet,
    mtnet,
    mtnet_reference,
    slow,
    slowfast,
    tam,
    tsm,
    u2s,
    variants,
    x3d,
)
from jaxvid.models.options import closest

__all__ = ["MODELS", "SOURCES", "build"]

_FAMILIES = (
    variants,
    x3d,
    i3d,
    mfnet,
    slowfast,
    slow,
    csn,
    tsm,
    tam,
    densenet,
    u2s,
    mtnet,
    mtnet_reference,
)

MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {name: builder for family in _FAMILIES for name, builder in family.builders().items()}
)
"""Name -> builder ``(num_classes, **options) -> module``. Read-only; ``jaxvid models`` prints it as a table."""

SOURCES: Mapping[str, str] = MappingProxyType(
    {name: source for family in _FAMILIES for name, source in family.sources().items()}
)
"""Name -> where the network's definition comes from."""


def build(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Builds a network by its name.

    Args:
      name: a name of :data:`MODELS`.
      num_classes: outputs, at least 1.
      **options: ``width`` and those of :func:`jaxvid.models.options.network_fields`; beside them what the family's
        builder takes (:func:`jaxvid.models.variants.build_resnet`, :func:`jaxvid.models.x3d.build_x3d`, ...).

    Returns:
      A Linen module.

    Raises:
      ValueError: the name or an option is unknown (the nearest ones are named) or an option's value is impossible.

    >>> build("r3d_18", num_classes=10, width=16).stage_sizes
    (2, 2, 2, 2)
    >>> build("r3d18", num_classes=10)
    Traceback (most recent call last):
        ...
    ValueError: the model's name must be one of jaxvid.models.MODELS, received 'r3d18'; did you mean 'r3d_18' or ...
    """
    if name not in MODELS:
        raise ValueError(
            f"the model's name must be one of jaxvid.models.MODELS, received {name!r}{closest(name, MODELS)}."
        )
    return MODELS[name](num_classes, **options)
