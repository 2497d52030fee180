"""Flax's own recurrent cells under ``nn.RNN``, with our weights in their layout: what ``recur`` is compared with."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.ops import LayerWeights

NAMES = MappingProxyType({"lstm": ("OptimizedLSTMCell", "LSTMCell"), "gru": ("GRUCell",)})
"""Cell of ``recur`` -> Flax's classes of the same definition."""

_GATES = MappingProxyType({"OptimizedLSTMCell": "ifgo", "LSTMCell": "ifgo", "GRUCell": "rzn"})


def to_params(name: str, weights: LayerWeights) -> dict[str, Any]:
    """The parameters with which Flax's cell computes what ours does.

    Flax keeps one bias per gate, the sum of our two: the LSTM's at its recurrent kernels, the GRU's at its input
    kernels. Only the GRU's candidate has both.

    >>> import numpy as np
    >>> one = LayerWeights(np.ones((1, 3)), np.ones((1, 3)), np.full(3, 0.5), np.full(3, 0.25))
    >>> {gate: float(p["bias"][0]) for gate, p in to_params("GRUCell", one).items() if "bias" in p}
    {'ir': 0.75, 'iz': 0.75, 'in': 0.5, 'hn': 0.25}
    """
    gates = _GATES[name]
    kernels_x, kernels_h, biases_x, biases_h = (jnp.split(w, len(gates), axis=-1) for w in weights[:4])
    params: dict[str, Any] = {f"i{gate}": {"kernel": kernel} for gate, kernel in zip(gates, kernels_x, strict=True)}
    params |= {f"h{gate}": {"kernel": kernel} for gate, kernel in zip(gates, kernels_h, strict=True)}
    for gate, of_x, of_h in zip(gates, biases_x, biases_h, strict=True):
        if gate == "n":
            params["in"]["bias"], params["hn"]["bias"] = of_x, of_h
        else:
            params[f"{'i' if name == 'GRUCell' else 'h'}{gate}"]["bias"] = of_x + of_h
    return params


def run(name: str, x: jax.Array, *layers: dict[str, Any]) -> Any:
    """A stack of Flax's cells over ``[N T C]``; every layer has as many units as the input has channels."""
    rnn = nn.RNN(getattr(nn, name)(x.shape[-1]))
    for params in layers:
        x = rnn.apply({"params": {"cell": params}}, x)  # pyright: ignore[reportAssignmentType]
    return x
