"""A ResNet of MTConvs beside the one whose 3x3x3 they replace."""

import math
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.convert import torch_key
from jaxvid.models.figures import COUNTED
from jaxvid.models.torch_names import UnpublishedError

DOCUMENT = Path(__file__).parents[2] / "docs" / "mtnet.md"


def _shapes(model):
    return {
        path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(dict(cost.variable_shapes(model))).items()
    }


def test_it_is_r3d_with_its_3x3x3_replaced():
    """48 channels are 42 local and 6 prolonged ones at 7/8."""
    expected = {}
    for path, shape in _shapes(models.build("r3d_50", 5, width=48)).items():
        if path[-1] == "kernel" and shape[:3] == (3, 3, 3):
            local, prolonged = shape[-1] * 7 // 8, shape[-1] // 8
            expected[*path[:-1], "local", "kernel"] = (3, 3, 3, local, local)
            expected[*path[:-1], "prolonged", "kernel"] = (3, 3, 3, prolonged, prolonged)
            expected[*path[:-1], "lateral", "kernel"] = (1, 1, 1, local, prolonged)
        elif "norm2" in path:
            for name, size in (("local", 7 * shape[0] // 8), ("prolonged", shape[0] // 8), ("lateral", shape[0] // 8)):
                expected[*path[:-2], "conv2", f"norm_{name}", path[-1]] = (size,)
        else:
            expected[path] = shape
    assert _shapes(models.build("mtconv_r3d_50", 5, width=48)) == expected


def test_all_channels_local_is_r3d(drawn, jit):
    one = models.build("mtconv_r3d_50", 5, width=8, conv="direct", delta=1.0).clone(stage_sizes=(1, 1, 1, 1))
    other = models.build("r3d_50", 5, width=8, conv="direct").clone(stage_sizes=(1, 1, 1, 1))
    variables, video = drawn(one), jax.random.normal(jax.random.key(0), (2, 8, 40, 35, 3))
    flat = flax.traverse_util.flatten_dict(variables)
    renamed = {}
    for path, leaf in flat.items():
        if "norm_local" in path:
            path = (*path[:-3], "norm2", path[-1])
        renamed[tuple(part for part in path if part != "local")] = leaf
    theirs = flax.traverse_util.unflatten_dict(renamed)
    logits, expected = jit(lambda video: (one.apply(variables, video), other.apply(theirs, video)))(video)
    assert np.std(expected) > 0
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.std(expected))


def _reading(own, lateral):
    """Parameters and multiply-adds of r3d_50 whose 3x3x3 are MTConvs at 7/8, at 16x224x224.

    Args:
      own: whether each branch sees its own channels, or all.
      lateral: taps of the kernel between the branches.
    """
    params, macs = COUNTED["r3d_50"]
    size = (8, 56, 56)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        channels = 64 * 2**stage
        local, prolonged = 7 * channels // 8, channels // 8
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            t, h, w = size
            reduced = (t if t <= 2 else min(t // 2, t - 2), h // 2, w // 2)
            size, reduced = ([-(-length // stride) for length in lengths] for lengths in (size, reduced))
            short = 27 * local * (local if own else channels)
            long = 27 * prolonged * (prolonged if own else channels) + lateral * local * prolonged
            params += short + long - 27 * channels**2 + 2 * prolonged  # and the BN of the kernel between them
            macs += (short - 27 * channels**2) * math.prod(size) + long * math.prod(reduced)
    return params, macs


def test_readings_of_the_document():
    assert _reading(own=True, lateral=1) == COUNTED["mtconv_r3d_50"]
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    for own in (True, False):
        for lateral in (1, 27):
            params, macs = _reading(own, lateral)
            assert sum(row.endswith(f"| {params / 1e6:.1f} M | {macs / 1e9:.1f} G |") for row in rows) == 1


def test_every_block_halves_as_in_3d():
    model, blocks = models.build("mtconv_r3d_50", 5, width=8), ("stem", "stage1", "stage2", "stage3", "stage4")
    model = model.clone(stage_sizes=(1, 1, 1, 1))

    def outputs(video):
        named = lambda module, _: module.name in blocks  # noqa: E731
        variables = model.init(jax.random.key(0), video)
        _, state = model.apply(variables, video, capture_intermediates=named, mutable=["intermediates"])
        return [state["intermediates"][block]["__call__"][0] for block in blocks]

    sizes = [leaf.shape[1:4] for leaf in jax.eval_shape(outputs, jnp.zeros((1, 16, 64, 96, 3)))]
    assert sizes == [(16, 32, 48), (8, 16, 24), (4, 8, 12), (2, 4, 6), (1, 2, 3)]
    for shape in ((1, 7, 51, 35, 3), (1, 1, 1, 1, 3)):
        assert len(jax.eval_shape(outputs, jnp.zeros(shape))) == 5


def test_experimental_and_unpublished():
    model = models.build("mtconv_r3d_50", 5)
    assert models.SOURCES["mtconv_r3d_50"].startswith("experimental")
    assert (model.delta, model.selection) == (0.875, "lowest")
    assert models.build("r3d_50", 5).delta is None
    with pytest.raises(UnpublishedError, match=r"received ResNet3D \('mtconv_r3d_50'\)"):
        torch_key("mtconv_r3d_50", model, ("params", "head", "classifier", "kernel"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("r3d_50", {"delta": 0.5}, r"delta may only be set for an mtconv_ model, received delta=0\.5 for 'r3d_50'\."),
        ("fast_r50", {"selection": "none"}, r"selection may only be set for an mtconv_ model, .* for 'fast_r50'\."),
        ("mtconv_r3d_50", {"delta": 1.5}, r"delta must be in \(0, 1\], received delta=1\.5\."),
        ("mtconv_r3d_50", {"delta": 0}, r"delta must be a finite number > 0, received delta=0\."),
        (
            "srtg_mtconv_r3d_50",
            {"selection": "highest"},
            r"selection must be one of lowest, none, .*'highest'",
        ),
    ],
)
def test_errors_name_the_rule_and_the_value(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, 5, **options)
