"""SlowFast: the frames of its pathways, its numbers beside the authors', its window, its options."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cards, cost
from jaxvid.models.convert import convert_state_dict, torch_key
from jaxvid.models.residual import PLACEMENTS
from jaxvid.models.slowfast import VARIANTS, Pathways, slow_frames
from jaxvid.models.stages import mean_of_windows

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")


@pytest.fixture(scope="module")
def tiny(drawn):
    """A narrow model of few blocks, its variables, and a clip of odd size."""
    model = models.build("slowfast_r50_8x8", 5, width=16, conv="direct").clone(stage_sizes=(2, 1, 1, 1))
    return model, drawn(model), jax.random.normal(jax.random.key(0), (2, 8, 40, 70, 3))


def test_logits_equal_the_authors(golden, fill, hashed_arrays, video_from_torch, jit):
    """Of pathways that are given, with a ratio of 4 where the network's own is 8."""
    expected = golden("hashnet_slowfast_r50_4x16_small")
    model = models.build("slowfast_r50_4x16", num_classes=400, alpha=4)
    assert cost.count_parameters(model) == int(expected["params"])
    variables = convert_state_dict("slowfast_r50_4x16", hashed_arrays("slowfast_r50_4x16", model), alpha=4)
    pathways = [
        video_from_torch(fill(10000 + i, tuple(shape), -1.7, 1.7)) for i, shape in enumerate(expected["clip_shape"])
    ]
    logits = jit(functools.partial(model.apply, train=False, method="forward_pathways"))(variables, *pathways)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4 * expected["logits"].std())


@pytest.mark.data
def test_torch_keys_and_shapes_are_the_authors(golden, shapes_of):
    expected = {k: tuple(shape) for k, shape in golden("statedict_keys")["slowfast_r50_4x16_small"].items()}
    assert shapes_of("slowfast_r50_4x16", models.build("slowfast_r50_4x16", 400)) == expected


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("slowfast_r50_4x16", 34_480_216, {224: 27.6387}),
        ("slowfast_r50_8x8", 34_566_488, {224: 50.3086, 256: 65.7117}),
        pytest.param("slowfast_r101_8x8", 62_913_240, {224: 96.7113, 256: 126.3193}, marks=pytest.mark.slow),
        # The authors print 53.77 M, and 213 of the paper's views of 64x256x256.
        pytest.param("slowfast_r101_16x8", 53_774_808, {256: 213.0}, marks=pytest.mark.slow),
    ],
)
def test_counts_of_the_reference(name, params, gmacs):
    model = models.build(name, 400)
    assert cost.count_parameters(model) == params
    for size, expected in gmacs.items():
        assert cost.count_macs(model, (cards.clip_of(name)[0], size, size)) / 1e9 == pytest.approx(expected, rel=5e-4)


def test_short_kernels_between_the_pathways():
    """The published weights of R101 8x8 have kernels of 5 frames: 62.83 M parameters."""
    assert cost.count_parameters(models.build("slowfast_r101_8x8", 400, fusion_frames=5)) == 62_826_968


# Of torch.linspace(0, T - 1, T // alpha).long().
@pytest.mark.parametrize(
    ("num_frames", "alpha", "expected"),
    [
        (32, 8, [0, 10, 20, 31]),
        (32, 4, [0, 4, 8, 13, 17, 22, 26, 31]),
        (64, 4, [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]),
        (16, 8, [0, 15]),
        (8, 8, [0]),
        (3, 1, [0, 1, 2]),
        (5, 1, [0, 1, 2, 3, 4]),
    ],
)
def test_frames_of_the_slow_pathway(num_frames, alpha, expected):
    assert slow_frames(num_frames, alpha).tolist() == expected


def test_frames_are_rounded_as_the_authors_round_them():
    """Position 13 of 40 is (almost) exactly 53: in float32 it is a little less."""
    assert slow_frames(160, 4)[13] == 52
    for alpha in (1, 2, 4, 8):
        for count in range(1, 40):
            frames = slow_frames(alpha * count, alpha)
            assert len(frames) == count
            assert (frames[0], frames[-1]) == (0, alpha * count - 1 if count > 1 else 0)
            assert np.all(np.diff(frames) >= 1)


