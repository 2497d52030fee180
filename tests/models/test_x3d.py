"""The X3D family: its widths, its blocks against NumPy, its start, its options."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.convert import convert_state_dict
from jaxvid.models.residual import PLACEMENTS
from jaxvid.models.x3d import DEPTHWISE_CONVS, VARIANTS, Block, round_width
from jaxvid.nn import SRTG, BatchNorm, Conv3D

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")


@pytest.fixture(scope="module")
def tiny(drawn):
    """A narrow model of few blocks, its variables, and a clip of odd lengths."""
    model = models.build("x3d_s", 5, width=16, conv="direct").clone(stage_sizes=(2, 1, 1, 1))
    return model, drawn(model), jax.random.normal(jax.random.key(0), (2, 3, 40, 70, 3))


@pytest.mark.parametrize(
    ("name", "stem", "stages", "inner", "squeezed", "blocks"),
    [
        ("x3d_xs", 24, (24, 48, 96, 192), (54, 108, 216, 432), (8, 8, 16, 32), (3, 5, 11, 7)),
        ("x3d_s", 24, (24, 48, 96, 192), (54, 108, 216, 432), (8, 8, 16, 32), (3, 5, 11, 7)),
        ("x3d_m", 24, (24, 48, 96, 192), (54, 108, 216, 432), (8, 8, 16, 32), (3, 5, 11, 7)),
        ("x3d_l", 24, (24, 48, 96, 192), (54, 108, 216, 432), (8, 8, 16, 32), (5, 10, 25, 15)),
        ("x3d_xl", 32, (32, 72, 136, 280), (72, 162, 306, 630), (8, 16, 24, 40), (5, 10, 25, 15)),
    ],
)
def test_channels_and_blocks(name, stem, stages, inner, squeezed, blocks):
    params = cost.variable_shapes(models.build(name, 7))["params"]
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    assert shapes["stem"]["spatial"]["kernel"] == (1, 3, 3, 3, stem)
    assert shapes["stem"]["temporal"]["kernel"] == (5, 1, 1, 1, stem)
    for stage in range(4):
        found = shapes[f"stage{stage + 1}"]
        assert set(found) == {f"block{i}" for i in range(blocks[stage])}
        for i in range(blocks[stage]):
            block = found[f"block{i}"]
            assert block["conv2"]["kernel"] == (3, 3, 3, 1, inner[stage])
            assert block["conv3"]["kernel"] == (1, 1, 1, inner[stage], stages[stage])
            assert ("squeeze" in block) == (i % 2 == 0)
            assert ("shortcut_conv" in block) == (i == 0)
            assert ("shortcut_norm" in block) == (i == 0 and stage > 0)  # stage 1 keeps the stem's channels
        assert found["block0"]["squeeze"]["reduce"]["kernel"] == (1, 1, 1, inner[stage], squeezed[stage])
    assert shapes["head"]["conv1"]["kernel"] == (1, 1, 1, stages[3], inner[3])
    assert shapes["head"]["conv2"] == {"kernel": (1, 1, 1, inner[3], 2048)}
    assert shapes["head"]["classifier"] == {"kernel": (2048, 7), "bias": (7,)}


def test_widths_are_rounded_to_eight_and_never_far_down():
    for width in np.linspace(0.5, 900, 1000):
        rounded = round_width(width)
        assert rounded % 8 == 0
        assert rounded >= max(8, 0.9 * width)
        assert rounded - width <= 8 or rounded == 8
    assert [round_width(w) for w in (3, 11.9, 12, 27, 28, 100)] == [8, 16, 16, 32, 32, 104]


@pytest.mark.parametrize(("frames", "size", "gmacs"), [(13, 160, 1.9629), (13, 182, 2.7219), (16, 256, 6.1806)])
def test_multiply_adds_at_other_clips(frames, size, gmacs):
    """The clips of the paper's training and testing; S, M and XS are one network."""
    model = models.build("x3d_s", 400)
    assert cost.count_macs(model, (frames, size, size)) / 1e9 == pytest.approx(gmacs, abs=1e-4)
    assert model == models.build("x3d_m", 400) == models.build("x3d_xs", 400)


