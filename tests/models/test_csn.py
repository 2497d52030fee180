"""Channel-separated networks: their channels, blocks, numbers and options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.bottleneck import Bottleneck
from jaxvid.models.csn import VARIANTS
from jaxvid.models.residual import PLACEMENTS
from jaxvid.models.x3d import DEPTHWISE_CONVS
from jaxvid.nn import SRTG, BatchNorm, Conv3D

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")


@pytest.fixture(scope="module", params=["ip_csn_50", "ir_csn_50"])
def tiny(request, drawn):
    """A narrow model of few blocks, its variables, and a clip of odd lengths."""
    model = models.build(request.param, 5, width=8, conv="direct").clone(stage_sizes=(2, 1, 1, 1))
    return model, drawn(model), jax.random.normal(jax.random.key(0), (2, 5, 40, 70, 3))


@pytest.mark.parametrize(
    ("name", "params"),
    [("ip_csn_50", 14_396_176), ("ip_csn_101", 24_601_616), ("ip_csn_152", 33_016_592), ("ir_csn_50", 13_131_152),
     ("ir_csn_101", 22_213_776), ("ir_csn_152", 29_703_568)],
)  # fmt: skip
def test_parameters(name, params):
    assert cost.count_parameters(models.build(name, 400)) == params


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "gmacs"), [("ip_csn_101", 83.0), ("ip_csn_152", 108.8), ("ir_csn_101", 73.8), ("ir_csn_152", 96.7)]
)
def test_multiply_adds_are_the_authors(name, gmacs):
    """Of the views of their tests, 32x256x256, and with the pooling behind the stem."""
    assert cost.count_macs(models.build(name, 400), (32, 256, 256)) / 1e9 == pytest.approx(gmacs, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "window", "gmacs"), [(8, (1, 7, 7), 48.0228), (32, (1, 7, 7), 192.0912)])
def test_multiply_adds_without_the_pooling(frames, window, gmacs):
    """As pytorchvideo builds it where nobody asks for a pooling; its head has 8x8 windows per frame then."""
    model = models.build("ir_csn_101", 400, pool="none", window=window)
    assert cost.count_macs(model, (frames, 224, 224)) / 1e9 == pytest.approx(gmacs, abs=5e-5)


@pytest.mark.parametrize("name", ["ip_csn_50", "ir_csn_50"])
def test_channels_and_blocks(name):
    shapes = jax.tree.map(lambda leaf: leaf.shape, cost.variable_shapes(models.build(name, 7))["params"])
    assert shapes["stem"]["conv"]["kernel"] == (3, 7, 7, 3, 64)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        found, planes = shapes[f"stage{stage + 1}"], 64 * 2**stage
        assert set(found) == {f"block{i}" for i in range(blocks)}
        for i in range(blocks):
            block = found[f"block{i}"]
            assert block["conv1"]["kernel"][:3] == (1, 1, 1)
            assert block["conv2"]["kernel"] == (3, 3, 3, 1, planes)
            assert block["conv3"]["kernel"] == (1, 1, 1, planes, 4 * planes)
            assert ("shortcut_norm" in block) == (i == 0)
            assert ("interaction_conv" in block) == (name == "ip_csn_50")
            if "interaction_conv" in block:
                assert block["interaction_conv"]["kernel"] == (1, 1, 1, planes, planes)
    assert shapes["head"]["classifier"] == {"kernel": (2048, 7), "bias": (7,)}


def make_block(**fields):
    parts = {"kernel_size": (3, 3, 3), "frames": 1, "conv": Conv3D, "conv2": Conv3D, "norm": BatchNorm}
    return Bottleneck(**(parts | fields))


def numpy_block(v, x, strides):
    """The definition of a depthwise bottleneck, in float64, in evaluation."""
    p, s = v["params"], v["batch_stats"]

    def norm(x, name):
        scale = p[name]["scale"] / np.sqrt(s[name]["var"] + 1e-5)
        return (x - s[name]["mean"]) * scale + p[name]["bias"]

    point = lambda x, layer: x @ layer["kernel"][0, 0, 0]  # noqa: E731
    a = np.maximum(norm(point(x, p["conv1"]), "norm1"), 0)
    if "interaction_conv" in p:
        a = norm(point(a, p["interaction_conv"]), "interaction_norm")
    a = np.pad(a, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    n, (t, h, w) = len(x), x.shape[1:4]
    b = np.zeros((n, *(-(-size // stride) for size, stride in zip((t, h, w), strides, strict=True)), a.shape[-1]))
    for i, j, k in np.ndindex(3, 3, 3):
        tap = a[:, i : i + t : strides[0], j : j + h : strides[1], k : k + w : strides[2]]
        b += tap * p["conv2"]["kernel"][i, j, k, 0]
    y = norm(point(np.maximum(norm(b, "norm2"), 0), p["conv3"]), "norm3")
    if "shortcut_conv" in p:
        x = norm(point(x[:, :: strides[0], :: strides[1], :: strides[2]], p["shortcut_conv"]), "shortcut_norm")
    return np.maximum(y + x, 0)


@pytest.mark.parametrize(
    ("features", "strides", "interacts"),
    [(8, (1, 1, 1), False), (8, (1, 1, 1), True), (16, (1, 1, 1), True), (8, (2, 2, 2), True), (16, (1, 2, 2), False)],
)
def test_block_is_its_definition(features, strides, interacts):
    block = make_block(
        inner=4, features=features, strides=strides, interacts=interacts, conv2=functools.partial(Conv3D, groups=4)
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 5, 6, 8))
    shapes = jax.eval_shape(functools.partial(block.init, train=False), jax.random.key(0), jnp.asarray(x, jnp.float32))
    variables = jax.tree.map(lambda leaf: rng.uniform(-1, 1, leaf.shape), dict(shapes))
    variables["batch_stats"] = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape), shapes["batch_stats"])
    y = jax.jit(functools.partial(block.apply, train=False))(
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), variables), jnp.asarray(x, jnp.float32)
    )
    np.testing.assert_allclose(y, numpy_block(variables, x, strides), rtol=1e-4, atol=1e-4)


def test_blocks_can_be_captured_at_any_size_of_clip(tiny):
    model, variables, video = tiny

    def shapes(model, video):
        named = lambda module, _: module.name in BLOCKS  # noqa: E731
        apply = functools.partial(
            model.apply, train=False, capture_intermediates=named, mutable=["intermediates", "perturbations"]
        )
        logits, state = jax.eval_shape(apply, variables, video)
        assert (logits.shape, logits.dtype) == ((len(video), 5), jnp.float32)
        assert set(state["perturbations"]) == set(BLOCKS)
        return [state["intermediates"][block]["__call__"][0].shape for block in BLOCKS]

    assert shapes(model, video) == [
        (2, 5, 20, 35, 8), (2, 5, 10, 18, 32), (2, 3, 5, 9, 64), (2, 2, 3, 5, 128), (2, 1, 2, 3, 256), (2, 5),
    ]  # fmt: skip
    assert shapes(model.clone(pool="none"), video)[4] == (2, 1, 3, 5, 256)
    assert shapes(model, jnp.zeros((1, 1, 1, 1, 3)))[4] == (1, 1, 1, 1, 256)


def test_a_depthwise_formulation_leaves_the_dense_convolutions_alone(tiny, monkeypatch):
    model, variables, video = tiny
    asked = {}

    def conv3d(x, kernel, strides, padding, *, groups, implementation):
        asked.setdefault(groups > 1, set()).add(implementation)
        shape = [-(-n // s) for n, s in zip(x.shape[1:4], strides, strict=True)]
        return jnp.zeros((len(x), *shape, kernel.shape[-1]), x.dtype)

    monkeypatch.setattr("jaxvid.nn.convolution.conv3d", conv3d)
    for conv, expected in (
        *((conv, {True: {conv}, False: {None}}) for conv in DEPTHWISE_CONVS),
        ("folded", {True: {"folded"}, False: {"folded"}}),
        ("auto", {True: {None}, False: {None}}),
    ):
        asked.clear()
        model.clone(conv=conv).apply(variables, video, train=False)
        assert asked == expected, conv


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_srtg_has_the_channels_of_its_place(placement):
    block = make_block(inner=4, features=16, strides=(2, 2, 2), interacts=True, srtg=SRTG, placement=placement)
    init = functools.partial(block.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 2, 4, 4, 8)))["params"]
    channels = {"start": 8, "res": 16, "top": 4, "mid": 4, "end": 16, "final": 16}[placement]
    assert params["srtg"]["input_kernel_0"].shape == (channels, 4 * channels)


@pytest.mark.parametrize("zero_init", [True, False])
def test_a_fresh_block_is_its_shortcut_or_not(zero_init):
    x = jax.random.normal(jax.random.key(1), (2, 2, 3, 3, 8))
    block = make_block(inner=2, features=8, strides=(1, 1, 1), zero_init=zero_init)
    y = block.apply(block.init(jax.random.key(0), x, False), x, False)
    assert np.array_equal(y, jax.nn.relu(x)) == zero_init


def test_names_and_options():
    assert {f"{prefix}{name}" for prefix in ("", "srtg_") for name in VARIANTS} <= set(models.MODELS)
    model = models.build("ir_csn_101", 7, pool="soft", epsilon=1e-3, zero_init=False, width=16, conv="shifted")
    assert (model.pool, model.epsilon, model.zero_init, model.width, model.conv) == ("soft", 1e-3, False, 16, "shifted")
    assert (models.build("ir_csn_50", 7).epsilon, models.build("ip_csn_50", 7).epsilon) == (1e-5, 1e-3)
    assert (models.build("ir_csn_50", 7).preserved, models.build("ip_csn_50", 7).preserved) == (False, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "min"}, r"pool must be one of max, avg, soft, none, received pool='min'"),
        ({"epsilon": 0}, r"epsilon must be a finite number > 0, received epsilon=0\."),
        ({"width": 0}, r"width must be a whole number >= 1, received width=0\."),
        ({"zero_init": 1}, r"zero_init must be True or False, received zero_init=1\."),
        ({"groups": 8}, r"options of 'ip_csn_50' must be among width, pool, .* received 'groups'"),
        ({"conv": "shift"}, r"conv must be one of auto, .*, shifted.*, .* did you mean 'shifted'"),
    ],
)
def test_errors_name_the_rule_and_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("ip_csn_50", 10, **options)


def test_videos_that_do_not_fit(tiny):
    model, variables, _ = tiny
    with pytest.raises(ValueError, match=r"more than 8 frames or 32 pixels\), received shape \(1, 8, 32, 32, 3\)"):
        model.apply(variables, jnp.zeros((1, 8, 32, 32, 3)), train=True, mutable=["batch_stats"])
    with pytest.raises(ValueError, match="must have the axes N T H W 3"):
        model.apply(variables, jnp.zeros((1, 8, 32, 32)), train=False)
