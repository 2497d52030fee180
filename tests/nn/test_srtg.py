"""SRTG: the authors' numbers, its starts, its gate, its conversion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn import SRTG
from jaxvid.nn.srtg import from_torch
from jaxvid.ops import recur_reference
from jaxvid.ops.recurrence import NUM_GATES, LayerWeights

CELLS = tuple(NUM_GATES)


def _channels_last(array):
    return jnp.asarray(array.transpose(0, 2, 3, 4, 1))


def _golden_params(data, prefix: str):
    return from_torch({key.removeprefix(prefix): data[key] for key in data if key.startswith(prefix)})


@pytest.mark.data
def test_equals_the_authors_module_in_value_and_gradient(golden):
    data = golden("srtg_module")
    params = _golden_params(data, "w.")
    apply = jax.jit(lambda params, x: SRTG().apply({"params": params}, x))
    y, pull = jax.vjp(apply, params, _channels_last(data["x"]))
    np.testing.assert_allclose(y, _channels_last(data["y_gates_false"]), rtol=1e-4, atol=1e-6)
    grads, x_bar = pull(_channels_last(data["cotangent"]))
    np.testing.assert_allclose(x_bar, _channels_last(data["gx"]), rtol=1e-4, atol=1e-5)
    expected = _golden_params(data, "g.")
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.data
def test_one_pixel_is_its_own_mean(golden):
    data = golden("srtg_module")
    y = SRTG().apply({"params": _golden_params(data, "w.")}, _channels_last(data["x_1x1"]))
    np.testing.assert_allclose(y, _channels_last(data["y_1x1_gates_false"]), rtol=1e-4, atol=1e-6)


@pytest.mark.data
def test_gru_equals_the_authors_module(golden):
    data = golden("sr_gru_module")
    y = SRTG(cell="gru").apply({"params": _golden_params(data, "w.")}, _channels_last(data["x"]))
    np.testing.assert_allclose(y, _channels_last(data["y"]), rtol=1e-4, atol=1e-6)


def _weights(params, num_layers: int) -> list[LayerWeights]:
    names = LayerWeights._fields
    return [LayerWeights(*(params.get(f"{name}_{k}") for name in names)) for k in range(num_layers)]


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_multiplies_by_the_cell_of_the_pooled_activations(cell, num_layers):
    x = jax.random.normal(jax.random.key(0), (2, 3, 2, 5, 4))
    module = SRTG(cell=cell, num_layers=num_layers, initialization="torch")
    variables = jax.jit(module.init)(jax.random.key(1), x)
    weights = _weights(variables["params"], num_layers)
    h = recur_reference(x.mean((2, 3)), weights, cell=cell)
    np.testing.assert_allclose(module.apply(variables, x), x * h[:, :, None, None], rtol=1e-5, atol=1e-7)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    peepholes = 3 * 4 if cell == "peephole_lstm" else 0
    assert count == num_layers * (NUM_GATES[cell] * (2 * 4 * 4 + 2 * 4) + peepholes)


def test_parameters_of_two_lstm_layers_are_the_published_count():
    """16 C^2 + 16 C, torch's two biases counted."""
    shapes = jax.eval_shape(SRTG().init, jax.random.key(0), jnp.zeros((1, 1, 1, 1, 64)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 16 * 64**2 + 16 * 64


@pytest.mark.parametrize("cell", CELLS)
def test_torch_start_is_uniform_within_the_root_of_the_channels(cell):
    x = jnp.zeros((1, 1, 1, 1, 64))
    params = jax.jit(SRTG(cell=cell, initialization="torch").init)(jax.random.key(0), x)["params"]
    for name, leaf in params.items():
        assert 0.9 / 8 < np.abs(leaf).max() <= 1 / 8, name
        np.testing.assert_allclose(np.std(leaf), 1 / 8 / np.sqrt(3), rtol=0.15, err_msg=name)
    assert not np.allclose(params["input_kernel_0"], params["input_kernel_1"])


@pytest.mark.parametrize("channels", [16, 128])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_identity_start_holds_the_factor_near_one_at_every_step(cell, num_layers, channels):
    """Of pooled ReLU activations: positive, about 0.5."""
    x = 0.6 * jnp.abs(jax.random.normal(jax.random.key(1), (8, 8, 1, 1, channels)))
    module = SRTG(cell=cell, num_layers=num_layers)
    h = (module.apply(jax.jit(module.init)(jax.random.key(0), x), x) / x)[:, :, 0, 0]
    if "lstm" in cell:  # from a zero state its first output cannot exceed tanh(1)
        assert 0.62 < h[:, 0].mean() < np.tanh(1)
        assert h[:, 1].mean() > 0.83
        assert 0.9 < h[:, 2:].mean() < 1
        assert np.percentile(h[:, 2:], 1) > 0.7
    else:
        assert h.min() > 0.85
        assert h.max() < 1
    cold = SRTG(cell=cell, num_layers=num_layers, initialization="torch")
    assert np.abs(cold.apply(jax.jit(cold.init)(jax.random.key(0), x), x) / x).mean() < 0.45


@pytest.mark.parametrize("cell", CELLS)
def test_every_parameter_of_the_identity_start_learns(cell):
    x = 0.6 * jnp.abs(jax.random.normal(jax.random.key(1), (4, 4, 1, 1, 6)))
    module = SRTG(cell=cell)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    target = jax.random.normal(jax.random.key(2), x.shape)
    grads = jax.jit(jax.grad(lambda v: jnp.mean(jnp.square(module.apply(v, x) - target))))(variables)["params"]
    for name, grad in grads.items():
        assert np.abs(grad).max() > 1e-6, name


def _gate_case():
    """Two samples: the first one's steps lie far apart and in order, the second is constant in time."""
    # One layer whose output follows the sign of its input in eight binary digits of the step.
    steps = jnp.array([[(t >> bit & 1) * 2 - 1 for bit in range(3)] for t in range(8)], jnp.float32)
    x = jnp.stack([steps, jnp.broadcast_to(steps[:1], steps.shape)])
    x = 3 * jnp.tile(x, (1, 1, 8))[:, :, None, None, :] * jnp.ones((1, 1, 2, 2, 1))
    channels = x.shape[-1]
    params = {
        "input_kernel_0": 3 * jnp.eye(channels),
        "recurrent_kernel_0": jnp.zeros((channels, channels)),
        "input_bias_0": jnp.zeros(channels),
        "recurrent_bias_0": jnp.zeros(channels),
    }
    return {"params": params}, x


@pytest.mark.parametrize("gate_gradient", ["hard", "straight_through"])
def test_cyclic_gate_decides_per_sample_and_sows_the_open_share(gate_gradient):
    variables, x = _gate_case()
    module = SRTG(cell="rnn", num_layers=1, gate="cyclic", gate_gradient=gate_gradient)
    y, collections = jax.jit(lambda v, x: module.apply(v, x, mutable=["gates"]))(variables, x)
    h = np.tanh(3 * np.asarray(x))
    np.testing.assert_allclose(y[0], x[0] * h[0], rtol=1e-5)
    np.testing.assert_array_equal(y[1], x[1])
    assert collections["gates"]["open_fraction"].shape == ()
    assert collections["gates"]["open_fraction"] == 0.5
    np.testing.assert_array_equal(module.apply(variables, x), y)  # nobody asked for the collection


def test_gate_gradient_of_the_closed_sample():
    variables, x = _gate_case()
    variables["params"]["input_kernel_0"] /= 10  # not saturated

    def cell_gradient(gate_gradient, only):
        module = SRTG(cell="rnn", num_layers=1, gate="cyclic", gate_gradient=gate_gradient)
        loss = lambda params: jnp.sum(module.apply({"params": params}, x)[only] ** 2)  # noqa: E731
        return np.abs(jax.grad(loss)(variables["params"])["input_kernel_0"]).max()

    assert cell_gradient("hard", 1) == 0
    assert cell_gradient("straight_through", 1) > 1
    assert cell_gradient("hard", 0) == cell_gradient("straight_through", 0) > 1


def test_fresh_variables_hold_no_gates_and_gate_none_sows_nothing():
    x = jnp.ones((2, 1, 2, 2, 3))
    assert set(SRTG(gate="cyclic").init(jax.random.key(0), x)) == {"params"}
    module = SRTG()
    _, collections = module.apply(module.init(jax.random.key(0), x), x, mutable=["gates"])
    assert not collections


def test_one_step_opens_every_gate():
    x = jax.random.normal(jax.random.key(0), (3, 1, 2, 2, 4))
    gated, plain = SRTG(gate="cyclic"), SRTG()
    variables = plain.init(jax.random.key(1), x)
    y, collections = gated.apply(variables, x, mutable=["gates"])
    np.testing.assert_array_equal(y, plain.apply(variables, x))
    assert collections["gates"]["open_fraction"] == 1


@pytest.mark.parametrize("gate", ["none", "cyclic"])
def test_bfloat16_recurs_in_float32(gate):
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 3, 8)).astype(jnp.bfloat16)
    module = SRTG(gate=gate)
    variables = jax.jit(module.init)(jax.random.key(1), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    y = module.apply(variables, x)
    assert y.dtype == jnp.bfloat16
    exact = module.apply(variables, x.astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-7, atol=1e-3)
    assert SRTG(gate=gate, dtype=jnp.float32).apply(variables, x).dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "lsmt"}, r"cell must be one of .*received cell='lsmt'; did you mean 'lstm'\?"),
        ({"gate": "cylic"}, r"gate must be one of none, cyclic, received gate='cylic'; did you mean 'cyclic'\?"),
        ({"gate_gradient": "soft"}, r"gate_gradient must be one of hard, straight_through, received"),
        ({"initialization": "zeros"}, r"initialization must be one of identity, torch, received"),
        ({"num_layers": 0}, r"num_layers must be >= 1, received num_layers=0\."),
    ],
)
def test_errors_name_the_rule_and_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        SRTG(**options).init(jax.random.key(0), jnp.ones((1, 1, 1, 1, 2)))


def test_from_torch_ignores_the_prefix_and_refuses_what_it_does_not_know():
    kernel, bias = np.arange(8.0).reshape(4, 2), np.arange(4.0)
    params = from_torch({"layer1.0.sar.lstm.weight_hh_l1": kernel, "bias_ih_l0": bias})
    np.testing.assert_array_equal(params["recurrent_kernel_1"], kernel.T)
    np.testing.assert_array_equal(params["input_bias_0"], bias)
    with pytest.raises(ValueError, match=r"must end in .* received 'lstm\.weight_ih_l0_reverse'\."):
        from_torch({"lstm.weight_ih_l0_reverse": kernel})
    with pytest.raises(ValueError, match=r"one module, received a second 'input_bias_0' from 'b\.bias_ih_l0'\."):
        from_torch({"a.bias_ih_l0": bias, "b.bias_ih_l0": bias})
