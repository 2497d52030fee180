"""Laws that every registered network obeys. New networks are swept without a change here."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import mtnet_reference
from jaxvid.models.mtnet_reference import MTNetReference
from jaxvid.nn import mtconv_reference
from jaxvid.ops import convolution

NUM_CLASSES = 5
VIDEO = (2, 32, 32, 32, 3)  # 2 time steps and one position are left in the last stage: every recurrence recurs


def _video(model, seed=0):
    """The long stream of the public code's MTNet has half the frames again.

    On noise frames are nearly alike: in its clip no choice between them is closer than 2e-5, a hundred roundings.
    """
    if isinstance(model, MTNetReference):
        return jax.random.normal(jax.random.key(2), (2, 64, *VIDEO[2:]))
    return jax.random.normal(jax.random.key(seed), VIDEO)


def _steady(model):
    """Without the thesis' choice of frames, which may turn on a rounding: on noise the frames are nearly alike."""
    return model.clone(selection="none") if hasattr(model, "selection") else model


def _tiny(name):
    """The network, narrow and with few blocks: the others of a stage repeat its second one."""
    # A DenseNet of width 4 has so few channels that its last ReLU may let nothing pass; the long stream of the public
    # code's MTNet would have a single one, whose frames resemble each other all alike, so that rounding would choose.
    wide = "densenet" in name or "mtnet_ref" in name
    model = models.build(name, NUM_CLASSES, width=16 if wide else 4, conv="direct")
    return model.clone(stage_sizes=(2, 1, 1, 1)) if hasattr(model, "stage_sizes") else model


# Names that differ only in depth are one network here.
NETWORKS = {}
for _name in models.MODELS:
    NETWORKS.setdefault(_tiny(_name), _name)

# Between them the others, or the tests of their own files, have every part of these.
SLOW = {
    "r3d_50", "r2plus1d_18", "r2plus1d_50", "wide_r3d_50", "resnet3d_18_hara", "resnet3d_50_hara", "r2plus1d_18_hara",
    "wide_resnet3d_50_hara", "srtg_r3d_18", "srtg_r2plus1d_50", "srtg_wide_r3d_50", "srtg_resnet3d_18_hara",
    "srtg_resnet3d_50_hara", "srtg_r2plus1d_18_hara", "srtg_r2plus1d_50_hara", "srtg_wide_resnet3d_50_hara",
    "srtg_x3d_xs", "resnext3d_50", "srtg_resnext3d_50", "srtg_mfnet",
    "slowfast_r50_8x8", "slowfast_r101_8x8", "slowfast_r101_16x8", "srtg_slowfast_r50_4x16",
    "srtg_slowfast_r50_8x8", "srtg_slowfast_r101_8x8", "srtg_slowfast_r101_16x8", "ir_csn_50", "srtg_ip_csn_50",
    "srtg_ir_csn_50", "r3d_18_torchvision", "r2plus1d_18_torchvision", "srtg_r3d_18_torchvision",
    "srtg_mc3_18_torchvision", "srtg_r2plus1d_18_torchvision", "tsm_r50", "srtg_tsm_r18", "srtg_tsm_r50",
    "srtg_tam_r50", "fast_r50", "resnet2d_18", "resnet2d_50", "resnext2d_101_32x8d", "wide_resnet2d_50_2",
    "srtg_fast_r18", "srtg_fast_r50", "srtg_resnet2d_18", "srtg_resnet2d_50", "srtg_resnext2d_50_32x4d",
    "srtg_resnext2d_101_32x8d", "srtg_wide_resnet2d_50_2", "densenet2d_161", "fast_densenet_121",
    "mtnet_s", "mtnet_ref_xs", "srtg_u2s_resnet_50", "mtnet_ref_xs_g8", "i3d", "mfnet", "srtg_x3d_xl",
    "ip_csn_50", "fast_r18", "srtg_r3d_50", "srtg_r2plus1d_18", "mc3_18_torchvision", "r2plus1d_50_hara",
    "slowfast_r50_4x16",
    "tam_r50", "resnext2d_50_32x4d", "x3d_xl",
    "slow_r50_4x16", "srtg_slow_r50_4x16", "mtconv_r3d_50", "srtg_mtconv_r3d_50",
}  # fmt: skip


def _swept(model, name):
    return pytest.param(model, id=name, marks=pytest.mark.slow if name in SLOW else ())


