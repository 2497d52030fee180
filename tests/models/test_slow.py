"""Slow-only: SlowFast without its fast pathway, its numbers, its kernels, its options."""

import functools
import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.residual import PLACEMENTS
from jaxvid.models.slow import DEPTHS
from jaxvid.nn import BatchNorm

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")


@pytest.fixture(scope="module")
def tiny(drawn):
    """A narrow model of few blocks, its variables, and a clip of odd lengths."""
    model = models.build("slow_r50_8x8", 5, width=16, conv="direct").clone(stage_sizes=(1, 1, 1, 1))
    return model, drawn(model), jax.random.normal(jax.random.key(0), (2, 3, 40, 70, 3))


def _without_the_fast_pathway(variables, slow):
    """A SlowFast's variables with every trace of the fast pathway in the logits at 0, and what remains as Slow-only's.

    Args:
      variables: of the SlowFast.
      slow: of the Slow-only network, whose kernels see fewer channels.
    """
    theirs, ours = flax.traverse_util.flatten_dict(variables), {}
    for path, wanted in flax.traverse_util.flatten_dict(slow).items():
        collection, block, *module = path
        if block != "head":
            module = ["slow", *module]
        found = theirs[(collection, block, *module)]
        ours[path] = found[..., : wanted.shape[-2], :] if "kernel" in path else found
    for path in theirs:
        if "fusion" in path and path[-1] in ("scale", "bias"):
            theirs[path] = np.zeros_like(theirs[path])
    path = ("params", "head", "classifier", "kernel")
    theirs[path] = np.concatenate([ours[path], np.zeros_like(theirs[path][len(ours[path]) :])])
    return flax.traverse_util.unflatten_dict(theirs), flax.traverse_util.unflatten_dict(ours)


def test_is_slowfast_without_its_fast_pathway(tiny, drawn, jit):
    model, variables, video = tiny
    slowfast = models.build("slowfast_r50_8x8", 5, width=16, conv="direct").clone(stage_sizes=(1, 1, 1, 1))
    theirs, ours = _without_the_fast_pathway(drawn(slowfast), variables)
    fast = jax.random.normal(jax.random.key(1), (2, 12, 40, 70, 3))

    @jit
    def run():
        expected = slowfast.apply(theirs, video, fast, train=False, method="forward_pathways")
        return model.apply(ours, video, train=False), expected

    logits, expected = run()
    assert np.std(logits) > 0
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.std(expected))


def _normalised(model, clip):
    """How many values the BatchNorms of a network normalise in a clip."""
    apply = functools.partial(
        model.apply,
        train=False,
        capture_intermediates=lambda module, _: isinstance(module, BatchNorm),
        mutable=["intermediates"],
    )
    video = jax.ShapeDtypeStruct((1, *clip, 3), jnp.float32)
    _, state = jax.eval_shape(apply, cost.variable_shapes(model), video)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "clip", "printed"),
    [("slow_r50_4x16", (4, 256, 256), 27.55), ("slowfast_r50_4x16", (32, 256, 256), 36.69)],
)
def test_figures_of_the_model_zoo_count_normalisation(name, clip, printed):
    """As five operations a value; those of the networks of 8x8 frames do not."""
    model = models.build(name, 400)
    assert (cost.count_macs(model, clip) + 5 * _normalised(model, clip)) / 1e9 == pytest.approx(printed, abs=5e-3)


def test_channels_and_kernels():
    shapes = jax.tree.map(lambda leaf: leaf.shape, cost.variable_shapes(models.build("slow_r101_8x8", 7))["params"])
    assert shapes["stem"]["conv"]["kernel"] == (1, 7, 7, 3, 64)
    for stage, blocks in enumerate((3, 4, 23, 3)):
        found, planes = shapes[f"stage{stage + 1}"], 64 * 2**stage
        assert set(found) == {f"block{i}" for i in range(blocks)}
        for i in range(blocks):
            block = found[f"block{i}"]
            inputs = 4 * planes if i else 2 * planes if stage else 64
            assert block["conv1"]["kernel"] == ((1, 1, 3, 3)[stage], 1, 1, inputs, planes)
            assert block["conv2"]["kernel"] == (1, 3, 3, planes, planes)
            assert block["conv3"]["kernel"] == (1, 1, 1, planes, 4 * planes)
            assert ("shortcut_norm" in block) == (i == 0)
    assert shapes["head"]["classifier"] == {"kernel": (2048, 7), "bias": (7,)}


def test_time_keeps_its_length(tiny):
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

    assert shapes(video) == [
        (2, 3, 20, 35, 16), (2, 3, 10, 18, 64), (2, 3, 5, 9, 128), (2, 3, 3, 5, 256), (2, 3, 2, 3, 512), (2, 5),
    ]  # fmt: skip
    assert shapes(jnp.zeros((1, 1, 1, 1, 3)))[4] == (1, 1, 1, 1, 512)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_srtg_has_the_channels_of_its_place(placement):
    model = models.build("srtg_slow_r50_4x16", 3, placement=placement).clone(stage_sizes=(1, 1))
    params = cost.variable_shapes(model)["params"]["stage2"]["block0"]
    channels = {"start": 256, "res": 512, "top": 128, "mid": 128, "end": 512, "final": 512}[placement]
    assert params["srtg"]["input_kernel_0"].shape == (channels, 4 * channels)


def test_names_and_options():
    assert {f"{prefix}{name}" for prefix in ("", "srtg_") for name in DEPTHS} <= set(models.MODELS)
    assert models.build("slow_r50_4x16", 7) == models.build("slow_r50_8x8", 7)
    model = models.build("slow_r101_8x8", 7, pool="soft", zero_init=False, width=np.int64(16), dropout=0.5)
    assert (model.pool, model.zero_init, model.width, model.dropout) == ("soft", False, 16, 0.5)
    assert model.stage_sizes == (3, 4, 23, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "none"}, r"pool must be one of max, avg, soft, received pool='none'"),
        ({"width": 0}, r"width must be a whole number >= 1, received width=0\."),
        ({"zero_init": 1}, r"zero_init must be True or False, received zero_init=1\."),
        ({"alpha": 8}, r"options of 'slow_r50_8x8' must be among width, pool, zero_init, .* received 'alpha'"),
    ],
)
def test_errors_name_the_rule_and_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("slow_r50_8x8", 10, **options)


def test_videos_that_do_not_fit(tiny):
    model, variables, _ = tiny
    with pytest.raises(ValueError, match=r"more than 1 frames or 32 pixels\), received shape \(1, 1, 32, 32, 3\)"):
        model.apply(variables, jnp.zeros((1, 1, 32, 32, 3)), train=True, mutable=["batch_stats"])
