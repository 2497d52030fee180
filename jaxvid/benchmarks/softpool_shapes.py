"""The shapes of SoftPool that its tests and the benchmarks share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class SoftpoolCase(NamedTuple):
    """One shape of :func:`jaxvid.ops.softpool`.

    Attributes:
      shape: of ``x``.
      window: sizes along the spatial axes.
      strides: steps along them.
      padding: as the function takes it.
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Any = "VALID"


NETWORK: tuple[SoftpoolCase, ...] = (
    SoftpoolCase((8, 16, 56, 56, 64), (2, 2, 2), (2, 2, 2)),
    SoftpoolCase((8, 16, 56, 56, 64), (3, 3, 3), (2, 2, 2), "SAME"),
    SoftpoolCase((8, 16, 28, 28, 128), (1, 3, 3), (1, 2, 2), "SAME"),
    SoftpoolCase((8, 16, 28, 28, 256), (3, 3, 3), (1, 1, 1), "SAME"),
    SoftpoolCase((8, 16, 28, 28, 256), (1, 2, 2), (1, 2, 2)),
)
"""Shapes of networks."""

SMALL: Mapping[str, SoftpoolCase] = MappingProxyType(
    {
        "3-D": SoftpoolCase((2, 4, 6, 8, 8), (2, 2, 2), (2, 2, 2)),
        "overlapping, odd": SoftpoolCase((1, 5, 7, 6, 3), (3, 3, 3), (2, 2, 2), "SAME"),
        "stride 1": SoftpoolCase((1, 3, 5, 4, 5), (3, 3, 3), (1, 1, 1), ((1, 1), (1, 0), (2, 2))),
        "more than 128 channels": SoftpoolCase((1, 2, 3, 3, 200), (1, 2, 2), (1, 2, 1)),
        "space only": SoftpoolCase((1, 2, 7, 7, 16), (1, 3, 3), (1, 2, 2), (0, 1, 1)),
        "time only": SoftpoolCase((2, 7, 2, 3, 4), (4, 1, 1), (3, 1, 1), (2, 0, 0)),
        "gaps": SoftpoolCase((1, 9, 8, 10, 3), (2, 1, 2), (3, 2, 4)),
        "one window": SoftpoolCase((2, 2, 2, 3, 6), (2, 2, 3), (2, 2, 3)),
        "2-D": SoftpoolCase((2, 9, 8, 7), (3, 2), (1, 3), "SAME"),
        "1-D": SoftpoolCase((2, 11, 8), (3,), (2,), ((2, 0),)),
    }
)
"""Small shapes, each with a reason."""
