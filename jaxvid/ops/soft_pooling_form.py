"""What every formulation of SoftPool is: three functions on the same numbers, and how those numbers stay finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array

from jaxvid.ops.pooling_windows import Windows

MAX_TAPS = 64
"""Windows of more taps are not unrolled."""

FLOOR = -1e3
"""Distances below the maximum end here: exp is 0 in float32 and float64, and 0 * FLOOR is 0, unlike 0 * -inf."""

Statistics: TypeAlias = tuple[Array, Array, Array, Array]


class Form(NamedTuple):
    """One formulation.

    With ``d_i = x_i - top`` of the taps of a window, ``top`` their maximum (clipped to finite numbers):

    Attributes:
        pool: ``(x, windows) -> y = max + mean``.
        statistics: ``(x, windows) -> (y, top, total, mean)``, ``total = sum exp(d)``, ``mean = sum exp(d) d / total``,
            all of the shape of ``y``; the last three in the dtype of the arithmetic.
        gather: ``(x, top, a, b, windows) ->`` for every entry of ``x`` the sum of ``exp(d) (a + b d)`` over the windows
            that see it, in the dtype of ``x``.
    """

    pool: Callable[[Array, Windows], Array]
    statistics: Callable[[Array, Windows], Statistics]
    gather: Callable[[Array, Array, Array, Array, Windows], Array]


def finite(x: Array) -> Array:
    """Infinities as the largest finite numbers, so that no difference is NaN; a NaN stays one."""
    largest = float(jnp.finfo(x.dtype).max)
    return jnp.clip(x, -largest, largest)
