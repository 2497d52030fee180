"""What torch calls the arrays of a layer, whatever the layer is called."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from jaxvid.models.options import SRTGOptions

LEAVES: Mapping[str, str] = MappingProxyType(
    {
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    }
)
"""Our name of an array of a convolution, normalisation or matrix product -> torch's."""

_RECURRENT_LEAVES: Mapping[str, str] = MappingProxyType(
    {
        "input_kernel": "weight_ih",
        "recurrent_kernel": "weight_hh",
        "input_bias": "bias_ih",
        "recurrent_bias": "bias_hh",
    }
)


def recurrent_name(srtg: SRTGOptions | None, leaf: str) -> str:
    """The name of a recurrence's array, its cell first: ``lstm.weight_ih_l0``.

    Raises:
      ValueError: torch has no such cell.
    """
    cell = srtg.cell if srtg else ""
    kind, layer = leaf.rsplit("_", 1)
    if kind not in _RECURRENT_LEAVES:
        raise ValueError(f"cell must be lstm, gru or rnn, the cells that torch has, received cell={cell!r}.")
    return f"{cell}.{_RECURRENT_LEAVES[kind]}_l{layer}"