def test_blocks_can_be_captured_at_any_size_of_clip(tiny):
    model, variables, video = tiny

    def shapes(video):
        named = lambda module, _: module.name in BLOCKS  # noqa: E731
        apply = functools.partial(
            model.apply, train=False, capture_intermediates=named, mutable=["intermediates", "perturbations"]
        )
        logits, state = jax.eval_shape(apply, variables, video)
        assert (logits.shape, logits.dtype) == ((len(video), 5), jnp.float32)
        assert set(state["perturbations"]) == set(BLOCKS)
        return [state["intermediates"][block]["__call__"][0].shape for block in BLOCKS]

    # Time keeps its length; space is halved five times, rounding up. The widths are 6, 12, 24, 48 rounded.
    assert shapes(video) == [
        (2, 3, 20, 35, 8), (2, 3, 10, 18, 8), (2, 3, 5, 9, 16), (2, 3, 3, 5, 24), (2, 3, 2, 3, 48), (2, 5),
    ]  # fmt: skip
    assert shapes(jnp.zeros((1, 1, 1, 1, 3)))[4] == (1, 1, 1, 1, 48)


def test_gradient_by_name_is_that_of_the_output(tiny, jit):
    model, variables, video = tiny
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape),
        jax.eval_shape(functools.partial(model.apply, train=False, mutable=["perturbations"]), variables, video)[1],
    )

    @jit
    def run(perturbations):
        def score(perturbations):
            return model.apply(variables | perturbations, video, train=False)[0, 3]

        value, gradients = jax.value_and_grad(score)(perturbations)
        direction = gradients["perturbations"]["stage2"]["output"]
        moved = {"perturbations": perturbations["perturbations"] | {"stage2": {"output": 1e-3 * direction}}}
        return gradients, (score(moved) - value) / 1e-3, jnp.vdot(direction, direction)

    gradients, slope, expected = run(zeros)
    assert not np.any(gradients["perturbations"]["stage3"]["output"][1])  # the other clip's
    np.testing.assert_allclose(slope, expected, rtol=0.05)


def numpy_block(v, x, stride):
    """The block's definition, in float64, in evaluation."""
    p, s = v["params"], v["batch_stats"]

    def norm(x, name):
        scale = p[name]["scale"] / np.sqrt(s[name]["var"] + 1e-5)
        return (x - s[name]["mean"]) * scale + p[name]["bias"]

    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    point = lambda x, layer: x @ layer["kernel"][0, 0, 0]  # noqa: E731
    a = np.maximum(norm(point(x, p["conv1"]), "norm1"), 0)
    a = np.pad(a, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    n, t, h, w, _ = x.shape
    out = (n, t, -(-h // stride), -(-w // stride), a.shape[-1])
    b = np.zeros(out)
    for i, j, k in np.ndindex(3, 3, 3):
        b += a[:, i : i + t, j : j + h : stride, k : k + w : stride] * p["conv2"]["kernel"][i, j, k, 0]
    b = norm(b, "norm2")
    if "squeeze" in p:
        q = p["squeeze"]
        hidden = np.maximum(point(b.mean((1, 2, 3)), q["reduce"]) + q["reduce"]["bias"], 0)
        b = b * sigmoid(point(hidden, q["expand"]) + q["expand"]["bias"])[:, None, None, None]
    y = norm(point(b * sigmoid(b), p["conv3"]), "norm3")
    if "shortcut_conv" in p:
        x = point(x[:, :, ::stride, ::stride], p["shortcut_conv"])
    if "shortcut_norm" in p:
        x = norm(x, "shortcut_norm")
    return np.maximum(y + x, 0)


def make_block(**fields):
    parts = {"zero_init": True, "squeeze": True, "conv": Conv3D, "depthwise": Conv3D, "norm": BatchNorm}
    return Block(**(parts | fields))


@pytest.mark.parametrize(
    ("features", "stride", "squeeze"), [(16, 2, True), (8, 2, True), (8, 1, True), (8, 1, False), (16, 1, False)]
)
def test_block_is_its_definition(features, stride, squeeze):
    block, rng = make_block(features=features, stride=stride, squeeze=squeeze), np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 5, 6, 8))
    shapes = jax.eval_shape(functools.partial(block.init, train=False), jax.random.key(0), jnp.asarray(x, jnp.float32))
    variables = jax.tree.map(lambda leaf: rng.uniform(-1, 1, leaf.shape), dict(shapes))
    variables["batch_stats"] = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape), shapes["batch_stats"])
    y = jax.jit(functools.partial(block.apply, train=False))(
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), variables), jnp.asarray(x, jnp.float32)
    )
    np.testing.assert_allclose(y, numpy_block(variables, x, stride), rtol=1e-4, atol=1e-4)


