"""Squeeze-and-Recursion with temporal gates (SRTG).

Layout of the parameters, per layer ``k`` (0 is the first), ``C`` channels, ``G`` gates stacked along the last axis:

==========================  ===========  ==========================================
name                        shape        torch's name (transposed where it has two axes)
==========================  ===========  ==========================================
``input_kernel_{k}``        ``[C G*C]``  ``weight_ih_l{k}`` ``[G*C C]``
``recurrent_kernel_{k}``    ``[C G*C]``  ``weight_hh_l{k}`` ``[G*C C]``
``input_bias_{k}``          ``[G*C]``    ``bias_ih_l{k}``
``recurrent_bias_{k}``      ``[G*C]``    ``bias_hh_l{k}``
``peephole_{k}``            ``[3 C]``    none: only ``peephole_lstm`` has it (i, f, o)
==========================  ===========  ==========================================

The gates stand in torch's order (LSTM: i f g o; GRU: r z n; RNN: one), and torch's two biases stay two, so that
conversion is exact and parameter counts are the published ones. :func:`from_torch` converts one module's arrays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.nn.sowing import KEEP_LAST
from jaxvid.ops.choices import require_choice
from jaxvid.ops.cyclic import GATE_GRADIENTS, cyclic_consistency, gate_product
from jaxvid.ops.recurrence import NUM_GATES, LayerWeights, recur

if TYPE_CHECKING:
    from jaxtyping import Array, Float

GATES = ("none", "cyclic")
INITIALIZATIONS = ("identity", "torch")


class IdentityStart(NamedTuple):
    """How the top layer of a cell starts so that its output is near 1.

    Attributes:
        biases: One value per gate, filled into ``input_bias``; ``recurrent_bias`` starts at 0.
        kernel_scale: Factor on the bound ``1/sqrt(C)`` of the uniform draw of both kernels.
    """

    biases: tuple[float, ...]
    kernel_scale: float


# With h near 1 in all C units, a recurrent kernel of torch's size adds noise of standard deviation 1/sqrt(3) to every
# gate. The LSTM's cell state averages that away; in the GRU and the RNN it would decide the output, hence 1/4.
IDENTITY_STARTS = MappingProxyType(
    {
        "lstm": IdentityStart((2.0, 2.0, 2.0, 3.0), 1.0),  # i f g o
        "peephole_lstm": IdentityStart((2.0, 2.0, 2.0, 3.0), 1.0),  # and the peepholes at 0
        "gru": IdentityStart((0.0, -3.0, 2.0), 0.25),  # r z n: z near 0 lets the candidate n = tanh(2) through
        "rnn": IdentityStart((2.0,), 0.25),
    }
)
"""Start of the top layer with ``initialization="identity"``, by cell.

