"""The temporal adaptive module: the authors' numbers, a literal, laws, its start, errors."""

import functools
import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn import TAM
from jaxvid.nn.temporal_adaptive import convolve_frames

NAMES = {  # the authors' -> ours
    "G.0": "frames", "G.1": "frames_norm", "G.3": "taps", "L.0": "reduce", "L.1": "reduce_norm", "L.3": "excite",
}  # fmt: skip
LEAVES = {"bias": "bias", "running_mean": "mean", "running_var": "var"}


def torch_shapes(channels, frames, k):
    """The authors' state dict: two Linear layers over time, two Conv1d."""
    shapes = {"G.0.weight": (2 * frames, frames), "G.3.weight": (k, 2 * frames),
              "L.0.weight": (channels // 4, channels, k), "L.3.weight": (channels, channels // 4, 1)}  # fmt: skip
    for norm, width in (("G.1", 2 * frames), ("L.1", channels // 4)):
        shapes |= {f"{norm}.{leaf}": (width,) for leaf in ("bias", "running_mean", "running_var", "weight")}
    return dict(sorted(shapes.items()))


def to_flax(flat, shapes):
    """Our variables from the authors' arrays, which are stored one behind the other."""
    variables, start = {}, 0
    for key, shape in shapes.items():
        array = flat[start : start + math.prod(shape)].reshape(shape)
        start += array.size
        layer, _, leaf = key.rpartition(".")
        if len(shape) == 1:
            name = LEAVES.get(leaf, "scale")
        else:
            name, array = "kernel", array.T if len(shape) == 2 else array.transpose(2, 1, 0)[:, None, None]
        variables["batch_stats" if "running" in leaf else "params", NAMES[layer], name] = array
    assert start == len(flat)
    return flax.traverse_util.unflatten_dict(variables)


@pytest.mark.parametrize("case", ["k3", "odd", "k5", "one"])
def test_equals_the_authors(case, golden):
    """Evaluation, training, running statistics and all gradients: 8 frames, 5 frames and 6 channels, K = 5, 1 frame."""
    stored = golden("tam_module")
    part = lambda name: stored[f"{case}.{name}"]  # noqa: E731
    x, cotangent = (jnp.asarray(np.moveaxis(part(name), 2, -1)) for name in ("x", "cotangent"))
    k = 5 if case == "k5" else 3
    shapes = torch_shapes(x.shape[-1], x.shape[1], k)
    module, variables = TAM(k), to_flax(part("w"), shapes)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    evaluate = jax.jit(functools.partial(module.apply, train=False))
    close(evaluate(variables, x), np.moveaxis(part("y_eval"), 2, -1))

    def train(params, x):
        y, state = module.apply(variables | {"params": params}, x, True, mutable=["batch_stats"])
        return jnp.vdot(y, cotangent), (y, state["batch_stats"])

    gradients, (y, statistics) = jax.jit(jax.grad(train, argnums=(0, 1), has_aux=True))(variables["params"], x)
    close(y, np.moveaxis(part("y_train"), 2, -1))
    close(gradients[1], np.moveaxis(part("gx"), 2, -1), atol=1e-4)
    trained = {key: shape for key, shape in shapes.items() if "running" not in key}
    jax.tree.map(functools.partial(close, atol=1e-4), gradients[0], to_flax(part("g"), trained)["params"])
    running = {key: shape for key, shape in shapes.items() if "running" in key}
    jax.tree.map(close, statistics, to_flax(part("after"), running)["batch_stats"])


@pytest.mark.parametrize(("frames", "k"), [(1, 1), (1, 3), (4, 3), (2, 5), (7, 5)])
def test_convolution_of_frames_is_numpys(frames, k):
    """Also where the kernel is longer than the clip."""
    rng = np.random.default_rng(0)
    x, taps = rng.normal(size=(2, frames, 2, 3, 4)), rng.normal(size=(2, 4, k))
    expected = np.zeros(x.shape)
    for n, h, w, c in np.ndindex(2, 2, 3, 4):
        padded = np.pad(x[n, :, h, w, c], k // 2)
        expected[n, :, h, w, c] = np.correlate(padded, taps[n, c], "valid")
    np.testing.assert_allclose(convolve_frames(jnp.float32(x), jnp.float32(taps)), expected, rtol=1e-4, atol=1e-6)


def start(x, **fields):
    module = TAM(**fields)
    return module, jax.jit(functools.partial(module.init, train=False))(jax.random.key(0), x)


def test_constant_taps_and_open_gates_are_a_moving_average():
    """With W2 = 0 softmax gives 1/K to every tap; with a wide open gate the clip itself is averaged."""
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 3, 8))
    module, variables = start(x)
    params = variables["params"]
    params["taps"]["kernel"] = jnp.zeros((8, 3))
    params["reduce_norm"]["bias"] = jnp.full((2,), 100.0)
    params["excite"]["kernel"] = jnp.ones((1, 1, 1, 2, 8))
    y = module.apply(variables, x, False)
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    np.testing.assert_allclose(y, (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3, rtol=1e-5, atol=1e-6)


def test_kernels_are_each_clips_own_and_know_no_places():
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 5, 8))
    module, variables = start(x)
    other = jnp.flip(x, 1).at[0].set(x[0])  # the second clip backwards
    run = jax.jit(functools.partial(module.apply, train=False))
    y, turned, alone = run(variables, x), run(variables, x[:, :, ::-1]), run(variables, other)
    np.testing.assert_allclose(turned, y[:, :, ::-1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(alone[0], y[0], rtol=1e-5, atol=1e-7)
    assert not np.allclose(alone[1], y[1, ::-1], atol=1e-3)


def test_half_precision_computes_its_branches_in_float32():
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 3, 8))
    module, variables = start(x)
    y = module.apply(variables, x.astype(jnp.bfloat16), False)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(y.astype(jnp.float32), module.apply(variables, x, False), atol=0.02)


def test_start_is_torchs():
    """U(-1/sqrt(fan in), 1/sqrt(fan in)) of every layer."""
    _, variables = start(jnp.zeros((1, 16, 1, 1, 64)))
    for name, fan_in in (("frames", 16), ("taps", 32), ("reduce", 192), ("excite", 16)):
        kernel = variables["params"][name]["kernel"]
        bound = 1 / math.sqrt(fan_in)
        assert 0.9 * bound < np.abs(kernel).max() <= bound
        assert np.std(kernel) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_few_channels_leave_one_in_the_local_branch():
    _, variables = start(jnp.zeros((1, 2, 1, 1, 3)))
    assert variables["params"]["reduce"]["kernel"].shape == (3, 1, 1, 3, 1)


def test_errors():
    x = jnp.zeros((1, 4, 2, 2, 8))
    module, variables = start(x)
    with pytest.raises(ValueError, match=r"as many frames as .* layers over time hold 4, received 5 frames\."):
        module.apply(variables, jnp.zeros((1, 5, 2, 2, 8)), False)
    for k in (0, 2):
        with pytest.raises(ValueError, match=f"kernel_size must be an odd number >= 1, received kernel_size={k}"):
            TAM(k).init(jax.random.key(0), x, False)
