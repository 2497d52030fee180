"""MF-Net: its unit against the authors' numbers and against NumPy, its places of SRTG, its sizes."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.mfnet import Unit
from jaxvid.models.residual import PLACEMENTS
from jaxvid.nn import SRTG, BatchNorm, Conv3D

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
LAYERS = {"1": "i1", "2": "i2", "3": "m1", "4": "m2", "shortcut": "w1"}
LEAVES = {"kernel": "conv.weight", "scale": "bn.weight", "bias": "bn.bias", "mean": "bn.running_mean",
          "var": "bn.running_var"}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(drawn):
    """A narrow model of few units, its variables, and a clip of odd lengths."""
    model = models.build("mfnet", 5, width=4, conv="direct").clone(stage_sizes=(2, 1, 1, 1))
    return model, drawn(model), jax.random.normal(jax.random.key(0), (2, 3, 40, 70, 3))


def make_unit(**fields):
    parts = {"inner": 32, "features": 32, "strides": (1, 1, 1), "first": False, "groups": 16}
    return Unit(**(parts | {"conv": Conv3D, "norm": BatchNorm} | fields))


def test_unit_is_the_authors(golden, video_from_torch):
    stored = golden("mf_unit")
    unit, x = make_unit(features=24, strides=(2, 1, 1), first=True, groups=4), video_from_torch(stored["x"])
    shapes = jax.eval_shape(functools.partial(unit.init, train=False), jax.random.key(0), x)
    weights = {}
    for path in flax.traverse_util.flatten_dict(dict(shapes)):
        layer = LAYERS[path[1].partition("_")[0] if path[1].startswith("shortcut") else path[1][-1]]
        array = stored[f"w.conv_{layer}.{LEAVES[path[2]]}"]
        weights[path] = array.transpose(2, 3, 4, 1, 0) if array.ndim == 5 else array
    y = unit.apply(flax.traverse_util.unflatten_dict(weights), x, False)
    np.testing.assert_allclose(y, video_from_torch(stored["y"]), rtol=1e-4, atol=1e-5)


def numpy_unit(v, x, groups, strides):
    """The unit's definition in float64, in evaluation."""
    p, s = v["params"], v["batch_stats"]

    def layer(x, name, kernel=(1, 1, 1), strides=(1, 1, 1), groups=1):
        prefix = "shortcut_" if name == "shortcut" else ""
        norm, conv = (f"{prefix}norm", f"{prefix}conv") if prefix else (f"norm{name}", f"conv{name}")
        x = (x - s[norm]["mean"]) / np.sqrt(s[norm]["var"] + 1e-5) * p[norm]["scale"] + p[norm]["bias"]
        x = np.pad(np.maximum(x, 0), ((0, 0), *((k // 2, k // 2) for k in kernel), (0, 0)))
        weights = p[conv]["kernel"]
        size = [(n - k) // stride + 1 for n, k, stride in zip(x.shape[1:4], kernel, strides, strict=True)]
        y = np.zeros((len(x), *size, weights.shape[-1]))
        inputs, outputs = weights.shape[3], weights.shape[4] // groups
        for taps in np.ndindex(*kernel):
            where = tuple(slice(a, a + (n - 1) * b + 1, b) for a, n, b in zip(taps, size, strides, strict=True))
            for g in range(groups):
                mine = slice(g * outputs, (g + 1) * outputs)
                y[..., mine] += x[(slice(None), *where, slice(g * inputs, (g + 1) * inputs))] @ weights[taps][:, mine]
        return y

    first = "shortcut_conv" in p
    y = layer(x + layer(layer(x, "1"), "2"), "3", (3, 3, 3), strides, groups)
    y = layer(y, "4") if first else layer(y, "4", (1, 3, 3), groups=groups)
    return y + (layer(x, "shortcut", strides=strides) if first else x)


@pytest.mark.parametrize(
    ("channels", "inner", "features", "groups", "strides", "first"),
    [
        (8, 16, 24, 4, (2, 1, 1), True),
        (8, 16, 8, 8, (1, 2, 2), True),
        (24, 16, 24, 8, (1, 1, 1), False),
        (8, 8, 8, 1, (1, 1, 1), False),
    ],
)
def test_unit_is_its_definition(channels, inner, features, groups, strides, first):
    unit = make_unit(inner=inner, features=features, groups=groups, strides=strides, first=first)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 5, 6, channels))
    shapes = jax.eval_shape(functools.partial(unit.init, train=False), jax.random.key(0), jnp.float32(x))
    variables = jax.tree.map(lambda leaf: rng.uniform(-1, 1, leaf.shape), dict(shapes))
    variables["batch_stats"] = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape), shapes["batch_stats"])
    y = unit.apply(jax.tree.map(jnp.float32, variables), jnp.float32(x), False)
    expected = numpy_unit(variables, x, groups, strides)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_channels_and_units():
    shapes = jax.tree.map(lambda leaf: leaf.shape, cost.variable_shapes(models.build("mfnet", 7))["params"])
    assert shapes["stem"]["conv"]["kernel"] == (3, 5, 5, 3, 16)
    for stage, (channels, units) in enumerate(zip((96, 192, 384, 768), (3, 4, 6, 3), strict=True)):
        found = shapes[f"stage{stage + 1}"]
        assert set(found) - {"norm"} == {f"block{i}" for i in range(units)}
        assert ("norm" in found) == (stage == 3)
        assert found["block1"]["conv1"]["kernel"] == (1, 1, 1, channels, channels // 4)
        assert found["block1"]["conv3"]["kernel"] == (3, 3, 3, channels // 16, channels)
        assert found["block0"]["conv4"]["kernel"] == (1, 1, 1, channels, channels)
        assert found["block1"]["conv4"]["kernel"] == (1, 3, 3, channels // 16, channels)
    narrow = jax.tree.map(lambda leaf: leaf.shape, cost.variable_shapes(models.build("mfnet", 7, width=5))["params"])
    assert [narrow[f"stage{i}"]["block0"]["conv4"]["kernel"][-1] for i in (1, 2, 3, 4)] == [16, 16, 32, 64]


def test_blocks_have_names_at_any_size_of_clip(tiny):
    model, variables, video = tiny

    def shapes(video):
        named = lambda module, _: module.name in BLOCKS  # noqa: E731
        apply = functools.partial(
            model.apply, train=False, capture_intermediates=named, mutable=["intermediates", "perturbations"]
        )
        logits, state = jax.eval_shape(apply, variables, video)
        assert (logits.shape, logits.dtype) == ((len(video), 5), jnp.float32)
        assert set(state["perturbations"]) == set(BLOCKS)
        return [state["intermediates"][block]["__call__"][0].shape[1:4] for block in BLOCKS[:-1]]

    assert shapes(video) == [(3, 20, 35), (2, 10, 18), (2, 5, 9), (2, 3, 5), (2, 2, 3)]
    assert shapes(jnp.zeros((1, 1, 1, 1, 3)))[-1] == (1, 1, 1)


def test_the_head_is_linear_in_the_mean_of_stage4(tiny, jit):
    """The closing BN and ReLU are stage 4's: what explainers weigh is what the classifier sees."""
    model, variables, video = tiny
    named = lambda module, _: module.name == "stage4"  # noqa: E731
    apply = functools.partial(model.apply, train=False, capture_intermediates=named, mutable=["intermediates"])
    logits, state = jit(apply)(variables, video)
    (features,) = state["intermediates"]["stage4"]["__call__"]
    classifier = variables["params"]["head"]["classifier"]
    assert np.all(features >= 0)
    expected = features.mean((1, 2, 3)) @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_start_of_the_parameters(jit):
    model = models.build("mfnet", 50, width=16).clone(stage_sizes=(2, 1, 1, 1))
    init = jit(functools.partial(model.init, train=False))
    start = init(jax.random.key(0, impl="rbg"), jnp.zeros((1, 1, 32, 32, 3)))["params"]
    for path, leaf in flax.traverse_util.flatten_dict(start).items():
        if path[-1] == "kernel":
            taps = np.prod(leaf.shape[:-2])
            bound = np.sqrt(6 / (taps * (leaf.shape[-2] + leaf.shape[-1])))  # Xavier, of one group's inputs
            assert 0.9 * bound < np.abs(leaf).max() <= bound, path
            assert abs(leaf.std() / (bound / np.sqrt(3)) - 1) < 5 / np.sqrt(leaf.size), path
        else:
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, float(path[-1] == "scale")), err_msg=str(path))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_srtg_has_the_channels_of_its_place(placement):
    unit = make_unit(features=48, first=True, srtg=SRTG, placement=placement)
    init = functools.partial(unit.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 2, 4, 4, 16)))["params"]
    channels = {"start": 16, "top": 16, "mid": 32, "end": 48, "res": 48, "final": 48}[placement]
    assert params["srtg"]["input_kernel_0"].shape == (channels, 4 * channels)