# SRTG does not see which convolutions a block has: one network of each kind of block stands for the others, which are
# built below as all are.
SRTG = {
    "srtg_r3d_18", "srtg_r3d_50", "srtg_r2plus1d_18", "srtg_r2plus1d_50_hara", "srtg_x3d_xs", "srtg_mfnet",
    "srtg_slowfast_r50_4x16", "srtg_ip_csn_50", "srtg_u2s_resnet_50", "srtg_tsm_r18", "srtg_tam_r50", "srtg_fast_r18",
}  # fmt: skip
SWEPT = {model: name for model, name in NETWORKS.items() if name in SRTG or not name.startswith("srtg_")}

every_network = pytest.mark.parametrize("model", [_swept(model, name) for model, name in SWEPT.items()])


def test_the_slow_ones_exist():
    assert set(NETWORKS.values()) > SLOW
    assert set(NETWORKS.values()) > SRTG


# A device that has no Pallas kernel refuses even to be traced.
FORMULATIONS = [name for name in convolution.IMPLEMENTATIONS if name != "pallas"]


def _takes(name, conv):
    try:
        models.build(name, NUM_CLASSES, conv=conv)
    except ValueError:
        return False
    return True


def _named(name):
    """Fast are the names that are swept fast; the counts of test_cards.py trace every shallow one."""
    swept = name in NETWORKS.values() and name not in SLOW
    return pytest.param(name, marks=() if swept else pytest.mark.slow)


@pytest.mark.parametrize("name", map(_named, models.MODELS))
def test_every_name_gives_float32_logits(name):
    model = models.build(name, NUM_CLASSES, width=4)
    video = jax.ShapeDtypeStruct((3, 8, 32, 32, 3), jnp.float32)
    apply = functools.partial(model.init_with_output, train=False)
    logits, variables = jax.eval_shape(apply, jax.random.key(0), video)
    assert (logits.shape, logits.dtype) == ((3, NUM_CLASSES), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def _formulated():
    """What is swept, and a network with groups; one block per stage."""
    grouped = _tiny("r3d_50").clone(groups=2)
    fast = {"r3d_18", "r3d_50, grouped"}
    # Hara's, torchvision's, the wide networks and MTConvs have the convolutions of r3d and r2plus1d, TSM those of an
    # image's, Slow-only those of SlowFast.
    alike = ("srtg_", "_hara", "_torchvision", "wide_", "mtconv_", "tsm_", "slow_", "slowfast_r50_8x8")
    alike += ("slowfast_r101", "ir_csn")
    alone = {"srtg_r3d_18", "srtg_x3d_xs", "mc3_18_torchvision"}
    for model, name in (*NETWORKS.items(), (grouped, "r3d_50, grouped")):
        if name not in alone and any(part in name for part in alike):
            continue
        small = _steady(model).clone(stage_sizes=(1, 1, 1, 1))
        yield pytest.param(name, small, id=name, marks=() if name in fast else pytest.mark.slow)


# With clip 0 a unit of these networks is nearer to ReLU's corner than float32 is exact: a relative change of the video
# by 1e-7 moves gradients by 3e-3, as another formulation does.
CLIPS = {"fast_r18": 1, "srtg_fast_r18": 1}


@pytest.mark.parametrize(("name", "model"), _formulated())
def test_every_formulation_gives_the_same(name, model, drawn, jit):
    """Logits, and the gradient of every parameter."""
    variables, video = drawn(model, VIDEO[1:4]), _video(model, CLIPS.get(name, 0))
    others = [conv for conv in FORMULATIONS if conv != "direct" and _takes(name.split(",")[0], conv)]

    def loss(params, model):
        logits = model.apply(variables | {"params": params}, video, train=False)
        return jnp.sum(jnp.sin(logits)), logits

    @jit
    def run(params):
        gradient = jax.grad(loss, has_aux=True)
        return [gradient(params, model.clone(conv=conv)) for conv in ("direct", *others)]

    (expected, logits), *received = run(variables["params"])
    assert others
    for gradients, theirs in received:
        np.testing.assert_allclose(theirs, logits, rtol=0, atol=1e-4 * jnp.std(logits))
        for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
            exact = functools.reduce(lambda tree, key: tree[key.key], path, expected)
            np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-3 * np.abs(exact).max(), err_msg=str(path))


