"""The trunk of U2S: where it is 2-D, where it is 3-D, and what pre-activation makes of a block."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.u2s import PreActivationBlock
from jaxvid.nn import SRTG, BatchNorm, Conv3D

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4")


def _outputs(model, variables, video):
    named = lambda module, _: module.name in BLOCKS  # noqa: E731
    _, state = model.apply(variables, video, capture_intermediates=named, mutable=["intermediates"])
    return {block: state["intermediates"][block]["__call__"][0] for block in BLOCKS}


@pytest.fixture(scope="module")
def tiny(drawn):
    """A model of two blocks at most per stage, and its variables."""
    model = models.build("u2s_resnet_50", 5, width=4, conv="direct").clone(stage_sizes=(1, 2, 2, 1))
    return model, drawn(model)


@pytest.mark.parametrize(
    ("kernel3d", "parameters", "gmacs"), [("3x1x1", 32_446_416, 63.280), ("3x3x3", 45_553_616, 72.760)]
)
def test_costs(kernel3d, parameters, gmacs):
    model = models.build("u2s_resnet_50", 400, kernel3d=kernel3d)
    assert cost.count_parameters(model) == parameters
    assert cost.count_macs(model, (18, 224, 224)) / 1e9 == pytest.approx(gmacs, abs=5e-4)


@pytest.mark.parametrize("kernel3d", ["3x1x1", "3x3x3"])
def test_kernels(kernel3d):
    params = cost.variable_shapes(models.build("u2s_resnet_50", 5, width=8, kernel3d=kernel3d))["params"]
    flat = flax.traverse_util.flatten_dict(params)
    kernels = {path[:-1]: leaf.shape[:3] for path, leaf in flat.items() if path[-1] == "kernel" and leaf.ndim == 5}
    assert kernels.pop(("stem", "conv")) == (1, 7, 7)
    first, second = {"3x1x1": ((3, 1, 1), (1, 3, 3)), "3x3x3": ((1, 1, 1), (3, 3, 3))}[kernel3d]
    flat_kernels = {"conv1": (1, 1, 1), "conv2": (1, 3, 3)}
    long_kernels = {"conv1": first, "conv2": second}
    for (stage, _, module), shape in kernels.items():
        expected = long_kernels if stage in ("stage3", "stage4") else flat_kernels
        assert shape == expected.get(module, (1, 1, 1)), (stage, module)
    # Every convolution but the stem's and those of the first block sees the result of a BN; the last BN ends the net.
    assert "norm1" not in params["stage1"]["block0"]
    assert all("norm1" in params[f"stage{k}"]["block0"] for k in (2, 3, 4))
    assert [block for block, tree in params["stage4"].items() if "norm4" in tree] == ["block2"]
    assert not any("shortcut_norm" in path for path in flat)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((1, 18, 64, 64, 3), [(18, 32, 32), (18, 16, 16), (18, 8, 8), (9, 4, 4), (9, 2, 2)]),
        ((1, 7, 49, 33, 3), [(7, 25, 17), (7, 13, 9), (7, 7, 5), (4, 4, 3), (4, 2, 2)]),
        ((2, 1, 1, 1, 3), [(1, 1, 1)] * 5),
    ],
)
@pytest.mark.parametrize("kernel3d", ["3x1x1", "3x3x3"])
def test_space_is_halved_four_times_and_time_once(kernel3d, shape, sizes, tiny):
    model = tiny[0].clone(kernel3d=kernel3d)
    variables = cost.variable_shapes(model)
    shapes = jax.eval_shape(functools.partial(_outputs, model), variables, jnp.zeros(shape))
    assert [shapes[block].shape[1:4] for block in BLOCKS] == sizes


def test_frames_meet_in_the_third_stage_and_no_earlier(tiny, jit):
    model, variables = tiny
    outputs = jit(functools.partial(_outputs, model))
    video = jax.random.normal(jax.random.key(0), (1, 6, 40, 40, 3))
    other = video.at[:, 2].add(1.0)
    one, two = outputs(variables, video), outputs(variables, other)
    for block in BLOCKS:
        moved = [bool(np.any(one[block][:, t] != two[block][:, t])) for t in range(one[block].shape[1])]
        if block in ("stem", "stage1", "stage2"):
            assert moved == [False, False, True, False, False, False]
        else:
            assert sum(moved) > 1
    assert min(one["stage4"].min(), two["stage4"].min()) == 0  # behind ReLU: zeros can be counted
    assert one["stage3"].min() < 0


def _normalise(x, variables, name):
    statistics, params = variables["batch_stats"][name], variables["params"][name]
    return (x - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5) * params["scale"] + params["bias"]


def _convolve(x, variables, name, strides):
    kernel = variables["params"][name]["kernel"]
    padding = [(length // 2, length // 2) for length in kernel.shape[:3]]
    dimensions = lax.conv_dimension_numbers(x.shape, kernel.shape, ("NTHWC", "THWIO", "NTHWC"))
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dimensions, precision="highest")


@pytest.mark.parametrize("kernel3d", [None, "3x1x1", "3x3x3"])
@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("preactivate", [False, True])
def test_block_is_its_formula(preactivate, changes, kernel3d, jit):
    conv, rng = functools.partial(Conv3D, implementation="direct"), np.random.default_rng(0)
    stride, time = (2, 2 if kernel3d else 1) if changes else (1, 1)
    block = PreActivationBlock(3, stride, time, kernel3d, preactivate, changes, conv, BatchNorm)
    x = rng.normal(size=(2, 5, 6, 7, 9 if changes else 12)).astype(np.float32)
    shapes = jax.eval_shape(functools.partial(block.init, train=False), jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: rng.uniform(-0.5, 1.0, leaf.shape).astype(leaf.dtype), shapes)
    variables["batch_stats"] = jax.tree.map(lambda leaf: np.abs(leaf) + 0.1, variables["batch_stats"])

    y = jax.nn.relu(_normalise(x, variables, "norm1")) if preactivate else x
    strides = {"conv1": (1, 1, 1), "conv2": (time, stride, stride)}
    if kernel3d == "3x1x1":
        strides = {"conv1": (time, 1, 1), "conv2": (1, stride, stride)}
    shortcut = _convolve(y, variables, "shortcut_conv", (time, stride, stride)) if changes else x
    for index in (1, 2):
        y = _convolve(y, variables, f"conv{index}", strides[f"conv{index}"])
        y = jax.nn.relu(_normalise(y, variables, f"norm{index + 1}"))
    y = _convolve(y, variables, "conv3", (1, 1, 1)) + shortcut
    y = jax.nn.relu(_normalise(y, variables, "norm4")) if changes else y
    received = jit(functools.partial(block.apply, train=False))(variables, x)
    np.testing.assert_allclose(received, y, rtol=1e-4, atol=1e-5 * float(np.abs(y).max()))


@pytest.mark.parametrize(
    ("placement", "channels"), [("start", 9), ("top", 3), ("mid", 3), ("end", 12), ("res", 12), ("final", 12)]
)
def test_places_of_srtg(placement, channels):
    conv = functools.partial(Conv3D, implementation="direct")
    block = PreActivationBlock(3, 2, 2, "3x1x1", True, False, conv, BatchNorm, functools.partial(SRTG), placement)
    init = functools.partial(block.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 4, 6, 6, 9)))["params"]
    assert params["srtg"]["input_kernel_0"].shape[0] == channels


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("u2s_resnet_50", {"kernel3d": "3x3"}, r"kernel3d must be one of 3x1x1, 3x3x3, received .* did you mean"),
        ("u2s_resnet_50", {"cell": "gru"}, r"cell may only be set for a model whose name starts with srtg_"),
        ("u2s_resnet_50", {"expansion": 4}, r"must be among width, kernel3d, pool, .* received 'expansion'"),
        ("srtg_u2s_resnet_50", {"placement": "finl"}, r"did you mean 'final'"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, 10, **options)