def test_start_of_the_parameters(jit):
    model = models.build("x3d_s", 50, width_factor=4).clone(stage_sizes=(1,))
    init = jit(functools.partial(model.init, train=False))
    start = init(jax.random.key(0, impl="rbg"), jnp.zeros((1, 1, 32, 32, 3)))["params"]
    params = flax.traverse_util.flatten_dict(start)
    for path, leaf in params.items():
        kind = path[-1]
        if kind == "kernel" and path[-2] != "classifier":
            # Kaiming, fan out, as torch counts it: a depthwise kernel's fan is that of a dense one with its outputs.
            std = np.sqrt(2 / (leaf.shape[-1] * np.prod(leaf.shape[:3])))
            assert abs(leaf.std() / std - 1) < 5 / np.sqrt(2 * leaf.size), path
        elif kind == "scale":
            last = path[-2] == "norm3"
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, 0.0 if last else 1.0), err_msg=str(path))
        elif kind == "bias":
            assert not np.any(leaf), path
    assert abs(params["head", "classifier", "kernel"].std() / 0.01 - 1) < 0.02


def test_a_fresh_block_is_its_shortcut(jit):
    x = jax.random.normal(jax.random.key(1), (2, 2, 3, 3, 8))

    def run(zero_init):
        block = make_block(features=8, stride=1, squeeze=False, zero_init=zero_init)
        variables = jit(functools.partial(block.init, train=False))(jax.random.key(0, impl="rbg"), x)
        return variables["params"]["norm3"]["scale"], block.apply(variables, x, False)

    (zeros, y), (ones, other) = run(True), run(False)
    assert not np.any(zeros)
    assert np.all(ones == 1)
    np.testing.assert_array_equal(y, jax.nn.relu(x))
    assert not np.allclose(other, y)


def test_dropout_is_of_the_features_and_of_training_only(tiny, jit):
    model, variables, video = tiny
    dropping = model.clone(dropout=0.5)

    @jit
    def run(key):
        rngs = {"dropout": key}
        trained = dropping.apply(variables, video, train=True, rngs=rngs, mutable=["batch_stats"])[0]
        return trained, dropping.apply(variables, video, train=False), model.apply(variables, video, train=False)

    first, evaluated, plain = run(jax.random.key(0))
    assert not np.allclose(first, run(jax.random.key(1))[0])
    np.testing.assert_array_equal(first, run(jax.random.key(0))[0])
    np.testing.assert_array_equal(evaluated, plain)


@pytest.mark.parametrize("conv", ["folded", "shifted"])
def test_logits_do_not_depend_on_the_formulation(conv, tiny, jit):
    model, variables, video = tiny
    run = jit(lambda: [m.apply(variables, video, train=False) for m in (model, model.clone(conv=conv))])
    direct, other = run()
    np.testing.assert_allclose(other, direct, rtol=0, atol=1e-4 * direct.std())


@pytest.mark.slow
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
        ("folded", {True: {"folded"}, False: {"folded", None}}),  # None: squeeze-and-excitation, the head in float32
        ("auto", {True: {None}, False: {None}}),
    ):
        asked.clear()
        model.clone(conv=conv).apply(variables, video, train=False)
        assert asked == expected, conv


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_srtg_has_the_channels_of_its_place(placement):
    block = make_block(features=16, stride=2, srtg=SRTG, placement=placement)
    init = functools.partial(block.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 2, 4, 4, 8)))["params"]
    channels = {"start": 8, "res": 16, "top": 36, "mid": 36, "end": 16, "final": 16}[placement]
    assert params["srtg"]["input_kernel_0"].shape == (channels, 4 * channels)


def test_srtg_acts_at_its_place():
    """A recurrence that answers 0 wipes out its place: what is left over tells where it sat."""
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 4, 8))

    def fill(path, leaf):
        if path[1].key == "srtg" or path[-1].key in ("bias", "mean"):
            return jnp.zeros(leaf.shape)
        rng = np.random.default_rng(leaf.size)
        return jnp.ones(leaf.shape) if path[-1].key in ("scale", "var") else jnp.float32(rng.normal(size=leaf.shape))

    def run(placement):
        block = make_block(features=8, stride=1, squeeze=False, srtg=SRTG, placement=placement)
        shapes = jax.eval_shape(functools.partial(block.init, train=False), jax.random.key(0), x)
        return block.apply(jax.tree_util.tree_map_with_path(fill, dict(shapes)), x, False)

    for placement in ("final", "start"):
        np.testing.assert_array_equal(run(placement), jnp.zeros_like(x))
    for placement in ("top", "mid", "end"):
        np.testing.assert_array_equal(run(placement), jax.nn.relu(x))
    assert 0 < np.count_nonzero(run("res")) < x.size


def test_every_network_has_one_with_srtg():
    assert {f"{prefix}{name}" for prefix in ("", "srtg_") for name in VARIANTS} <= set(models.MODELS)
    model = models.build("srtg_x3d_s", 7, gate="cyclic", placement="mid", cell="gru", num_layers=1)
    assert (model.srtg.cell, model.srtg.gate, model.srtg.placement) == ("gru", "cyclic", "mid")