@pytest.fixture
def steady(monkeypatch):
    """The public code's MTNet without its choice of frames, which no clip makes safe from bfloat16's rounding."""
    for module in (mtconv_reference, mtnet_reference):
        monkeypatch.setattr(module, "select_half", lambda x: x[:, : -(-x.shape[1] // 2)])


@every_network
def test_evaluation(model, drawn, jit, steady):
    """Clips do not see each other, bfloat16 is near, and one shape is traced once."""
    model = _steady(model)
    variables, video = drawn(model, VIDEO[1:4]), _video(model)
    halves = model.clone(dtype=jnp.dtype("bfloat16"))
    traces = 0

    @jit
    def evaluate(video):
        nonlocal traces
        traces += 1
        return model.apply(variables, video, train=False), halves.apply(variables, video, train=False)

    logits, near = evaluate(video)
    alone = jnp.concatenate([evaluate(video[:1])[0], evaluate(video[1:])[0]])
    assert traces == 2  # of two clips and of one
    assert (logits.shape, logits.dtype, near.dtype) == ((2, NUM_CLASSES), jnp.float32, jnp.float32)
    spread = float(jnp.std(logits))
    assert spread > 0
    np.testing.assert_allclose(alone, logits, rtol=0, atol=1e-4 * spread)
    np.testing.assert_allclose(near, logits, rtol=0, atol=0.15 * spread)


PROMISED = 0.01  # a fall of the loss so small that it is the gradient's
STEP = 0.03  # of each array's norm


def _directions(params, gradients):
    """Per block its gradients, each scaled to the norm of its parameter, and how fast the loss falls along them."""
    scaled = jax.tree.map(lambda p, g: np.float64(g) * (np.linalg.norm(p) / np.linalg.norm(g)), params, gradients)
    return scaled, {block: _dot(scaled[block], gradients[block]) for block in params}


def _dot(a, b):
    return sum(np.vdot(x, np.float64(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _descend(params, directions, steps):
    """The parameters after a step of a length of its own for each block."""
    return {
        block: jax.tree.map(lambda p, d, block=block: np.float32(p - steps[block] * d), tree, directions[block])
        for block, tree in params.items()
    }


@every_network
def test_training(model, drawn, jit):
    """Every parameter has a finite gradient that is not 0, every running statistic moves, and the loss falls.

    A small step lets it fall by what the gradient promises, to which every block contributes alike; five large ones
    by half at least.
    """
    model = _steady(model)
    variables, video = drawn(model, VIDEO[1:4]), _video(model)

    def loss(params):
        logits, state = model.apply(variables | {"params": params}, video, train=True, mutable=["batch_stats"])
        return -jax.nn.log_softmax(logits)[jnp.arange(2), jnp.array([1, 3])].mean(), state["batch_stats"]

    run = jit(jax.value_and_grad(loss, has_aux=True))
    params = variables["params"]
    (first, statistics), gradients = run(params)
    assert np.isfinite(first)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.all(np.isfinite(gradient)), path
        assert np.any(gradient != 0), path
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), variables["batch_stats"], statistics)
    assert all(jax.tree.leaves(moved))

    directions, slopes = _directions(params, gradients)
    near = _descend(params, directions, {block: PROMISED / len(slopes) / slope for block, slope in slopes.items()})
    promised = _dot(jax.tree.map(lambda old, new: np.float64(old) - new, params, near), gradients)  # as rounded
    assert first - run(near)[0][0] == pytest.approx(promised, rel=0.1)
    for _ in range(5):
        params = _descend(params, directions, dict.fromkeys(params, STEP))
        (last, _), gradients = run(params)
        directions, _ = _directions(params, gradients)
    assert last < 0.5 * first


def test_identity_start_lets_every_recurrence_learn(jit):
    """SRTG starts near the plain network, and still every weight of its cells has a gradient."""
    model = models.build("srtg_r3d_18", NUM_CLASSES, width=4, conv="direct").clone(stage_sizes=(1, 1, 1, 1))
    plain = model.clone(srtg=None)
    video = _video(model)
    variables = jit(functools.partial(model.init, train=False))(jax.random.key(1), video)
    flat = flax.traverse_util.flatten_dict(variables["params"])
    shared = flax.traverse_util.unflatten_dict({path: leaf for path, leaf in flat.items() if "srtg" not in path})

    def loss(params):
        logits, _ = model.apply(variables | {"params": params}, video, train=True, mutable=["batch_stats"])
        return (logits**2).sum()

    @jit
    def run(params):
        theirs = plain.apply(variables | {"params": shared}, video, train=False)
        return jax.grad(loss)(params), model.apply(variables, video, train=False), theirs

    gradients, ours, theirs = run(variables["params"])
    assert np.vdot(ours, theirs) > 0.9 * np.linalg.norm(ours) * np.linalg.norm(theirs)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(gradient != 0), path
