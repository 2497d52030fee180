"""TSM and TAM: the authors' networks and names, which blocks see other frames, laws, options, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.convert import convert_state_dict, torch_key
from jaxvid.models.frame_resnet import FrameHead
from jaxvid.ops import temporal_shift_reference

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
SIZES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
NAMES = [f"{prefix}{name}" for prefix in ("", "srtg_") for name in
         ("tsm_r18", "tsm_r34", "tsm_r50", "tsm_r101", "tam_r50", "tam_r101")]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(drawn):
    """``name -> (model of few blocks, its variables, a clip of odd lengths)``."""

    @functools.cache
    def make(name, **options):
        model = models.build(name, 5, width=8, conv="direct", **options).clone(stage_sizes=(1, 2, 1, 1))
        video = jax.random.normal(jax.random.key(0), (2, 5, 40, 33, 3))
        return model, drawn(model, video.shape[1:4]), video

    return make


def test_names():
    assert [name for name in models.MODELS if "tsm" in name or "tam" in name] == [
        *NAMES[:4], *NAMES[6:10], *NAMES[4:6], *NAMES[10:]
    ]  # fmt: skip


def norm_keys(prefix):
    return [f"{prefix}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]


def authors_keys(kind, depth):
    """The keys that the authors' codes make of torchvision's networks, written down a second time."""
    keys = ["base_model.conv1.weight", *norm_keys("base_model.bn1"), "new_fc.weight", "new_fc.bias"]
    for stage, blocks in enumerate(SIZES[depth], 1):
        for index in range(blocks):
            block = f"base_model.layer{stage}.{index}"
            if kind == "tam":
                keys += [f"{block}.tam.{layer}.weight" for layer in ("G.0", "G.3", "L.0", "L.3")]
                keys += norm_keys(f"{block}.tam.G.1") + norm_keys(f"{block}.tam.L.1")
                block += ".net"
            wrapped = ".net" if kind == "tsm" and (depth < 101 or index % 2 == 0) else ""
            convolutions = range(1, 4 if depth >= 50 else 3)
            keys += [f"{block}.conv{n}{wrapped if n == 1 else ''}.weight" for n in convolutions]
            keys += [key for n in convolutions for key in norm_keys(f"{block}.bn{n}")]
            if index == 0 and (stage > 1 or depth >= 50):
                keys += [f"{block}.downsample.0.weight", *norm_keys(f"{block}.downsample.1")]
    return set(keys)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("srtg_")])
def test_torch_keys_are_the_authors(name, shapes_of):
    kind, depth = name.split("_r")
    found = {key for key in shapes_of(name, models.build(name, 400)) if not key.endswith("num_batches_tracked")}
    assert found == authors_keys(kind, int(depth))


def test_keys_of_srtg_lie_in_its_block():
    tsm, tam = models.build("srtg_tsm_r101", 5), models.build("srtg_tam_r50", 5)
    path = ("params", "stage3", "block1", "srtg", "input_kernel_0")
    assert torch_key("srtg_tsm_r101", tsm, path) == "base_model.layer3.1.sar.lstm.weight_ih_l0"
    assert torch_key("srtg_tam_r50", tam, path) == "base_model.layer3.1.sar.lstm.weight_ih_l0"


@pytest.mark.parametrize("depth", [50, pytest.param(101, marks=pytest.mark.slow)])
def test_tam_equals_the_authors(depth, golden, fill, hashed_arrays, video_from_torch, jit):
    """The rule of the other hashed networks, but the last BN of every block at a quarter.

    Without that the activations grow until torch's own float32 is far from its float64.
    """
    stored, name = golden("tam_networks"), f"tam_r{depth}"
    shape = tuple(stored[f"r{depth}.clip_shape"])
    arrays = hashed_arrays(name, models.build(name, 400), shape[2:])
    arrays |= {key: array / 4 for key, array in arrays.items() if key.endswith("bn3.weight")}
    variables = convert_state_dict(name, arrays)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == stored[f"r{depth}.params"]
    video = video_from_torch(fill(10000, shape, -1.7, 1.7))
    logits = jit(functools.partial(models.build(name, 400).apply, train=False))(variables, video)
    expected = stored[f"r{depth}.logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * expected.std())


# Counted in the authors' code: parameters; 10^9 multiply-adds, with the classifier at every frame and TAM's sums.
COUNTS = [
    ("tsm_r18", (8, 224, 224), 11_381_712, 14.510129152),
    ("tsm_r34", (8, 224, 224), 21_489_872, 29.307633664),
    ("tsm_r50", (8, 224, 224), 24_327_632, 32.703643648),
    pytest.param("tsm_r101", (8, 224, 224), 43_319_760, 62.40141312, marks=pytest.mark.slow),
    ("tam_r50", (8, 224, 224), 25_590_320, 32.760128512),
    ("tam_r50", (16, 256, 256), 25_597_744, 85.56786688),
    pytest.param("tam_r101", (8, 224, 224), 45_702_272, 62.48804864, marks=pytest.mark.slow),
    pytest.param("tam_r101", (16, 256, 256), 45_717_584, 163.219662848, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "clip", "params", "gmacs"), COUNTS)
def test_counts_are_the_authors(name, clip, params, gmacs):
    model = models.build(name, 400)
    assert cost.count_parameters(model, clip) == params
    classifier = 512 * (4 if model.bottleneck else 1) * 400
    theirs = (clip[0] - 1) * classifier
    if name.startswith("tam"):
        side = clip[1] // 4
        for stage, blocks in enumerate(model.stage_sizes):
            places = [(side // 2 ** max(stage - 1, 0)) ** 2] + [(side // 2**stage) ** 2] * (blocks - 1)
            theirs += 3 * clip[0] * 64 * 2**stage * sum(places)
    assert cost.count_macs(model, clip) == round(gmacs * 1e9) - theirs
    assert theirs < 0.003 * gmacs * 1e9


def test_every_block_can_be_captured_and_time_keeps_its_length(tiny):
    for name in ("tsm_r18", "tsm_r50", "tam_r50"):
        model, variables, video = tiny(name)
        named = lambda module, _: module.name in BLOCKS  # noqa: E731
        apply = functools.partial(
            model.apply, train=False, capture_intermediates=named, mutable=["intermediates", "perturbations"]
        )
        _, state = jax.eval_shape(apply, variables, video)
        assert set(state["perturbations"]) == set(BLOCKS)
        e = 1 if name == "tsm_r18" else 4
        assert [state["intermediates"][block]["__call__"][0].shape for block in BLOCKS] == [
            (2, 5, 20, 17, 8), (2, 5, 10, 9, 8 * e), (2, 5, 5, 5, 16 * e), (2, 5, 3, 3, 32 * e), (2, 5, 2, 2, 64 * e),
            (2, 5),
        ]  # fmt: skip


def test_tsm_without_a_shift_is_the_mean_of_the_frames(tiny, jit, monkeypatch):
    """And with it the logits depend on the order of the frames."""
    model, variables, video = tiny("tsm_r50")
    frames = video.reshape(-1, 1, *video.shape[2:])

    def run(model):
        return jit(lambda: [model.apply(variables, v, train=False) for v in (video, video[:, ::-1], frames)])()

    forward, backward, _ = run(model)
    spread = float(jnp.std(forward))
    assert np.abs(forward - backward).max() > 0.01 * spread
    monkeypatch.setattr("jaxvid.models.tsm.temporal_shift", lambda x, fold_div: x)
    forward, backward, alone = run(model)
    np.testing.assert_allclose(forward, backward, rtol=0, atol=1e-4 * spread)
    np.testing.assert_allclose(forward, alone.reshape(2, 5, -1).mean(1), rtol=0, atol=1e-4 * spread)


@pytest.mark.parametrize(("name", "every"), [("tsm_r18", 1), ("tsm_r50", 1), ("tsm_r101", 2), ("srtg_tsm_r101", 2)])
def test_which_blocks_shift(name, every, monkeypatch):
    """From 23 blocks in stage 3 on every second block of every stage, and its branch alone; never the shortcut."""
    shifted = []

    def count(x, fold_div):
        shifted.append((x.shape[-1], fold_div))
        return x

    monkeypatch.setattr("jaxvid.models.tsm.temporal_shift", count)
    model = models.build(name, 5, width=8, fold_div=4)
    cost.variable_shapes(model, (2, 32, 32))
    e, expected = 4 if model.bottleneck else 1, []
    for stage, blocks in enumerate(model.stage_sizes):
        inputs = [8 if stage == 0 else e * 4 * 2**stage, *[e * 8 * 2**stage] * (blocks - 1)]
        expected += [(channels, 4) for channels in inputs[::every]]
    assert shifted == expected


def test_the_branch_is_shifted_and_the_shortcut_is_not(drawn, jit):
    """A block of zeros lets its unshifted input through; otherwise its branch sees the shifted input."""
    model = models.build("tsm_r18", 5, width=8, conv="direct").clone(stage_sizes=(1,) * 4)
    variables, video = drawn(model), jax.random.normal(jax.random.key(0), (1, 3, 64, 64, 3))
    named = lambda module, _: module.name in ("stem", "stage1", "conv1")  # noqa: E731
    apply = jit(functools.partial(model.apply, train=False, capture_intermediates=named, mutable=["intermediates"]))
    state = apply(variables, video)[1]["intermediates"]
    pooled = jax.lax.reduce_window(
        state["stem"]["__call__"][0], -jnp.inf, jax.lax.max, (1, 1, 3, 3, 1), (1, 1, 2, 2, 1),
        ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)),
    )  # fmt: skip
    kernel = variables["params"]["stage1"]["block0"]["conv1"]["kernel"]
    expected = jax.lax.conv_general_dilated(
        temporal_shift_reference(pooled, 8), kernel, (1, 1, 1), ((0, 0), (1, 1), (1, 1)),
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )  # fmt: skip
    np.testing.assert_allclose(state["stage1"]["block0"]["conv1"]["__call__"][0], expected, rtol=1e-4, atol=1e-4)
    closed = jax.tree.map(jnp.zeros_like, variables["params"]["stage1"]["block0"])
    params = variables["params"] | {"stage1": {"block0": closed}}
    statistics = variables["batch_stats"] | {"stage1": jax.tree.map(jnp.zeros_like, variables["batch_stats"]["stage1"])}
    state = apply({"params": params, "batch_stats": statistics}, video)[1]["intermediates"]
    np.testing.assert_array_equal(state["stage1"]["__call__"][0], pooled)


def test_fewer_channels_than_fold_div_are_not_shifted(drawn, jit):
    model = models.build("tsm_r18", 5, width=4, fold_div=64, conv="direct").clone(stage_sizes=(1, 1, 1, 1))
    variables, video = drawn(model), jax.random.normal(jax.random.key(0), (1, 3, 32, 32, 3))
    run = jit(functools.partial(model.apply, train=False))
    np.testing.assert_allclose(run(variables, video), run(variables, video[:, ::-1]), rtol=1e-5, atol=1e-5)


def test_tam_has_the_number_of_frames_of_its_start(tiny):
    model, variables, video = tiny("tam_r50")
    assert variables["params"]["stage1"]["block0"]["temporal"]["frames"]["kernel"].shape == (5, 10)
    with pytest.raises(ValueError, match=r"as many frames as the network was made for.* hold 5, received 4 frames\."):
        model.apply(variables, video[:, :4], train=False)
    remat = model.clone(remat=True)
    with pytest.raises(ValueError, match=r"received 1 frames\."):
        jax.eval_shape(functools.partial(remat.apply, train=True, mutable=["batch_stats"]), variables, video[:, :1])
    one = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), video[:, :1])
    assert one["params"]["stage1"]["block0"]["temporal"]["frames"]["kernel"].shape == (1, 2)


def test_remat_changes_nothing(drawn, jit):
    """Also where a module asks in its block what its variables are."""
    model = models.build("tam_r50", 5, width=8, conv="direct").clone(stage_sizes=(1,))
    video = jax.random.normal(jax.random.key(0), (2, 2, 16, 16, 3))
    variables = drawn(model, (2, 16, 16))

    @jit
    def run():
        def loss(params, model):
            logits, state = model.apply(variables | {"params": params}, video, train=True, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(logits)), state

        return [jax.grad(loss, has_aux=True)(variables["params"], m) for m in (model, model.clone(remat=True))]

    plain, other = run()
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), plain, other)


def test_dropout_draws_for_every_frame():
    """Of T frames the mean's features are lost with probability rate^T, not rate, and keep their expectation."""
    head_input, head = jnp.ones((200, 2, 1, 1, 64)), FrameHead(64, 0.5)
    variables = {"params": {"classifier": {"kernel": jnp.eye(64), "bias": jnp.zeros(64)}}}
    features = head.apply(variables, head_input, True, rngs={"dropout": jax.random.key(0)})
    values, counts = np.unique(np.round(features, 5), return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 2])
    np.testing.assert_allclose(counts / features.size, [0.25, 0.5, 0.25], atol=0.02)
    np.testing.assert_array_equal(head.apply(variables, head_input, False), np.ones((200, 64)))