At the first step an LSTM from a zero state cannot exceed ``tanh(1) = 0.76``; it starts at 0.66 there, at 0.88 one step
later, and tends to 0.95. GRU and RNN start between 0.9 and 0.97 at every step.
"""


class SRTG(nn.Module):
    """Squeeze-and-Recursion, with or without the temporal gate (Stergiou & Poppe 2021; thesis, section 4.2).

    ``y = x * h`` with ``h = cell(mean over H, W of x)``, one factor per step and channel. With ``gate="cyclic"`` this
    holds for the samples whose pooled activations and ``h`` are cyclic consistent in time; the others pass unchanged.

    Attributes:
        cell: ``lstm``, ``peephole_lstm``, ``gru`` or ``rnn``.
        num_layers: Recurrent layers, at least 1.
        gate: ``none`` multiplies always; ``cyclic`` decides per sample (thesis, equations 4.6 and 4.7) and sows the
            share of open samples as the scalar ``open_fraction`` into the collection ``gates``.
        gate_gradient: Of the cyclic gate. ``hard`` gives the cell of a closed sample no gradient;
            ``straight_through`` differentiates as if every gate were open.
        initialization: ``identity`` starts ``h`` near 1; ``torch`` draws everything from ``U(-1/sqrt(C), 1/sqrt(C))``.
        dtype: Of the result; ``None`` keeps the input's. Pooling and recurrence are float32 always.
    """

    cell: str = "lstm"
    num_layers: int = 2
    gate: str = "none"
    gate_gradient: str = "hard"
    initialization: str = "identity"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"]) -> Float[Array, "N T H W C"]:
        """Scales ``x``.

        Args:
            x: Activations.

        Returns:
            An array of the same shape.

        Raises:
            ValueError: An attribute has a value that does not exist.
        """
        self._check()
        pooled = jnp.mean(x.astype(jnp.float32), axis=(2, 3))
        h = recur(pooled, [self._layer(k, x.shape[-1]) for k in range(self.num_layers)], cell=self.cell)
        x = x.astype(self.dtype or x.dtype)
        if self.gate == "none":
            return x * h.astype(x.dtype)[:, :, None, None, :]
        is_open = cyclic_consistency(pooled, h)
        if not self.is_initializing():  # fresh variables are params and batch_stats, nothing else
            self.sow("gates", "open_fraction", jnp.mean(is_open.astype(jnp.float32)), **KEEP_LAST)
        return gate_product(x, h, is_open, gradient=self.gate_gradient)

    def _layer(self, k: int, channels: int) -> LayerWeights:
        stacked = NUM_GATES[self.cell] * channels
        bound = 1 / math.sqrt(channels)
        kernel_init = peephole_init = input_bias_init = recurrent_bias_init = _uniform(bound)
        if self.initialization == "identity" and k == self.num_layers - 1:
            start = IDENTITY_STARTS[self.cell]
            kernel_init, input_bias_init = _uniform(bound * start.kernel_scale), _fill_gates(start.biases)
            recurrent_bias_init = peephole_init = nn.initializers.zeros
        peephole = None
        if self.cell == "peephole_lstm":
            peephole = self.param(f"peephole_{k}", peephole_init, (3, channels), jnp.float32)
        return LayerWeights(
            self.param(f"input_kernel_{k}", kernel_init, (channels, stacked), jnp.float32),
            self.param(f"recurrent_kernel_{k}", kernel_init, (channels, stacked), jnp.float32),
            self.param(f"input_bias_{k}", input_bias_init, (stacked,), jnp.float32),
            self.param(f"recurrent_bias_{k}", recurrent_bias_init, (stacked,), jnp.float32),
            peephole,
        )

    def _check(self) -> None:
        for name, allowed in (
            ("cell", tuple(NUM_GATES)),
            ("gate", GATES),
            ("gate_gradient", GATE_GRADIENTS),
            ("initialization", INITIALIZATIONS),
        ):
            require_choice(name, getattr(self, name), allowed)
        if self.num_layers < 1:
            raise ValueError(f"num_layers must be >= 1, received num_layers={self.num_layers}.")


def _uniform(bound: float) -> nn.initializers.Initializer:
    def draw(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def _fill_gates(values: tuple[float, ...]) -> nn.initializers.Initializer:
    def fill(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        del key  # nothing is drawn
        return jnp.repeat(jnp.asarray(values, dtype), shape[0] // len(values))

    return fill


_TORCH_NAMES = MappingProxyType(
    {
        "weight_ih": "input_kernel",
        "weight_hh": "recurrent_kernel",
        "bias_ih": "input_bias",
        "bias_hh": "recurrent_bias",
    }
)


def from_torch(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts the arrays of one torch ``LSTM``, ``GRU`` or ``RNN`` into the parameters of :class:`SRTG`.

    Args:
        arrays: By torch's names, ``weight_ih_l0`` … ``bias_hh_l1``; what stands before the last dot (``sar.lstm.``) is
            ignored.

    Returns:
        The parameters by the names of this module's table.

    Raises:
        ValueError: A name that torch's unidirectional cells do not have, or one that occurs twice.

    >>> import numpy as np
    >>> {name: a.shape for name, a in from_torch({"lstm.weight_ih_l0": np.zeros((8, 2))}).items()}
    {'input_kernel_0': (2, 8)}
    """
    params: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        match = re.fullmatch(r"(?:.*\.)?(weight_ih|weight_hh|bias_ih|bias_hh)_l(\d+)", key)
        if match is None:
            raise ValueError(f"a recurrent key must end in (weight|bias)_(ih|hh)_l<layer>, received {key!r}.")
        name = f"{_TORCH_NAMES[match[1]]}_{match[2]}"
        if name in params:
            raise ValueError(f"the arrays must belong to one module, received a second {name!r} from {key!r}.")
        params[name] = np.ascontiguousarray(np.asarray(array).T)
    return params
