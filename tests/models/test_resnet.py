"""The 3-D ResNet as a whole: blocks by name, gradients by name, head, start, errors."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")


@pytest.fixture(scope="module")
def tiny(drawn):
    """A model of one block per stage, its variables, and a clip."""
    model = models.build("r3d_18", 5, width=4, conv="direct").clone(stage_sizes=(1, 1, 1, 1))
    return model, drawn(model), jax.random.normal(jax.random.key(0), (2, 8, 64, 64, 3))


def test_fresh_variables_are_parameters_and_statistics_alone():
    shapes = models.cost.variable_shapes(models.build("srtg_r3d_18", 5, width=4))
    assert set(shapes) == {"params", "batch_stats"}
    assert set(shapes["params"]) == set(BLOCKS)
    assert "srtg" in shapes["params"]["stage1"]["block1"]


def test_every_block_can_be_captured_by_name(tiny):
    model, variables, video = tiny
    _, state = model.apply(
        variables,
        video,
        train=False,
        capture_intermediates=lambda module, _: module.name in BLOCKS,
        mutable=["intermediates"],
    )
    shapes = {block: state["intermediates"][block]["__call__"][0].shape for block in BLOCKS}
    assert shapes == {
        "stem": (2, 8, 32, 32, 4),
        "stage1": (2, 4, 16, 16, 4),
        "stage2": (2, 2, 8, 8, 8),
        "stage3": (2, 1, 4, 4, 16),
        "stage4": (2, 1, 2, 2, 32),
        "head": (2, 5),
    }


def test_gradients_by_name_are_those_of_the_outputs(tiny, jit):
    """A perturbation adds to its block's output, so its gradient is that output's."""
    model, variables, video = tiny
    logits, zeros = model.apply(variables, video, train=False, mutable=["perturbations"])
    perturbations = zeros["perturbations"]
    assert set(perturbations) == set(BLOCKS)
    assert perturbations["stage3"]["output"].shape == (2, 1, 4, 4, 16)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(perturbations))
    np.testing.assert_allclose(logits, model.apply(variables, video, train=False), rtol=1e-6)

    def score(perturbations):
        return model.apply(variables | {"perturbations": perturbations}, video, train=False)[0, 3]

    gradients = jit(jax.grad(score))(perturbations)
    # The head is linear in stage4's mean: the gradient there is the classifier's column over the number of positions.
    column = variables["params"]["head"]["classifier"]["kernel"][:, 3]
    expected = np.zeros((2, 1, 2, 2, 32))
    expected[0] = column / 4
    np.testing.assert_allclose(gradients["stage4"]["output"], expected, atol=1e-6)
    np.testing.assert_array_equal(gradients["head"]["output"], np.eye(5)[3] * [[1], [0]])
    # A step along stage2's gradient changes the score by the gradient's squared norm.
    direction, step = gradients["stage2"]["output"], 1e-2
    moved = {**perturbations, "stage2": {"output": step * direction}}
    change = (score(moved) - score(perturbations)) / step
    np.testing.assert_allclose(change, jnp.vdot(direction, direction), rtol=0.05)


def test_head_is_float32_and_drops_features(tiny, jit):
    model, variables, video = tiny
    halves = model.clone(dtype=jnp.dtype("bfloat16"))
    dropping = model.clone(dropout=0.5)
    run = jit(
        lambda key: dropping.apply(variables, video, train=True, rngs={"dropout": key}, mutable=["batch_stats"])[0]
    )
    assert not np.allclose(run(jax.random.key(0)), run(jax.random.key(1)))
    np.testing.assert_array_equal(run(jax.random.key(0)), run(jax.random.key(0)))
    # Evaluation drops nothing and needs no key.
    evaluate = jit(lambda: [each.apply(variables, video, train=False) for each in (dropping, model, halves)])
    received, expected, near = evaluate()
    np.testing.assert_array_equal(received, expected)
    assert near.dtype == jnp.float32


def test_start_of_the_parameters(jit):
    model = models.build("r2plus1d_18", 1000, width=16).clone(stage_sizes=(1, 1, 1, 1))
    params = jit(functools.partial(model.init, train=False))(jax.random.key(0), jnp.zeros((1, 2, 8, 8, 3)))["params"]
    block = params["stage4"]["block0"]
    time, space = block["conv2"]["temporal"]["kernel"], block["conv2"]["spatial"]["kernel"]
    assert np.std(time) == pytest.approx(np.sqrt(2 / (3 * time.shape[-1])), rel=0.02)
    assert np.std(space) == pytest.approx(np.sqrt(2 / (9 * space.shape[-1])), rel=0.02)
    classifier = params["head"]["classifier"]
    assert np.std(classifier["kernel"]) == pytest.approx(0.01, rel=0.02)
    np.testing.assert_array_equal(classifier["bias"], 0)
    np.testing.assert_array_equal(block["norm2"]["scale"], 1)
    np.testing.assert_array_equal(block["norm2"]["bias"], 0)


def test_width_scales_every_stage_but_not_the_middle_of_the_stem():
    params = models.cost.variable_shapes(models.build("r2plus1d_18", 5, width=6))["params"]
    assert params["stem"]["conv"]["spatial"]["kernel"].shape == (1, 7, 7, 3, 45)
    assert params["stem"]["conv"]["temporal"]["kernel"].shape == (3, 1, 1, 45, 6)
    assert [params[f"stage{i}"]["block1"]["norm2"]["scale"].shape for i in (1, 2, 3, 4)] == [(6,), (12,), (24,), (48,)]
    wide = models.cost.variable_shapes(models.build("wide_resnet3d_50_hara", 5, width=6))["params"]
    assert wide["stem"]["conv"]["kernel"].shape == (7, 7, 7, 3, 12)
    assert wide["stage4"]["block0"]["conv2"]["kernel"].shape == (3, 3, 3, 96, 96)
    assert wide["stage4"]["block0"]["conv3"]["kernel"].shape == (1, 1, 1, 96, 192)
    bottleneck = models.cost.variable_shapes(models.build("wide_r3d_50", 5, width=6))["params"]["stage2"]["block0"]
    assert bottleneck["conv2"]["kernel"].shape == (3, 3, 3, 24, 24)
    assert bottleneck["conv3"]["kernel"].shape == (1, 1, 1, 24, 12)


@pytest.mark.parametrize(
    ("shape", "dtype", "train", "message"),
    [
        ((8, 32, 32, 3), "float32", False, r"axes N T H W 3, .* received shape \(8, 32, 32, 3\)"),
        ((1, 8, 32, 32, 1), "float32", False, r"received shape \(1, 8, 32, 32, 1\)"),
        ((1, 0, 32, 32, 3), "float32", False, r"each at least 1, received shape \(1, 0, 32, 32, 3\)"),
        ((1, 8, 32, 32, 3), "uint8", False, r"normalised floating-point RGB, received dtype uint8"),
        ((1, 16, 32, 32, 3), "float32", True, r"more than one value .* received shape \(1, 16, 32, 32, 3\)"),
    ],
)
def test_errors_of_the_video(shape, dtype, train, message, tiny):
    model, variables, _ = tiny
    with pytest.raises(ValueError, match=message):
        model.apply(variables, np.zeros(shape, dtype), train=train, mutable=["batch_stats"])


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 3), (1, 17, 33, 31, 3), (2, 16, 32, 32, 3)])
def test_the_smallest_and_odd_clips_work(shape, tiny):
    model, variables, _ = tiny
    train = shape[0] * -(-shape[1] // 16) > 1
    function = functools.partial(model.apply, train=train, mutable=["batch_stats"])
    logits, _ = jax.eval_shape(function, variables, jnp.zeros(shape))
    assert logits.shape == (shape[0], 5)


def test_open_fraction_of_every_gate_is_sown(drawn, jit):
    model = models.build("srtg_r3d_18", 5, width=4, gate="cyclic", conv="direct").clone(stage_sizes=(1, 2, 1, 1))
    video = jax.random.normal(jax.random.key(0), (2, 8, 32, 32, 3))
    weights = {name: tree for name, tree in drawn(model).items() if name != "gates"}
    _, state = jit(functools.partial(model.apply, train=False, mutable=["gates"]))(weights, video)
    fractions = {}
    for stage, blocks in state["gates"].items():
        fractions |= {f"{stage}/{block}": float(leaf["srtg"]["open_fraction"]) for block, leaf in blocks.items()}
    assert set(fractions) == {"stage1/block0", "stage2/block0", "stage2/block1", "stage3/block0", "stage4/block0"}
    assert all(0 <= fraction <= 1 for fraction in fractions.values())
    assert fractions["stage4/block0"] == 1.0  # a single time step is trivially consistent


def test_modules_compare_by_their_fields():
    assert models.build("r3d_18", 5) == models.build("r3d_18", 5)
    assert models.build("r3d_18", 5) != models.build("r3d_18", 5, conv="direct")
    assert isinstance(models.build("r3d_18", 5), nn.Module)
