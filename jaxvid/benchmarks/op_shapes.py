"""The shapes of the operators that tests and benchmarks share: those of the networks, and small ones (``quick``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from jaxvid.benchmarks import softpool_shapes
from jaxvid.ops.choices import require_choice


@dataclass(frozen=True)
class OpCase:
    """One shape of one operator.

    Attributes:
      op: name of the operator in ``jaxvid.ops``.
      shape: of its input ``x``.
      options: its other arguments by name; ``kernel`` is a shape as well. ``recur`` has ``cell`` and ``num_layers``.
      quick: a small shape, for tests and ``jaxvid bench ops --quick``.
    """

    op: str
    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False


def _conv(shape: tuple, kernel: tuple, strides: Any = (1, 1, 1), groups: int = 1, quick: bool = False) -> OpCase:
    padding = tuple(size // 2 for size in kernel[:3])
    return OpCase("conv3d", shape, {"kernel": kernel, "strides": strides, "padding": padding, "groups": groups}, quick)


def _depthwise(shape: tuple, taps: tuple, strides: tuple = (1, 1, 1), *, quick: bool = False) -> OpCase:
    return _conv(shape, (*taps, 1, shape[-1]), strides, groups=shape[-1], quick=quick)


def _pool(op: str, shape: tuple, window: tuple, strides: tuple, padding: Any, quick: bool = False) -> OpCase:
    return OpCase(op, shape, {"window": window, "strides": strides, "padding": padding}, quick)


def _recur(shape: tuple, cell: str, num_layers: int = 2, quick: bool = False) -> OpCase:
    return OpCase("recur", shape, {"cell": cell, "num_layers": num_layers}, quick)


DEPTHWISE_NETWORK: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((2, 16, 28, 28, 108), (3, 3, 3)),
    ((2, 16, 56, 56, 54), (3, 3, 3), (1, 2, 2)),
    ((2, 16, 112, 112, 24), (5, 1, 1)),
    ((2, 16, 7, 7, 432), (3, 3, 3)),
    ((2, 8, 28, 28, 256), (3, 3, 3), (2, 2, 2)),
)
"""Shape of the input, taps and strides of depthwise layers: X3D's, and the strided one of a CSN."""

DEPTHWISE_SMALL: Mapping[str, tuple[tuple[int, ...], ...]] = MappingProxyType(
    {
        "3x3x3": ((1, 4, 6, 5, 12), (3, 3, 3)),
        "strided, odd": ((1, 5, 7, 6, 5), (3, 3, 3), (2, 2, 2)),
        "space only": ((1, 2, 7, 7, 16), (1, 3, 3), (1, 2, 2)),
        "time only": ((2, 7, 3, 2, 4), (5, 1, 1)),
        "more than 128 channels": ((1, 2, 3, 3, 200), (1, 2, 2), (1, 1, 2)),
        "gaps": ((1, 9, 4, 7, 3), (2, 1, 1), (3, 2, 4)),
        "even": ((2, 3, 4, 5, 6), (2, 4, 2), (1, 1, 2)),
    }
)
"""Small ones, each with a reason."""