def test_window_classifies_every_part_of_a_larger_map():
    x = jax.random.normal(jax.random.key(0), (2, 5, 2, 2, 8))
    variables = FrameHead(5, 0.5).init(jax.random.key(0), x, False)
    logits, same, windows = (FrameHead(5, 0.5, w).apply(variables, x, False) for w in (None, (5, 2, 2), (5, 1, 1)))
    np.testing.assert_array_equal(same, logits)
    assert not np.allclose(windows, logits)
    np.testing.assert_allclose(jnp.exp(windows).sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("pool", ["avg", "soft"])
def test_pooling_behind_the_stem(pool, drawn, jit):
    model = models.build("tam_r50", 5, width=8, conv="direct").clone(stage_sizes=(1,))
    other = models.build("tam_r50", 5, width=8, pool=pool, conv="direct").clone(stage_sizes=(1,))
    variables, video = drawn(model, (2, 9, 8)), jax.random.normal(jax.random.key(0), (2, 2, 9, 8, 3))
    logits, received = jit(lambda: [m.apply(variables, video, train=False) for m in (model, other)])()
    assert received.shape == (2, 5)
    assert not np.allclose(received, logits)


def test_start_of_the_classifier():
    params = FrameHead(400, 0.5).init(jax.random.key(0), jnp.zeros((1, 1, 1, 1, 64)), False)["params"]
    assert np.std(params["classifier"]["kernel"]) == pytest.approx(0.001, rel=0.05)
    assert not np.any(params["classifier"]["bias"])


def test_options_reach_the_module():
    model = models.build("tsm_r50", np.int64(7), dropout=0.5, dtype="bfloat16", fold_div=np.int64(4), window=(8, 7, 7))
    assert (model.num_classes, model.dropout, model.dtype, model.fold_div) == (7, 0.5, jnp.bfloat16, 4)
    assert (model.width, model.pool, model.window, model.srtg) == (64, "max", (8, 7, 7), None)
    assert models.build("tsm_r50", 7, width=64) == models.build("tsm_r50", 7)
    assert models.build("srtg_tam_r50", 7, placement="top").srtg.placement == "top"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tsm_r50", {"foldiv": 8}, r"must be among width, pool, fold_div, .*; did you mean 'fold_div'"),
        ("tam_r50", {"fold_div": 8}, r"options of 'tam_r50' must be among width, pool, dropout.* received 'fold_div'"),
        ("tsm_r50", {"fold_div": 1}, r"fold_div must be a whole number >= 2, received fold_div=1\."),
        ("tsm_r50", {"fold_div": 2.5}, r"fold_div must be a whole number >= 1, received fold_div=2\.5\."),
        ("tsm_r50", {"pool": "median"}, r"pool must be one of max, avg, soft"),
        ("tam_r50", {"width": 0}, r"width must be a whole number >= 1, received width=0\."),
        ("tam_r50", {"gate": "cyclic"}, r"whose name starts with srtg_.*'srtg_tam_r50'"),
        ("tam_r18", {}, r"must be one of jaxvid\.models\.MODELS, received 'tam_r18'; did you mean"),
    ],
)
def test_errors_of_the_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, 5, **options)


