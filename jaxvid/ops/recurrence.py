"""Recurrence over time: LSTM, LSTM with peepholes, GRU and the plain (Elman) RNN, one or more layers.

The input projections of all ``T`` steps are one matrix product ahead of the scan, the gradient of the recurrent kernel
is one product after the reversed scan; the scans themselves hold only what depends on the previous step. Arithmetic and
carries are float32 whatever the input's dtype is.

Milliseconds, forward / forward and backward, of two layers at batch 8 on a CPU (two cores of an AMD EPYC in shared use,
jax 0.10.2, flax 0.12.8; the fastest of several interleaved calls; ``jaxvid bench ops --op=recur`` measures the same
formulations). Flax is the faster one of its cells for each figure:

=====  ===  =====  =============  =============
cell   T    C      ``recur``      Flax
=====  ===  =====  =============  =============
lstm   8    64     0.18 / 0.60    0.23 / 0.80
lstm   32   64     0.52 / 2.45    0.59 / 3.15
lstm   16   256    3.54 / 14.2    3.42 / 22.1
lstm   16   1024   90 / 394       160 / 801
lstm   8    2048   209 / 848      364 / 1415
gru    8    64     0.14 / 0.48    0.18 / 0.85
gru    32   64     0.44 / 1.55    0.56 / 2.70
gru    16   256    2.31 / 8.99    2.26 / 14.1
gru    16   1024   47 / 140       88 / 371
gru    8    2048   129 / 484      196 / 967
=====  ===  =====  =============  =============

The unrolled reference takes 0.17 / 0.82 at lstm 8x64, and 137 forward at lstm 16x1024. A scan unrolled at T = 8, C = 64
runs forward in the time of this one, in which every gate is an array of its own, and compiles about 4 times longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.ops.choices import require_choice

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    Gates = tuple[Array, ...]
    State = tuple[Array, ...]

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
        ``h`` of the top layer at every step, in the dtype of ``x``; values lie in (-1, 1). It has a ``custom_vjp``:
        reverse mode of any order and forward over reverse (``jax.hessian``) work, ``jax.jvp`` of the function itself
        does not (:func:`recur_reference` has it).

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
    projected = _split(_matmul(x, w.input_kernel) + w.input_bias, cell)
    return _recurrence(cell, projected, w.recurrent_kernel, w.recurrent_bias, w.peephole)


def _split(stacked: Array, cell: str) -> Gates:
    return tuple(jnp.split(stacked, NUM_GATES[cell], axis=-1))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recurrence(cell: str, projected: Gates, kernel: Array, bias: Array, peephole: Array | None) -> Array:
    """What depends on the previous step: every gate's projected input ``[T N C]`` -> ``h`` ``[T N C]``."""
    return _walk(cell, projected, kernel, bias, peephole)[1][0]


def _walk(cell: str, projected: Gates, kernel: Array, bias: Array, peephole: Array | None) -> tuple[Gates, State]:
    """The sums that enter the cell at every step, and the states that leave it, ``h`` first."""

    def step(state: State, of_x: Gates) -> tuple[State, tuple[Gates, State]]:
        of_h = _split(_matmul(state[0], kernel) + bias, cell)
        if cell == "gru":  # the reset gate comes between the two parts of the candidate
            gates = (of_x[0] + of_h[0], of_x[1] + of_h[1], of_h[2], of_x[2])
        else:
            gates = tuple(a + b for a, b in zip(of_x, of_h, strict=True))
        state = _CELLS[cell](gates, state, peephole)
        return state, (gates, state)

    zeros = jnp.zeros_like(projected[0][0])
    return lax.scan(step, (zeros, zeros) if "lstm" in cell else (zeros,), projected)[1]


def _recurrence_forward(cell: str, projected: Gates, kernel: Array, bias: Array, peephole: Array | None) -> Any:
    gates, states = _walk(cell, projected, kernel, bias, peephole)
    return states[0], (gates, states, kernel, peephole)


def _recurrence_backward(cell: str, saved: Any, cotangent: Array) -> Any:
    gates, states, kernel, peephole = saved
    before = jax.tree.map(lambda s: jnp.concatenate([jnp.zeros_like(s[:1]), s[:-1]]), states)

    def step(d_state: State, at_t: Any) -> tuple[State, Any]:
        gates_t, before_t, cotangent_t = at_t
        _, pull = jax.vjp(_CELLS[cell], gates_t, before_t, peephole)
        d_gates, (d_h, *d_rest), d_peephole = pull((d_state[0] + cotangent_t, *d_state[1:]))
        d_of_h = jnp.concatenate(d_gates[: NUM_GATES[cell]], axis=-1)
        d_h = d_h + _matmul(d_of_h, kernel.T)
        return (d_h, *d_rest), (d_of_h, d_gates[NUM_GATES[cell] :], d_peephole)

    end = jax.tree.map(lambda s: jnp.zeros_like(s[0]), states)
    _, (d_of_h, d_last, d_peephole) = lax.scan(step, end, (gates, before, cotangent), reverse=True)
    # One product over all steps: as a carry of the scan, this [C G*C] array would be read and written T times.
    d_kernel = jnp.einsum("tni,tnj->ij", before[0], d_of_h, precision=lax.Precision.HIGHEST)
    d_projected = (*_split(d_of_h, cell)[: NUM_GATES[cell] - len(d_last)], *d_last)
    return d_projected, d_kernel, d_of_h.sum((0, 1)), jax.tree.map(lambda d: d.sum(0), d_peephole)


_recurrence.defvjp(_recurrence_forward, _recurrence_backward)


def _lstm(gates: Gates, state: State, peephole: Array | None) -> State:
    i, f, g, o = gates
    c = state[1]
    if peephole is not None:
        i, f = i + peephole[0] * c, f + peephole[1] * c
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    if peephole is not None:
        o = o + peephole[2] * c
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(gates: Gates, state: State, peephole: None) -> State:
    r, z, n_of_h, n_of_x = gates
    n = jnp.tanh(n_of_x + jax.nn.sigmoid(r) * n_of_h)
    z = jax.nn.sigmoid(z)
    return ((1 - z) * n + z * state[0],)


def _rnn(gates: Gates, state: State, peephole: None) -> State:
    return (jnp.tanh(gates[0]),)


_CELLS: Mapping[str, Callable[[Gates, State, Any], State]] = MappingProxyType(
    {"lstm": _lstm, "peephole_lstm": _lstm, "gru": _gru, "rnn": _rnn}
)
"""Cell -> its elementwise part; the GRU has its candidate's two parts as two gates, that of ``h`` first."""


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