def test_channels_and_kernels():
    shapes = jax.tree.map(
        lambda leaf: leaf.shape, cost.variable_shapes(models.build("slowfast_r101_16x8", 7))["params"]
    )
    assert shapes["stem"]["slow"]["conv"]["kernel"] == (1, 7, 7, 3, 64)
    assert shapes["stem"]["fast"]["conv"]["kernel"] == (5, 7, 7, 3, 8)
    for stage, blocks in enumerate((3, 4, 23, 3)):
        found = shapes[f"stage{stage + 1}"]
        fast = (8, 32, 64, 128)[stage]
        assert found["fusion"]["conv"]["kernel"] == (5, 1, 1, fast, 2 * fast)
        for path, width, frames in (("slow", 64, (1, 1, 3, 3)[stage]), ("fast", 8, 3)):
            assert set(found[path]) == {f"block{i}" for i in range(blocks)}
            for i in range(blocks):
                block, planes = found[path][f"block{i}"], width * 2**stage
                temporal = stage != 2 or i < 6
                assert block["conv1"]["kernel"][0] == (frames if temporal else 1)
                assert block["conv2"]["kernel"] == (1, 3, 3, planes, planes)
                assert block["conv3"]["kernel"] == (1, 1, 1, planes, 4 * planes)
                assert ("shortcut_norm" in block) == (i == 0)
    assert shapes["head"]["classifier"] == {"kernel": (2304, 7), "bias": (7,)}


def test_a_video_is_its_two_pathways(tiny, jit):
    model, variables, video = tiny
    frames = slow_frames(8, 4)

    @jit
    def run():
        given = model.apply(variables, video[:, frames], video, train=False, method="forward_pathways")
        other = model.apply(variables, video[:, frames] + 0.1, video, train=False, method="forward_pathways")
        return model.apply(variables, video, train=False), given, other

    own, given, other = run()
    np.testing.assert_array_equal(own, given)
    assert not np.allclose(own, other)


def test_both_pathways_of_a_block_can_be_captured(tiny):
    model, variables, video = tiny
    named = lambda module, _: module.name in BLOCKS  # noqa: E731
    apply = functools.partial(
        model.apply, train=False, capture_intermediates=named, mutable=["intermediates", "perturbations"]
    )
    logits, state = jax.eval_shape(apply, variables, video)
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
    assert set(state["perturbations"]) == set(BLOCKS)
    spaces = [(20, 35), (10, 18), (5, 9), (3, 5), (2, 3)]
    for block, space, slow, fast in zip(BLOCKS, spaces, (16, 64, 128, 256, 512), (2, 8, 16, 32, 64), strict=False):
        found = state["intermediates"][block]["__call__"][0]
        assert isinstance(found, Pathways)
        assert (found.slow.shape, found.fast.shape) == ((2, 2, *space, slow), (2, 8, *space, fast))
        moved = state["perturbations"][block]["output"]
        assert jax.tree.map(jnp.shape, moved) == jax.tree.map(jnp.shape, found)


def test_gradient_by_name_is_that_of_both_outputs(tiny, jit):
    model, variables, video = tiny
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape),
        jax.eval_shape(functools.partial(model.apply, train=False, mutable=["perturbations"]), variables, video)[1],
    )["perturbations"]

    @jit
    def run(zeros):
        def score(output):
            moved = zeros | {"stage2": zeros["stage2"] | {"output": output}}
            return model.apply(variables | {"perturbations": moved}, video, train=False)[0, 3]

        value, gradient = jax.value_and_grad(score)(zeros["stage2"]["output"])
        length = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(gradient))
        slope = (score(jax.tree.map(lambda leaf: 1e-3 / jnp.sqrt(length) * leaf, gradient)) - value) / 1e-3
        return gradient, slope, jnp.sqrt(length)

    gradient, slope, expected = run(zeros)
    for leaf in gradient:
        assert np.any(leaf[0] != 0)
        assert not np.any(leaf[1])  # the other clip's
    np.testing.assert_allclose(slope, expected, rtol=0.05)


def test_windows_of_both_pathways_lie_at_the_same_times(tiny, jit):
    """The logarithm of the mean of the windows' softmax; a window of the fast pathway has alpha times the frames."""
    model, variables, _ = tiny
    video = jax.random.normal(jax.random.key(1), (1, 16, 64, 96, 3))
    windowed = model.clone(window=(3, 2, 2))

    @jit
    def run():
        named = lambda module, _: module.name == "stage4"  # noqa: E731
        apply = functools.partial(model.apply, train=False, capture_intermediates=named, mutable=["intermediates"])
        return apply(variables, video)[1], windowed.apply(variables, video, train=False)

    state, received = run()
    slow, fast = state["intermediates"]["stage4"]["__call__"][0]
    assert slow.shape[1:4] == (4, 2, 3)
    classifier = variables["params"]["head"]["classifier"]
    probabilities = []
    for t, w in np.ndindex(2, 2):
        features = [
            slow[0, t : t + 3, :, w : w + 2].mean((0, 1, 2)),
            fast[0, 4 * t : 4 * t + 12, :, w : w + 2].mean((0, 1, 2)),
        ]
        probabilities.append(jax.nn.softmax(jnp.concatenate(features) @ classifier["kernel"] + classifier["bias"]))
    np.testing.assert_allclose(np.exp(received[0]), np.mean(probabilities, 0), rtol=1e-4)
    assert mean_of_windows(fast, (12, 2, 2))[:, ::4].shape[1] == 2