def test_srtg_top_is_behind_the_temporal_adaptive_module(drawn):
    """A recurrence that answers 0 there wipes out the branch, whatever TAM does."""
    model = models.build("srtg_tam_r50", 5, width=4, placement="top", conv="direct").clone(stage_sizes=(1,) * 4)
    shapes = cost.variable_shapes(model, (3, 32, 32))["params"]["stage2"]["block0"]
    assert shapes["srtg"]["input_kernel_0"].shape == (8, 32)
    assert shapes["temporal"]["excite"]["kernel"].shape == (1, 1, 1, 2, 8)


# Weights of torch.


@pytest.mark.parametrize("name", ["tsm_r18", "tsm_r50", "tam_r50", "srtg_tsm_r18"])
def test_2d_arrays_arrive(name, shapes_of):
    """As torch has them, four axes of a convolution and three of a Conv1d; width and frames are read from them."""
    model, clip, rng = models.build(name, 3, width=8), (7, 32, 32), np.random.default_rng(0)
    given = {}
    for key, shape in shapes_of(name, model, clip).items():
        if len(shape) == 5:
            shape = shape[:2] + ((shape[2],) if ".L." in key else shape[3:])
        given[f"module.{key}"] = rng.normal(size=shape).astype(np.float32)
    variables = convert_state_dict(name, given)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, dict(cost.variable_shapes(model, clip)))
    stem = given["module.base_model.conv1.weight"]
    assert stem.shape == (8, 3, 7, 7)
    np.testing.assert_array_equal(variables["params"]["stem"]["conv"]["kernel"][0], stem.transpose(2, 3, 1, 0))
    if name == "tam_r50":
        kernels = variables["params"]["stage2"]["block1"]["temporal"]
        local = given["module.base_model.layer2.1.tam.L.0.weight"]
        assert local.shape == (4, 16, 3)
        np.testing.assert_array_equal(kernels["reduce"]["kernel"][:, 0, 0], local.transpose(2, 1, 0))
        over_time = given["module.base_model.layer2.1.tam.G.0.weight"]
        assert over_time.shape == (14, 7)
        np.testing.assert_array_equal(kernels["frames"]["kernel"], over_time.T)


