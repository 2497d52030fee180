"""torchvision's video ResNets: their counts and names, where time is halved, and what a missing pooling refuses."""

import functools

import jax
import jax.numpy as jnp
import pytest

from jaxvid import models
from jaxvid.models import cost

NAMES = ("r3d_18_torchvision", "mc3_18_torchvision", "r2plus1d_18_torchvision")


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [  # counted in torchvision's code at 16x112x112, 400 classes
        ("r3d_18_torchvision", 33_371_472, 40.696553472),
        ("mc3_18_torchvision", 11_695_440, 43.342635008),
        ("r2plus1d_18_torchvision", 31_505_325, 40.51908096),
    ],
)
def test_counts_are_torchvisions(name, params, gmacs):
    model = models.build(name, 400)
    assert cost.count_parameters(model) == params
    assert cost.count_macs(model, (16, 112, 112)) == round(gmacs * 1e9)


def torchvisions_keys(name):
    """The keys of torchvision's state dicts, written down a second time."""
    factorised = name.startswith("r2plus1d")
    norm = lambda prefix: [f"{prefix}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]  # noqa: E731
    keys = ["fc.weight", "fc.bias", "stem.0.weight", *norm("stem.1")]
    if factorised:
        keys += ["stem.3.weight", *norm("stem.4")]
    for block in (f"layer{stage}.{index}" for stage in (1, 2, 3, 4) for index in (0, 1)):
        for conv in ("conv1", "conv2"):
            inside = [f"{block}.{conv}.0.{entry}.weight" for entry in (0, 3)] + norm(f"{block}.{conv}.0.1")
            keys += inside if factorised else [f"{block}.{conv}.0.weight"]
            keys += norm(f"{block}.{conv}.1")
        if block in ("layer2.0", "layer3.0", "layer4.0"):
            keys += [f"{block}.downsample.0.weight", *norm(f"{block}.downsample.1")]
    return set(keys)


@pytest.mark.parametrize("name", NAMES)
def test_torch_keys_are_torchvisions(name, shapes_of):
    found = {key for key in shapes_of(name, models.build(name, 400)) if not key.endswith("num_batches_tracked")}
    assert found == torchvisions_keys(name)
    srtg = set(shapes_of(f"srtg_{name}", models.build(f"srtg_{name}", 400)))
    assert "layer4.1.sar.lstm.weight_hh_l1" in srtg
    assert srtg > found


@pytest.mark.parametrize(("name", "frames"), [(NAMES[0], (9, 9, 5, 3, 2)), (NAMES[1], (9, 9, 9, 9, 9))])
def test_where_time_and_space_are_halved(name, frames):
    model = models.build(name, 5, width=4)
    blocks = ("stem", "stage1", "stage2", "stage3", "stage4")
    named = lambda module, _: module.name in blocks  # noqa: E731
    run = lambda key, video: model.apply(  # noqa: E731
        model.init(key, video), video, train=False, capture_intermediates=named, mutable=["intermediates"]
    )
    _, state = jax.eval_shape(run, jax.random.key(0), jnp.zeros((1, 9, 33, 48, 3)))
    shapes = [state["intermediates"][block]["__call__"][0].shape[1:4] for block in blocks]
    assert shapes == [(t, h, w) for t, h, w in zip(frames, (17, 17, 9, 5, 3), (24, 24, 12, 6, 3), strict=True)]


def test_kernels_of_the_mixed_network():
    params = cost.variable_shapes(models.build("mc3_18_torchvision", 5))["params"]
    assert params["stem"]["conv"]["kernel"].shape[:3] == (3, 7, 7)
    sizes = {stage: params[f"stage{stage}"]["block1"]["conv2"]["kernel"].shape[:3] for stage in (1, 2, 3, 4)}
    assert sizes == {1: (3, 3, 3), 2: (1, 3, 3), 3: (1, 3, 3), 4: (1, 3, 3)}
    assert params["stage2"]["block0"]["shortcut_conv"]["kernel"].shape[:3] == (1, 1, 1)


def test_smallest_clip_of_a_training_step():
    """What is one value per channel in the last stage of r3d is several in that of mc3, which keeps time."""
    video, train = jnp.zeros((1, 8, 16, 16, 3)), {"train": True, "mutable": ["batch_stats"]}
    for name in NAMES:
        model = models.build(name, 5, width=4)
        run = functools.partial(model.apply, **train)
        if name.startswith("mc3"):
            assert jax.eval_shape(run, cost.variable_shapes(model), video)[0].shape == (1, 5)
        else:
            with pytest.raises(ValueError, match=r"more than 8 frames or 16 pixels"):
                jax.eval_shape(run, cost.variable_shapes(model), video)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_pooling_takes_no_other(name):
    with pytest.raises(ValueError, match=rf"for a network without pooling, received pool='soft' for '{name}'\."):
        models.build(name, 5, pool="soft")
    assert models.build(name, 5, pool="max") == models.build(name, 5)
