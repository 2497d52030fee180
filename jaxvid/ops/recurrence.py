"""Recurrence over time: LSTM, LSTM with peepholes, GRU and the plain (Elman) RNN, one or more layers.

The input projections of all ``T`` steps are one matrix product ahead of the scan; the scan itself carries only what
depends on the previous step. Arithmetic and carries are float32 whatever the input's dtype is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.ops.choices import require_choice

if TYPE_CHECKING:
    from jaxtyping import Array, Float

NUM_GATES = MappingProxyType({"lstm": 4, "peephole_lstm": 4, "gru": 3, "rnn": 1})
"""Cell name -> number ``G`` of matrices stacked along the last axis of a kernel (LSTM: i f g o; GRU: r z n)."""


class LayerWeights(NamedTuple):
    """The weights of one recurrent layer; ``G`` gates are stacked along the last axis, in the order of torch.

    Attributes:
        input_kernel: ``[I G*C]``, multiplies the layer's input.
        recurrent_kernel: ``[C G*C]``, multiplies the previous output ``h``.
        input_bias: ``[G*C]``.
        recurrent_bias: ``[G*C]``. It adds to ``input_bias``, except in the candidate ``n`` of the GRU, where the reset
            gate multiplies it.
        peephole: ``[3 C]``, the diagonal weights of i, f (which see the previous cell state) and o (which sees the
            new one); only ``peephole_lstm`` has them.
    """

    input_kernel: Float[Array, "I GC"]
    recurrent_kernel: Float[Array, "C GC"]
    input_bias: Float[Array, " GC"]
    recurrent_bias: Float[Array, " GC"]
    peephole: Float[Array, "3 C"] | None = None


def recur(x: Float[Array, "N T I"], weights: Sequence[LayerWeights], *, cell: str) -> Float[Array, "N T C"]:
    """Runs a stack of recurrent layers over time, from a zero state, and returns the last layer's outputs.

    With ``a = W x_t + U h_{t-1} + b`` split into the cell's gates:

    * ``lstm`` (Hochreiter & Schmidhuber 1997): ``c = sigmoid(f) c + sigmoid(i) tanh(g)``, ``h = sigmoid(o) tanh(c)``.
    * ``peephole_lstm`` (Gers & Schmidhuber 2000): i and f also see ``p * c_{t-1}``, o sees ``p * c_t``.
    * ``gru`` (Cho et al. 2014, with the reset gate after the product, as in cuDNN and torch):
      ``n = tanh(W_n x + b_n + r (U_n h + b'_n))``, ``h = (1 - z) n + z h``.
    * ``rnn``: ``h = tanh(a)``.

    Args:
        x: The sequences, any float dtype.
        weights: One entry per layer, first layer first.
        cell: One of ``lstm``, ``peephole_lstm``, ``gru``, ``rnn``.

    Returns:
        ``h`` of the top layer at every step, in the dtype of ``x``; values lie in (-1, 1).

    Raises:
        ValueError: Unknown cell, no layer, or a kernel whose shape does not fit the cell.

    >>> import jax.numpy as jnp
    >>> one = LayerWeights(jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.zeros(1), jnp.zeros(1))
    >>> recur(jnp.array([[[0.0], [1.0]]]), [one], cell="rnn").round(3).tolist()[0]
    [[0.0], [0.762...]]
    """
    _check(x, weights, cell)
    h = jnp.swapaxes(x, 0, 1).astype(jnp.float32)  # T N I: lax.scan walks the leading axis
    for layer in weights:
        h = _scan_layer(h, jax.tree.map(lambda w: w.astype(jnp.float32), layer), cell)
    return jnp.swapaxes(h, 0, 1).astype(x.dtype)


def recur_reference(x: Float[Array, "N T I"], weights: Sequence[LayerWeights], *, cell: str) -> Float[Array, "N T C"]:
    """Specification of :func:`recur`: one step after the other, gate by gate, nothing hoisted."""
    _check(x, weights, cell)
    sequence = x.astype(jnp.float32)
    for layer in weights:
        h = c = jnp.zeros((x.shape[0], layer.recurrent_kernel.shape[0]), jnp.float32)
        outputs = []
        for t in range(x.shape[1]):
            of_x = jnp.split(_matmul(sequence[:, t], layer.input_kernel) + layer.input_bias, NUM_GATES[cell], axis=-1)
            of_h = jnp.split(_matmul(h, layer.recurrent_kernel) + layer.recurrent_bias, NUM_GATES[cell], axis=-1)
            if cell == "rnn":
                h = jnp.tanh(of_x[0] + of_h[0])
            elif cell == "gru":
                r, z = (jax.nn.sigmoid(of_x[k] + of_h[k]) for k in (0, 1))
                h = (1 - z) * jnp.tanh(of_x[2] + r * of_h[2]) + z * h
            else:
                i, f, g, o = (a + b for a, b in zip(of_x, of_h, strict=True))
                p_i, p_f, p_o = (0.0, 0.0, 0.0) if layer.peephole is None else layer.peephole
                c_next = jax.nn.sigmoid(f + p_f * c) * c + jax.nn.sigmoid(i + p_i * c) * jnp.tanh(g)
                h = jax.nn.sigmoid(o + p_o * c_next) * jnp.tanh(c_next)
                c = c_next
            outputs.append(h)
        sequence = jnp.stack(outputs, axis=1)
    return sequence.astype(x.dtype)


def _matmul(a: Array, b: Array) -> Array:
    # The default precision of a GPU or TPU would round these float32 products to TF32 or bfloat16.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _scan_layer(x: Array, w: LayerWeights, cell: str) -> Array:
    """One layer on time-major float32 ``[T N I] -> [T N C]``."""
    projected = _matmul(x, w.input_kernel) + w.input_bias
    if cell != "gru":  # the GRU's recurrent bias sits behind its reset gate and cannot be hoisted
        projected = projected + w.recurrent_bias
    zeros = jnp.zeros((x.shape[1], w.recurrent_kernel.shape[0]), jnp.float32)
    start = (zeros, zeros) if "lstm" in cell else zeros
    _, outputs = lax.scan(lambda carry, a: _STEPS[cell](carry, a, w), start, projected)
    return outputs


def _lstm_step(carry: tuple[Array, Array], a: Array, w: LayerWeights) -> tuple[tuple[Array, Array], Array]:
    h, c = carry
    i, f, g, o = jnp.split(a + _matmul(h, w.recurrent_kernel), 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def _peephole_lstm_step(carry: tuple[Array, Array], a: Array, w: LayerWeights) -> tuple[tuple[Array, Array], Array]:
    h, c = carry
    i, f, g, o = jnp.split(a + _matmul(h, w.recurrent_kernel), 4, axis=-1)
    p_i, p_f, p_o = cast("Array", w.peephole)  # this cell is refused without them
    c = jax.nn.sigmoid(f + p_f * c) * c + jax.nn.sigmoid(i + p_i * c) * jnp.tanh(g)
    h = jax.nn.sigmoid(o + p_o * c) * jnp.tanh(c)
    return (h, c), h


def _gru_step(h: Array, a: Array, w: LayerWeights) -> tuple[Array, Array]:
    r_x, z_x, n_x = jnp.split(a, 3, axis=-1)
    r_h, z_h, n_h = jnp.split(_matmul(h, w.recurrent_kernel) + w.recurrent_bias, 3, axis=-1)
    n = jnp.tanh(n_x + jax.nn.sigmoid(r_x + r_h) * n_h)
    z = jax.nn.sigmoid(z_x + z_h)
    h = (1 - z) * n + z * h
    return h, h


def _rnn_step(h: Array, a: Array, w: LayerWeights) -> tuple[Array, Array]:
    h = jnp.tanh(a + _matmul(h, w.recurrent_kernel))
    return h, h


_STEPS: Mapping[str, Callable[[Any, Array, LayerWeights], tuple[Any, Array]]] = MappingProxyType(
    {"lstm": _lstm_step, "peephole_lstm": _peephole_lstm_step, "gru": _gru_step, "rnn": _rnn_step}
)


def _check(x: Array, weights: Sequence[LayerWeights], cell: str) -> None:
    require_choice("cell", cell, NUM_GATES)
    if x.ndim != 3:
        raise ValueError(f"x must have the axes N T C, received shape {x.shape}.")
    if not weights:
        raise ValueError("weights must hold at least one layer, received 0 layers.")
    size = x.shape[-1]
    for k, layer in enumerate(weights):
        hidden = layer.recurrent_kernel.shape[0]
        stacked = NUM_GATES[cell] * hidden
        for name, shape in (
            ("input_kernel", (size, stacked)),
            ("recurrent_kernel", (hidden, stacked)),
            ("input_bias", (stacked,)),
            ("recurrent_bias", (stacked,)),
        ):
            received = getattr(layer, name).shape
            if received != shape:
                raise ValueError(f"{name} of layer {k} of cell {cell!r} must be {shape}, received {received}.")
        if (layer.peephole is None) == (cell == "peephole_lstm"):
            raise ValueError(
                f"peephole weights belong to cell 'peephole_lstm' and to no other, received cell={cell!r} "
                f"{'without' if layer.peephole is None else 'with'} them in layer {k}."
            )
        size = hidden
