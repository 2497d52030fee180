"""How modules tell what they see."""

from __future__ import annotations

from types import MappingProxyType

import jax.numpy as jnp

KEEP_LAST = MappingProxyType({"init_fn": lambda: jnp.zeros(()), "reduce_fn": lambda _, new: new})
"""For ``Module.sow``: the last value, instead of Flax's default tuple that grows with every call."""
