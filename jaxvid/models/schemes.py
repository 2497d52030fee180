"""What a code calls the arrays of a network, and how it lays them out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from jaxvid.models.options import SRTGOptions

TORCH_LEAVES: Mapping[str, str] = MappingProxyType(
    {
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    }
)
"""Our names of the arrays of a layer -> torch's."""

RECURRENT_LEAVES: Mapping[str, str] = MappingProxyType(
    {
        "input_kernel": "weight_ih",
        "recurrent_kernel": "weight_hh",
        "input_bias": "bias_ih",
        "recurrent_bias": "bias_hh",
    }
)
"""The same of a recurrent cell, before the number of the layer."""
_TORCH_AXES: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {5: (2, 3, 4, 1, 0), 4: (2, 3, 1, 0), 3: (2, 1, 0), 2: (1, 0), 1: (0,), 0: ()}
)


@dataclass(frozen=True)
class Scheme:
    """One code's way of storing a network; a network that several codes have published has several.

    Attributes:
      code: whose it is.
      key: ``(name, model, path) -> key`` of one variable, whose path begins with its collection.
      layout: ``"torch"`` puts the output channels first, ``"flax"`` has our order. In both, taps of length 1 may
        be there or not: a 2-D kernel is a 3-D one of one frame, a matrix a 1x1x1 kernel.
      names: parts of the names of the networks that are this code's alone; none: all those that are no other's.
      options: of :func:`jaxvid.models.build`, where the code's network differs from the paper's.
      defaults: our names of arrays that the code may leave out, and the number that they are then full of.
    """

    code: str
    key: Callable[[str, Any, tuple[str, ...]], str]
    layout: Literal["torch", "flax"] = "torch"
    names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, float] = field(default_factory=dict)

    def num_outputs(self, shape: tuple[int, ...]) -> int:
        """The output channels of a stored kernel.

        >>> Scheme("torch", lambda *_: "").num_outputs((400, 1024, 1, 1, 1))
        400
        """
        return shape[-1 if self.layout == "flax" else 0]

    def fits(self, stored: tuple[int, ...], shape: tuple[int, ...], *, inflate: bool = False) -> bool:
        """Whether :meth:`to_flax` makes our ``shape`` of an array of the shape ``stored``.

        >>> torch = Scheme("torch", lambda *_: "")
        >>> torch.fits((8, 3, 7, 5), (1, 7, 5, 3, 8)), torch.fits((8, 3, 7, 5), (4, 7, 5, 3, 8))
        (True, False)
        """
        if self.layout == "torch":
            if len(stored) not in _TORCH_AXES:
                return False
            stored = tuple(stored[axis] for axis in _TORCH_AXES[len(stored)])
        if inflate and len(shape) == 5 and len(stored) == 4:
            shape = shape[1:]
        return _significant(stored) == _significant(shape)

    def to_flax(self, array: Any, shape: tuple[int, ...]) -> np.ndarray:
        """A stored array that fits, in our order of axes and in float32; a 2-D kernel is spread over our frames.

        >>> Scheme("torch", lambda *_: "").to_flax(np.ones((8, 3, 7, 5)), (4, 7, 5, 3, 8))[1, 0, 0, 0, 0].item()
        0.25
        """
        array = np.asarray(array)
        if self.layout == "torch":
            array = array.transpose(_TORCH_AXES[array.ndim])
        if array.size != math.prod(shape):
            array = np.broadcast_to(array.astype(np.float32) / shape[0], shape)
        return np.array(array.reshape(shape), np.float32, order="C")

    def stored_shape(self, shape: tuple[int, ...], axes: int | None = None) -> tuple[int, ...]:
        """The shape in which the code stores an array of our ``shape``, with that number of axes where it can be.

        >>> torch = Scheme("torch", lambda *_: "")
        >>> torch.stored_shape((3, 5, 7, 1, 8)), torch.stored_shape((2, 8), 5)
        ((8, 1, 3, 5, 7), (8, 2, 1, 1, 1))
        """
        if axes not in (None, len(shape)):
            kept = _significant(shape)
            shape = (1,) * (axes - len(kept)) + kept if axes >= len(kept) else shape
        if self.layout == "flax" or len(shape) not in _TORCH_AXES:
            return shape
        order = _TORCH_AXES[len(shape)]
        return tuple(shape[order.index(axis)] for axis in range(len(shape)))


def _significant(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without the axes of length 1 of a kernel's taps, as the time of a 2-D convolution, and before a vector.

    >>> _significant((1, 7, 7, 3, 64)), _significant((3, 1, 1, 8, 8)), _significant((1, 1, 1, 1, 64))
    ((7, 7, 3, 64), (3, 8, 8), (64,))
    """
    kept = (*(length for length in shape[:-2] if length != 1), *shape[-2:])
    return kept[1:] if len(kept) == 2 and kept[0] == 1 else kept


def recurrent_key(srtg: SRTGOptions | None, leaf: str) -> str:
    """The torch name of an array of an SRTG's cell, below the name of the SRTG.

    Raises:
      ValueError: torch does not have such a cell.

    >>> recurrent_key(SRTGOptions(cell="gru"), "input_kernel_1")
    'gru.weight_ih_l1'
    """
    cell = srtg.cell if srtg else ""
    kind, layer = leaf.rsplit("_", 1)
    if kind not in RECURRENT_LEAVES:
        raise ValueError(f"cell must be lstm, gru or rnn, the cells that torch has, received cell={cell!r}.")
    return f"{cell}.{RECURRENT_LEAVES[kind]}_l{layer}"