def test_a_wrong_2d_kernel_is_named_in_torchs_layout(shapes_of):
    model = models.build("tsm_r18", 3, width=8)
    given = {}
    for key, shape in shapes_of("tsm_r18", model).items():
        given[key] = np.zeros(shape[:2] + shape[3:] if len(shape) == 5 else shape, np.float32)
    given["base_model.layer1.0.conv2.weight"] = np.zeros((8, 8, 5, 5))
    given["base_model.layer2.0.downsample.0.weight"] = np.zeros((16, 8, 3, 3))
    with pytest.raises(ValueError, match="must have the network's shapes") as error:
        convert_state_dict("tsm_r18", given)
    message = str(error.value)
    assert (
        "conv2.weight (8, 8, 3, 3) (ours: stage1/block0/conv2/kernel (1, 3, 3, 8, 8)), received (8, 8, 5, 5)" in message
    )
    assert "downsample.0.weight (16, 8, 1, 1) (ours" in message


def test_frames_are_those_of_most_arrays(shapes_of):
    model = models.build("tam_r50", 3, width=8)
    given = {key: np.zeros(shape) for key, shape in shapes_of("tam_r50", model, (7, 32, 32)).items()}
    given["base_model.layer1.0.tam.G.0.weight"] = np.zeros((8, 4))
    with pytest.raises(ValueError, match=r"shapes: base_model\.layer1\.0\.tam\.G\.0\.weight \(14, 7\) .* \(8, 4\)\.$"):
        convert_state_dict("tam_r50", given)
