"""Networks of FAST convolutions beside those whose 3x3x3 they replace."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost

VIDEO = (1, 5, 37, 41, 3)


def _kernels(model):
    flat = flax.traverse_util.flatten_dict(cost.variable_shapes(model)["params"])
    return {"/".join(path[:-1]): leaf.shape for path, leaf in flat.items() if path[-1] == "kernel"}


@pytest.mark.parametrize("fast", ["sequential", "parallel"])
@pytest.mark.parametrize("depth", [18, 50])
def test_fast_resnet_is_r3d_with_its_3x3x3_replaced(depth, fast):
    plain = _kernels(models.build(f"r3d_{depth}", 5, width=8))
    expected = {}
    for path, shape in plain.items():
        if shape[:3] == (3, 3, 3):
            inputs, outputs = shape[3:]
            expected[f"{path}/spatial"] = (1, 3, 3, inputs, outputs)
            expected[f"{path}/horizontal"] = (3, 1, 3, outputs, outputs)
            expected[f"{path}/vertical"] = (3, 3, 1, outputs, outputs)
        else:
            expected[path] = shape
    assert _kernels(models.build(f"fast_r{depth}", 5, width=8, fast=fast)) == expected


@pytest.mark.parametrize("name", ["fast_r18", "fast_densenet_121"])
def test_sequential_is_the_default_and_parallel_needs_fewer_norms(name):
    one, other = models.build(name, 5, width=8), models.build(name, 5, width=8, fast="parallel")
    assert one == models.build(name, 5, width=8, fast="sequential")
    one, other = (model.clone(stage_sizes=(1, 1, 1, 1)) for model in (one, other))
    assert _kernels(one) == _kernels(other)
    assert cost.count_macs(one, (8, 64, 64)) == cost.count_macs(other, (8, 64, 64))
    norms = [
        {path for path in flax.traverse_util.flatten_dict(cost.variable_shapes(model)["params"]) if path[-1] == "scale"}
        for model in (one, other)
    ]
    assert norms[1] < norms[0]
    assert {path[-2] for path in norms[0] - norms[1]} == {"horizontal_norm"}


@pytest.mark.parametrize("name", ["fast_r18", "fast_densenet_121"])
def test_every_block_halves_as_in_3d(name):
    model, blocks = models.build(name, 5, width=8), ("stem", "stage1", "stage2", "stage3", "stage4")
    model = model.clone(stage_sizes=(1, 1, 1, 1))

    def outputs(video):
        named = lambda module, _: module.name in blocks  # noqa: E731
        variables = model.init(jax.random.key(0), video)
        _, state = model.apply(variables, video, capture_intermediates=named, mutable=["intermediates"])
        return [state["intermediates"][block]["__call__"][0] for block in blocks]

    sizes = [leaf.shape[1:4] for leaf in jax.eval_shape(outputs, jnp.zeros((1, 16, 64, 96, 3)))]
    assert sizes == [(16, 32, 48), (8, 16, 24), (4, 8, 12), (2, 4, 6), (1, 2, 3)]
    # An image is a clip of one frame, and odd lengths are no error.
    for shape in ((2, 1, 64, 64, 3), (1, 7, 51, 35, 3), (1, 1, 1, 1, 3)):
        assert len(jax.eval_shape(outputs, jnp.zeros(shape))) == 5


def test_layers_of_the_fast_densenet():
    kernels = _kernels(models.build("fast_densenet_121", 5))
    assert kernels["stem/conv"] == (7, 7, 7, 3, 64)
    assert kernels["stage1/block0/conv1"] == (1, 1, 1, 64, 128)
    assert kernels["stage1/block0/conv2/spatial"] == (1, 3, 3, 128, 32)
    assert kernels["stage1/block0/conv2/horizontal"] == (3, 1, 3, 32, 32)
    assert kernels["stage1/block0/conv2/vertical"] == (3, 3, 1, 32, 32)
    assert kernels["stage2/transition/conv"] == (1, 1, 1, 256, 128)
    assert kernels["head/classifier"] == (1024, 5)
    assert sum("block" in path and path.endswith("conv1") for path in kernels) == 58


@pytest.mark.parametrize("name", ["fast_r18", "fast_densenet_121"])
def test_arrangements_are_different_networks(name, drawn, jit):
    one, other = (
        models.build(name, 5, width=16, conv="direct", fast=fast).clone(stage_sizes=(1, 1, 1, 1))
        for fast in ("sequential", "parallel")
    )
    variables, video = drawn(one), jax.random.normal(jax.random.key(0), VIDEO)
    flat = flax.traverse_util.flatten_dict(variables)
    fewer = flax.traverse_util.unflatten_dict({path: a for path, a in flat.items() if "horizontal_norm" not in path})
    ours, theirs = jit(lambda video: (one.apply(variables, video), other.apply(fewer, video)))(video)
    assert np.all(np.isfinite([ours, theirs]))
    assert np.abs(ours - theirs).max() > 0.01 * np.std(ours)


def test_experimental_networks_say_so():
    names = [name for name in models.MODELS if name.removeprefix("srtg_").startswith("fast_")]
    assert len(names) == 9
    assert all(models.SOURCES[name].startswith("experimental") for name in names)


def test_unknown_arrangement():
    with pytest.raises(ValueError, match=r"fast must be one of sequential, parallel, .* did you mean 'parallel'"):
        models.build("fast_r18", 5, fast="paralel")