def test_srtg_acts_at_its_place():
    """A recurrence that answers 0 wipes out its place: what is left over tells where it sat."""
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 4, 32))

    def fill(path, leaf):
        if path[1].key == "srtg" or path[-1].key in ("bias", "mean"):
            return jnp.zeros(leaf.shape)
        rng = np.random.default_rng(leaf.size)
        return jnp.ones(leaf.shape) if path[-1].key in ("scale", "var") else jnp.float32(rng.normal(size=leaf.shape))

    def run(placement, srtg=SRTG):
        unit = make_unit(srtg=srtg, placement=placement)
        shapes = jax.eval_shape(functools.partial(unit.init, train=False), jax.random.key(0), x)
        return unit.apply(jax.tree_util.tree_map_with_path(fill, dict(shapes)), x, False)

    for placement in ("final", "start"):
        np.testing.assert_array_equal(run(placement), jnp.zeros_like(x))
    for placement in ("top", "mid", "end"):
        np.testing.assert_array_equal(run(placement), x)
    np.testing.assert_allclose(run("res"), run("final", None) - x, rtol=1e-4, atol=1e-4)


def test_window_and_options(tiny, jit):
    model, variables, video = tiny
    whole = model.clone(window=(2, 2, 3))
    run = jit(lambda: [m.apply(variables, video, train=False) for m in (model, whole, model.clone(window=(1, 2, 2)))])
    logits, same, others = run()
    np.testing.assert_allclose(same, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jnp.exp(others).sum(-1), 1, rtol=1e-5)
    srtg = models.build("srtg_mfnet", 7, width=8, cell="gru", placement="mid", pool="soft", dropout=0.5)
    assert (srtg.srtg.cell, srtg.srtg.placement, srtg.pool, srtg.dropout) == ("gru", "mid", "soft", 0.5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mfnet", {"cell": "gru"}, r"cell may only be set for a model whose name starts with srtg_, .*'srtg_mfnet'"),
        ("mfnet", {"groups": 8}, r"options of 'mfnet' must be among width, pool, .* received 'groups'"),
        ("mfnet", {"pool": "mix"}, r"pool must be one of max, avg, soft, received pool='mix'"),
        ("srtg_mfnet", {"width": True}, r"width must be a whole number >= 1, received width=True\."),
    ],
)
def test_errors_name_the_rule_and_the_value(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, 3, **options)