_CONVOLUTIONS = (
    # An r3d_18 of width 16 at 16x64x64, batch 16.
    _conv((16, 16, 64, 64, 3), (3, 7, 7, 3, 16), (1, 2, 2)),
    _conv((16, 8, 16, 16, 16), (3, 3, 3, 16, 16)),
    _conv((16, 8, 16, 16, 16), (3, 3, 3, 16, 32), (2, 2, 2)),
    _conv((16, 4, 8, 8, 32), (3, 3, 3, 32, 32)),
    _conv((16, 2, 4, 4, 64), (3, 3, 3, 64, 64)),
    _conv((16, 1, 2, 2, 128), (3, 3, 3, 128, 128)),
    _conv((16, 8, 16, 16, 16), (1, 1, 1, 16, 32), (2, 2, 2)),
    _conv((16, 8, 16, 16, 32), (3, 1, 1, 32, 16)),
    # Full width, batch 2: dense, (2+1)-D, and the depthwise layers of an X3D.
    _conv((2, 8, 56, 56, 64), (3, 3, 3, 64, 64)),
    _conv((2, 8, 56, 56, 64), (1, 3, 3, 64, 64)),
    _conv((2, 8, 56, 56, 64), (3, 1, 1, 64, 64)),
    *(_depthwise(*layer) for layer in DEPTHWISE_NETWORK),
    # Small ones: every formulation, odd sizes, strides, groups.
    _conv((2, 4, 9, 8, 3), (3, 7, 7, 3, 4), (1, 2, 2), quick=True),
    _conv((2, 5, 6, 7, 8), (3, 3, 3, 8, 8), quick=True),
    _conv((2, 4, 6, 6, 8), (3, 1, 1, 8, 4), (2, 1, 1), quick=True),
    *(_depthwise(*layer, quick=True) for layer in DEPTHWISE_SMALL.values()),
)

_POOLINGS = tuple(
    case
    for op in ("max_pool3d", "avg_pool3d", "stochastic_pool3d")
    for case in (
        _pool(op, (2, 16, 56, 56, 64), (3, 3, 3), (2, 2, 2), (1, 1, 1)),
        _pool(op, (4, 8, 28, 28, 128), (1, 2, 2), (1, 2, 2), (0, 0, 0)),
        _pool(op, (2, 3, 5, 6, 4), (3, 3, 3), (2, 2, 2), (1, 1, 1), quick=True),
    )
)

_SOFTPOOL = tuple(
    _pool("softpool", case.shape, case.window, case.strides, case.padding, quick)
    for quick, group in ((False, softpool_shapes.NETWORK), (True, softpool_shapes.SMALL.values()))
    for case in group
)

_RECURRENCES = (
    # To compile the reference, which is unrolled, takes a minute at 32 steps; hence not every pair.
    *(_recur((8, T, 64), cell) for cell in ("lstm", "gru") for T in (8, 16, 32)),
    *(_recur((8, T, C), cell) for cell in ("lstm", "gru") for T, C in ((8, 256), (16, 256), (16, 1024), (8, 2048))),
    _recur((2, 3, 5), "lstm", quick=True),
    _recur((2, 3, 5), "gru", quick=True),
)

CASES: tuple[OpCase, ...] = (
    *_CONVOLUTIONS,
    *_SOFTPOOL,
    *_POOLINGS,
    *_RECURRENCES,
    OpCase("select_frames", (4, 16, 28, 28, 64), {"select": "lowest"}),
    OpCase("select_frames", (2, 6, 4, 3, 5), {"select": "largest_squared"}, quick=True),
    OpCase("resize_trilinear", (4, 8, 14, 14, 64), {"size": (16, 28, 28)}),
    OpCase("resize_trilinear", (2, 2, 3, 4, 5), {"size": (4, 6, 7)}, quick=True),
    OpCase("temporal_shift", (8, 8, 28, 28, 128), {"fold_div": 8}),
    OpCase("temporal_shift", (2, 4, 3, 3, 8), {"fold_div": 8}, quick=True),
    OpCase("cyclic_consistency", (16, 16, 512)),
    OpCase("cyclic_consistency", (2, 4, 5), quick=True),
)
"""Every case, operator by operator."""


def cases(op: str | None = None, *, quick: bool = False) -> Iterator[OpCase]:
    """The cases of one operator, or of all, of the networks' shapes or the small ones.

    Raises:
      ValueError: there is no operator of that name.

    >>> [case.shape for case in cases("temporal_shift", quick=True)]
    [(2, 4, 3, 3, 8)]
    """
    if op is not None:
        require_choice("op", op, dict.fromkeys(case.op for case in CASES))
    return (case for case in CASES if case.quick == quick and op in (None, case.op))


def frozen_options(case: OpCase) -> Mapping[str, Any]:
    """The options without ``kernel``, as the operator takes them."""
    return MappingProxyType({name: value for name, value in case.options.items() if name != "kernel"})