def test_options_reach_the_module():
    model = models.build("x3d_xl", np.int64(7), dropout=0.5, dtype="bfloat16", conv="folded", zero_init=False)
    assert (model.num_classes, model.dropout, model.dtype, model.conv) == (7, 0.5, jnp.bfloat16, "folded")
    assert (model.width_factor, model.zero_init, model.srtg) == (2.9, False, None)
    assert models.build("x3d_s", 7, width=64) == models.build("x3d_s", 7) == models.build("x3d_s", 7, width_factor=2)
    assert models.build("x3d_xl", 7, width=32).width_factor == pytest.approx(1.45)
    assert models.build("x3d_l", 7, width_factor=2.9) == models.build("x3d_xl", 7)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x3d_s", {"widht": 8}, r"options of 'x3d_s' must be among width, .* received 'widht'; did you mean 'width'"),
        ("x3d_s", {"expansion": 4}, r"received 'expansion'"),
        ("x3d_s", {"gate": "cyclic"}, r"gate may only be set for a model whose name starts with srtg_, .*'srtg_x3d_s'"),
        ("srtg_x3d_s", {"gate_gradient": "straight_through"}, r"only be set with gate='cyclic'"),
        ("x3d_s", {"width": 0}, r"width must be a whole number >= 1, received width=0\."),
        ("x3d_s", {"width_factor": 0}, r"width_factor must be a finite number > 0, received width_factor=0\."),
        ("x3d_s", {"width_factor": float("inf")}, r"must be a finite number > 0, received width_factor=inf\."),
        ("x3d_s", {"width_factor": True}, r"must be a finite number > 0, received width_factor=True\."),
        ("x3d_s", {"width_factor": "2"}, r"must be a finite number > 0, received width_factor='2'\."),
        ("x3d_s", {"width": 64, "width_factor": 2.0}, r"width and width_factor may not both be set, .*=64 and .*=2\.0"),
        ("x3d_s", {"conv": "shift"}, r"conv must be one of auto, .*, shifted.*, .* did you mean 'shifted'"),
        ("x3d_s", {"zero_init": 1}, r"zero_init must be True or False, received zero_init=1\."),
        ("x3d_s", {"dropout": 1}, r"dropout must be in \[0, 1\), received dropout=1\."),
        ("x3d_s", {"dtype": "int8"}, r"dtype must be one of float32, .* received dtype='int8'"),
        ("x3d_z", {}, r"received 'x3d_z'; did you mean 'x3d_\w+'"),
        ("r3d_18", {"conv": "shifted"}, r"conv must be one of auto, direct, folded, received conv='shifted'"),
    ],
)
def test_errors_name_the_rule_and_the_value(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, 10, **options)


def test_videos_that_do_not_fit(tiny):
    model, variables, _ = tiny
    for shape, message in (((1, 3, 8, 8, 4), "must have the axes N T H W 3"), ((3, 8, 8, 3), "received shape")):
        with pytest.raises(ValueError, match=message):
            model.apply(variables, jnp.zeros(shape), train=False)
    with pytest.raises(ValueError, match="must be normalised floating-point RGB, received dtype uint8"):
        model.apply(variables, jnp.zeros((1, 3, 8, 8, 3), jnp.uint8), train=False)
    with pytest.raises(ValueError, match=r"more than 1 frames or 32 pixels\), received shape \(1, 1, 32, 32, 3\)"):
        model.apply(variables, jnp.zeros((1, 1, 32, 32, 3)), train=True, mutable=["batch_stats"])


def test_weights_of_another_network_of_the_family_are_refused(shapes_of):
    shapes = shapes_of("x3d_s", models.build("x3d_s", 3))
    arrays = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    with pytest.raises(ValueError, match=r"of 'x3d_s' must have .* \(630,\) .*, received \(432,\); .* more\.$"):
        convert_state_dict("x3d_s", arrays, width_factor=2.9)
    with pytest.raises(ValueError, match=r"num_classes=400 and a classifier of 3 classes \(blocks\.5\.proj\.weight\)"):
        convert_state_dict("x3d_s", arrays, num_classes=400)
    with pytest.raises(ValueError, match=r"must hold the classifier 'blocks\.5\.proj\.weight'"):
        convert_state_dict("x3d_s", {"fc.weight": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="these are weights of the plain network 'x3d_s'"):
        convert_state_dict("srtg_x3d_s", arrays)
    one = "blocks.3.res_blocks.10.branch2.norm_b.1.block.2.bias"
    with pytest.raises(ValueError, match=rf"of 'x3d_s' by the names of pytorchvideo, received 1 missing \({one}\)"):
        convert_state_dict("x3d_s", {key: array for key, array in arrays.items() if key != one})
