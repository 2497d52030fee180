"""recur: the golden LSTM and GRU of torch, its own specification, literals, laws and errors."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops import LayerWeights, recur, recur_reference
from jaxvid.ops.recurrence import NUM_GATES

CELLS = tuple(NUM_GATES)


def _weights(cell: str, sizes: tuple[int, ...], seed: int = 0) -> list[LayerWeights]:
    """Random weights of a stack; sizes are the input's and then every layer's width."""
    layers = []
    for k, (inputs, hidden) in enumerate(itertools.pairwise(sizes)):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), k), 5)
        stacked = NUM_GATES[cell] * hidden
        shapes = ((inputs, stacked), (hidden, stacked), (stacked,), (stacked,), (3, hidden))
        arrays = [0.7 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
        layers.append(LayerWeights(*arrays[:4], arrays[4] if cell == "peephole_lstm" else None))
    return layers


def _golden_weights(arrays, prefix: str) -> list[LayerWeights]:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [LayerWeights(*(jnp.asarray(arrays[f"{prefix}{name}_l{k}"].T) for name in names)) for k in range(2)]


@pytest.mark.data
def test_equals_torch_lstm_in_value_and_gradient(golden):
    data = golden("srtg_module")
    weights = _golden_weights(data, "w.lstm.")
    pooled = jnp.asarray(data["pooled"].transpose(0, 2, 1))
    h = recur(pooled, weights, cell="lstm")
    np.testing.assert_allclose(h, data["lstm_out_TBC"].transpose(1, 0, 2), rtol=1e-4, atol=1e-6)
    # d y / d h of y = x * h is the sum over space of x * cotangent.
    h_bar = jnp.asarray((data["x"] * data["cotangent"]).sum((3, 4)).transpose(0, 2, 1))
    grads = jax.grad(lambda w: jnp.sum(recur(pooled, w, cell="lstm") * h_bar))(weights)
    for received, expected in zip(grads, _golden_weights(data, "g.lstm."), strict=True):
        for name in LayerWeights._fields[:4]:
            np.testing.assert_allclose(getattr(received, name), getattr(expected, name), rtol=1e-4, atol=1e-5)


@pytest.mark.data
def test_equals_torch_gru(golden):
    data = golden("sr_gru_module")
    pooled = jnp.asarray(data["x"].mean((3, 4)).transpose(0, 2, 1))
    h = recur(pooled, _golden_weights(data, "w.op."), cell="gru")
    np.testing.assert_allclose(h, data["gru_out"][..., 0, 0].transpose(0, 2, 1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 4), (3, 5, 2)])
@pytest.mark.parametrize("cell", CELLS)
def test_equals_the_reference_in_value_and_gradient(cell, sizes):
    weights = _weights(cell, sizes)
    x = jax.random.normal(jax.random.key(1), (2, 5, sizes[0]))
    cotangent = jnp.sin(jnp.arange(2.0 * 5 * sizes[-1])).reshape(2, 5, sizes[-1])

    @jax.jit
    def run(x, weights):
        results = []
        for function in (recur, recur_reference):
            y, pull = jax.vjp(lambda x, w, f=function: f(x, w, cell=cell), x, weights)
            results.append((y, *pull(cotangent)))
        return results

    received, expected = run(x, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), received, expected)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected))


def _sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def test_lstm_with_peepholes_by_hand():
    """One unit, two steps, every weight different; the output gate sees the new cell state, i and f the old one."""
    w, u, b, r = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], [0.01, 0.02, 0.03, 0.04], [0.05, 0.06, 0.07, 0.08]
    p = [0.9, -0.8, 0.7]
    h = c = 0.0
    expected = []
    for x in (1.0, -2.0):
        i, f, g, o = (w[k] * x + u[k] * h + b[k] + r[k] for k in range(4))
        c_new = _sigmoid(f + p[1] * c) * c + _sigmoid(i + p[0] * c) * math.tanh(g)
        h = _sigmoid(o + p[2] * c_new) * math.tanh(c_new)
        c = c_new
        expected.append(h)
    layer = LayerWeights(*(jnp.array(a) for a in ([w], [u], b, r)), jnp.array(p)[:, None])
    for function in (recur, recur_reference):
        y = function(jnp.array([[[1.0], [-2.0]]]), [layer], cell="peephole_lstm")
        np.testing.assert_allclose(y.ravel(), expected, rtol=1e-5)


def test_gru_resets_its_recurrent_bias_too():
    """The candidate is tanh(W x + b + r (U h + b')): at h = 0 the reset gate still scales b'."""
    layer = LayerWeights(jnp.zeros((1, 3)), jnp.zeros((1, 3)), jnp.array([0.0, -50.0, 0.3]), jnp.array([0.0, 0.0, 0.8]))
    y = recur(jnp.zeros((1, 1, 1)), [layer], cell="gru")
    np.testing.assert_allclose(y.item(), math.tanh(0.3 + 0.5 * 0.8), rtol=1e-6)


def test_peepholes_of_zero_are_the_plain_lstm():
    weights = _weights("lstm", (3, 4, 4))
    with_zeros = [w._replace(peephole=jnp.zeros((3, 4))) for w in weights]
    x = jax.random.normal(jax.random.key(1), (2, 4, 3))
    plain = recur(x, weights, cell="lstm")
    np.testing.assert_allclose(recur(x, with_zeros, cell="peephole_lstm"), plain, rtol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_laws(cell):
    """Causal in time, equivariant over the batch, bounded by 1, right at one step, bfloat16 in and out."""
    weights = _weights(cell, (3, 4, 4))
    run = jax.jit(lambda x: recur(x, weights, cell=cell))
    x = jax.random.normal(jax.random.key(2), (3, 5, 3))
    y = run(x)
    assert np.abs(y).max() < 1
    np.testing.assert_array_equal(run(x.at[:, 3:].add(1.0))[:, :3], y[:, :3])
    assert np.abs(run(x.at[:, 0].add(1.0)) - y)[:, 4].max() > 1e-4  # and it remembers
    np.testing.assert_allclose(run(x[jnp.array([2, 0, 1])]), y[jnp.array([2, 0, 1])], rtol=1e-6)
    np.testing.assert_allclose(recur(x[:, :1], weights, cell=cell), y[:, :1], rtol=1e-5)
    half = run(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    exact = run(x.astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_array_equal(half, exact.astype(jnp.bfloat16))  # rounded once, at the end


def _in_float64(x: np.ndarray, weights: list, cell: str) -> np.ndarray:
    """The cells once more, in NumPy."""

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    for w, u, b, r, p in weights:
        h = c = np.zeros((x.shape[0], u.shape[0]))
        outputs = []
        for t in range(x.shape[1]):
            of_x, of_h = (np.split(a, NUM_GATES[cell], -1) for a in (x[:, t] @ w + b, h @ u + r))
            if cell == "rnn":
                h = np.tanh(of_x[0] + of_h[0])
            elif cell == "gru":
                z = sigmoid(of_x[1] + of_h[1])
                h = (1 - z) * np.tanh(of_x[2] + sigmoid(of_x[0] + of_h[0]) * of_h[2]) + z * h
            else:
                i, f, g, o = (a + b for a, b in zip(of_x, of_h, strict=True))
                p_i, p_f, p_o = np.zeros((3, 1)) if p is None else p
                c = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
                h = sigmoid(o + p_o * c) * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs, 1)
    return x


@pytest.mark.parametrize(("num_frames", "num_layers"), [(1, 1), (2, 3), (8, 2), (33, 1)])
@pytest.mark.parametrize("cell", CELLS)
def test_values_and_gradients_in_float64(cell, num_frames, num_layers):
    """At any length and depth: the gradient of each array along a random direction is a difference quotient."""
    weights = _weights(cell, (3,) + (2,) * num_layers)
    x = jax.random.normal(jax.random.key(3), (2, num_frames, 3))
    cotangent = np.sin(np.arange(4.0 * num_frames)).reshape(2, num_frames, 2)
    y, pull = jax.vjp(lambda x, w: recur(x, w, cell=cell), x, weights)
    leaves, tree = jax.tree.flatten((x, weights))
    exact = [np.asarray(leaf, np.float64) for leaf in leaves]
    np.testing.assert_allclose(y, _in_float64(*jax.tree.unflatten(tree, exact), cell), rtol=1e-5, atol=1e-6)
    random = np.random.default_rng(0)
    for k, gradient in enumerate(jax.tree.leaves(pull(jnp.asarray(cotangent, jnp.float32)))):
        direction = random.standard_normal(exact[k].shape)
        ends = []
        for step in (1e-5, -1e-5):
            moved = [leaf + step * direction if j == k else leaf for j, leaf in enumerate(exact)]
            ends.append((_in_float64(*jax.tree.unflatten(tree, moved), cell) * cotangent).sum())
        np.testing.assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", ["peephole_lstm", "gru"])
def test_second_derivatives_in_reverse_and_forward_over_reverse(cell):
    weights = _weights(cell, (2, 2))
    x = jax.random.normal(jax.random.key(4), (1, 2, 2))
    direction = jax.tree.map(jnp.cos, weights)

    def products(function):
        gradient = jax.grad(lambda w: jnp.sum(function(x, w, cell=cell) ** 2))
        forward = jax.jvp(gradient, (weights,), (direction,))[1]
        reverse = jax.grad(lambda w: sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient(w), direction))))(weights)
        return forward, reverse

    received, expected = jax.jit(lambda: (products(recur), products(recur_reference)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), received, expected)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-2
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: recur(x, weights, cell=cell), (x,), (x,))


def test_sequences_may_be_mapped():
    weights = _weights("gru", (3, 4))
    x = jax.random.normal(jax.random.key(5), (3, 2, 5, 3))
    apart = jnp.stack([recur(clip, weights, cell="gru") for clip in x])
    np.testing.assert_allclose(jax.vmap(lambda clip: recur(clip, weights, cell="gru"))(x), apart, rtol=1e-6, atol=1e-7)


def test_what_does_not_recur_is_outside_of_the_scan():
    """The products with the input kernel, and the gradient of the recurrent one: in the loop is one product a step."""
    weights, x = _weights("lstm", (3, 4)), jnp.zeros((2, 7, 3))
    jaxpr = jax.make_jaxpr(jax.grad(lambda w: jnp.sum(recur(x, w, cell="lstm"))))(weights).jaxpr
    scans = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    assert [(scan.params["length"], scan.params["reverse"]) for scan in scans] == [(7, False), (7, True)]
    for scan in scans:
        inside = str(scan.params["jaxpr"])
        assert inside.count("dot_general[") == 1
        assert (4, 16) not in [variable.aval.shape for variable in scan.outvars]  # no gradient of U is carried
    assert sum(e.primitive.name == "dot_general" for e in jaxpr.eqns) == 3  # x W, and the gradients of W and U


@pytest.mark.parametrize("function", [recur, recur_reference])
def test_errors_name_the_rule_and_the_value(function):
    x, weights = jnp.zeros((2, 4, 3)), _weights("lstm", (3, 4))
    with pytest.raises(ValueError, match=r"cell must be one of lstm, .*received cell='lstn'; did you mean 'lstm'\?"):
        function(x, weights, cell="lstn")
    with pytest.raises(ValueError, match=r"x must have the axes N T C, received shape \(4, 3\)\."):
        function(x[0], weights, cell="lstm")
    with pytest.raises(ValueError, match=r"weights must hold at least one layer, received 0 layers\."):
        function(x, [], cell="lstm")
    with pytest.raises(ValueError, match=r"input_kernel of layer 0 of cell 'gru' .* \(3, 12\), received \(3, 16\)\."):
        function(x, weights, cell="gru")
    with pytest.raises(ValueError, match=r"input_kernel of layer 1 .* must be \(4, 16\), received \(3, 16\)\."):
        function(x, weights * 2, cell="lstm")
    with pytest.raises(ValueError, match=r"peephole weights belong .* cell='peephole_lstm' without them in layer 0\."):
        function(x, weights, cell="peephole_lstm")
    with pytest.raises(ValueError, match=r"peephole weights belong .* cell='lstm' with them in layer 0\."):
        function(x, [weights[0]._replace(peephole=jnp.zeros((3, 4)))], cell="lstm")