@pytest.mark.slow
def test_remat_changes_nothing(tiny, jit):
    model, variables, video = tiny

    def gradient(model):
        loss = lambda params: jnp.sum(  # noqa: E731
            model.apply(variables | {"params": params}, video, train=True, mutable=["batch_stats"])[0] ** 2
        )
        return jax.grad(loss)(variables["params"])

    plain, again = jit(lambda: (gradient(model), gradient(model.clone(remat=True))))()
    for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * np.abs(ours).max(), err_msg=str(path))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_srtg_has_the_channels_of_its_place_in_both_pathways(placement):
    model = models.build("srtg_slowfast_r50_8x8", 3, placement=placement).clone(stage_sizes=(1, 1))
    params = cost.variable_shapes(model)["params"]["stage2"]
    slow = {"start": 320, "res": 512, "top": 128, "mid": 128, "end": 512, "final": 512}[placement]
    fast = {"start": 32, "res": 64, "top": 16, "mid": 16, "end": 64, "final": 64}[placement]
    assert params["slow"]["block0"]["srtg"]["input_kernel_0"].shape == (slow, 4 * slow)
    assert params["fast"]["block0"]["srtg"]["input_kernel_0"].shape == (fast, 4 * fast)


@pytest.mark.slow
def test_options_that_the_arrays_tell(shapes_of):
    model = models.build("slowfast_r101_8x8", 3, width=16, fusion_frames=5)
    shapes = shapes_of("slowfast_r101_8x8", model)
    variables = convert_state_dict("slowfast_r101_8x8", {k: np.zeros(s, np.float32) for k, s in shapes.items()})
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, dict(cost.variable_shapes(model)))


def test_every_array_has_a_name_of_its_own():
    model = models.build("srtg_slowfast_r50_4x16", 3, width=8)
    paths = list(flax.traverse_util.flatten_dict(dict(cost.variable_shapes(model))))
    assert len({torch_key("srtg_slowfast_r50_4x16", model, path) for path in paths}) == len(paths)


def test_names_and_options():
    assert {f"{prefix}{name}" for prefix in ("", "srtg_") for name in VARIANTS} <= set(models.MODELS)
    model = models.build("slowfast_r50_4x16", 7, alpha=np.int64(2), fusion_frames=3, pool="soft", zero_init=False)
    assert (model.alpha, model.fusion_frames, model.pool, model.zero_init) == (2, 3, "soft", False)
    assert models.build("slowfast_r50_4x16", 7).alpha == 8
    assert {models.build(name, 7).alpha for name in VARIANTS if "4x16" not in name} == {4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, r"alpha must be a whole number >= 1, received alpha=0\."),
        ({"fusion_frames": 4}, r"fusion_frames must be an odd number, received fusion_frames=4\."),
        ({"pool": "none"}, r"pool must be one of max, avg, soft, received pool='none'"),
        ({"width": 1.5}, r"width must be a whole number >= 1, received width=1\.5\."),
        ({"zero_init": 1}, r"zero_init must be True or False, received zero_init=1\."),
        ({"beta": 8}, r"options of 'slowfast_r50_8x8' must be among width, alpha, .* received 'beta'"),
        ({"conv": "shifted"}, r"conv must be one of auto, direct, folded, received conv='shifted'"),
    ],
)
def test_errors_name_the_rule_and_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("slowfast_r50_8x8", 10, **options)


def test_videos_that_do_not_fit(tiny):
    model, variables, _ = tiny
    for frames in (1, 6):
        with pytest.raises(ValueError, match=rf"frames must be divisible by alpha=4, received .* \(1, {frames}, 8, 8"):
            model.apply(variables, jnp.zeros((1, frames, 8, 8, 3)), train=False)
    with pytest.raises(ValueError, match=r"alpha=4 times its frames, received slow \(1, 2, 8.* and fast \(1, 4, 8"):
        model.apply(variables, jnp.zeros((1, 2, 8, 8, 3)), jnp.zeros((1, 4, 8, 8, 3)), False, method="forward_pathways")
    with pytest.raises(ValueError, match="must be normalised floating-point RGB, received dtype uint8"):
        model.apply(variables, jnp.zeros((1, 4, 8, 8, 3), jnp.uint8), train=False)
    with pytest.raises(ValueError, match="more than one value per channel"):
        model.apply(variables, jnp.zeros((1, 4, 32, 32, 3)), train=True, mutable=["batch_stats"])
