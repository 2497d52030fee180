"""Image networks: torchvision's parameters, names and logits, and what a network on every frame is."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cards, cost, figures
from jaxvid.models.convert import convert_state_dict, torch_key

# Of torchvision's networks at 1000 classes.
PARAMETERS = {
    "resnet2d_18": 11_689_512,
    "resnet2d_34": 21_797_672,
    "resnet2d_50": 25_557_032,
    "resnet2d_101": 44_549_160,
    "resnet2d_152": 60_192_808,
    "resnext2d_50_32x4d": 25_028_904,
    "resnext2d_101_32x4d": 44_177_704,
    "resnext2d_101_32x8d": 88_791_336,
    "wide_resnet2d_50_2": 68_883_240,
    "densenet2d_121": 7_978_856,
    "densenet2d_161": 28_681_000,
    "densenet2d_169": 14_149_480,
    "densenet2d_201": 20_013_928,
}
IMAGE = (1, 32, 32)


def _unless_deep(name):
    deep = any(depth in name for depth in ("_101", "_152", "_161", "_169", "_201"))
    return pytest.param(name, marks=pytest.mark.slow if deep else ())


@pytest.mark.parametrize("name", [_unless_deep(name) for name in PARAMETERS])
def test_parameters_are_torchvisions(name):
    assert cost.count_parameters(models.build(name, 1000), IMAGE) == PARAMETERS[name]
    if name != "resnext2d_101_32x4d":  # torchvision has no weights of it
        assert figures.PRINTED[name].params == f"{PARAMETERS[name] / 1e6:.6f}"
    assert cards.clip_of(name) == cards.clip_of(f"srtg_{name}") == (1, 224, 224)


def test_srtg_is_for_residual_networks():
    assert {f"srtg_{name}" for name in PARAMETERS if "densenet" not in name} <= set(models.MODELS)
    assert "srtg_densenet2d_121" not in models.MODELS
    with pytest.raises(ValueError, match=r"the options of 'densenet2d_121' must be among width, .*window, received 'c"):
        models.build("densenet2d_121", 10, cell="gru")


# What the SoftPool authors' code does with `use_softpool`: the pooling behind the stem alone, by 2x2 windows.
AUTHORS = {
    "resnet2d_18": {"pool": "soft", "pool_window": 2},
    "densenet2d_121": {"pool": "soft", "pool_window": 2, "transition_pool": "avg"},
}
FAST = {"resnet2d_18", "resnet2d_18.soft", "densenet2d_121"}
CASES = [
    pytest.param(name, options, file, id=file, marks=() if file in FAST else pytest.mark.slow)
    for name, options, file in (
        *((name, {}, name) for name in PARAMETERS),
        *((name, options, f"{name}.soft") for name, options in AUTHORS.items()),
    )
]


@pytest.mark.parametrize(("name", "options", "file"), CASES)
def test_logits_of_hashed_weights_are_torchs(name, options, file, golden, fill, hashed_arrays, jit):
    """An odd size; kernels as torch stores them, without an axis of time."""
    expected = golden("hashnet_images")[file]
    arrays = hashed_arrays(name, models.build(name, len(expected)))
    arrays = {key: array[:, :, 0] if array.ndim == 5 else array for key, array in arrays.items()}
    model, variables = models.build(name, len(expected), **options), convert_state_dict(name, arrays, **options)
    image = np.moveaxis(fill(10000, (1, 3, 96, 81), -1.7, 1.7), 1, -1)[:, None]
    logits = jit(functools.partial(model.apply, train=False))(variables, image)
    np.testing.assert_allclose(logits[0], expected, rtol=0, atol=1e-4 * expected.std())


NAMES = {
    "resnet2d_50": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_mean": (64,),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.bias": (256,),
        "layer3.5.conv2.weight": (256, 256, 3, 3),
        "layer4.2.bn3.weight": (2048,),
        "fc.weight": (10, 2048),
    },
    "resnext2d_50_32x4d": {"layer1.0.conv2.weight": (128, 4, 3, 3), "layer4.2.conv3.weight": (2048, 1024, 1, 1)},
    "densenet2d_161": {
        "features.conv0.weight": (96, 3, 7, 7),
        "features.norm0.running_var": (96,),
        "features.denseblock1.denselayer1.norm1.weight": (96,),
        "features.denseblock1.denselayer6.conv1.weight": (192, 336, 1, 1),
        "features.denseblock4.denselayer24.conv2.weight": (48, 192, 3, 3),
        "features.transition1.norm.bias": (384,),
        "features.transition3.conv.weight": (1056, 2112, 1, 1),
        "features.norm5.weight": (2208,),
        "classifier.bias": (10,),
    },
}


@pytest.mark.parametrize("name", list(NAMES))
def test_names_and_shapes_are_torchvisions(name, shapes_of):
    shapes = shapes_of(name, models.build(name, 10))
    shapes = {key: (*shape[:2], *shape[3:]) if len(shape) == 5 else shape for key, shape in shapes.items()}
    assert NAMES[name].items() <= shapes.items()


def test_srtg_keeps_the_names_of_the_rest(shapes_of):
    name = "srtg_resnet2d_18"
    keys = set(shapes_of(name, models.build(name, 10, width=4)))
    assert {"layer1.0.sar.lstm.weight_ih_l0", "layer1.0.conv1.weight", "layer1.0.bn1.weight", "conv1.weight"} <= keys


def test_a_wrong_kernel_is_named_as_torch_would(shapes_of):
    name = "resnet2d_18"
    shapes = shapes_of(name, models.build(name, 3, width=4))
    given = {k: np.zeros((*s[:2], *s[3:]) if len(s) == 5 else s, np.float32) for k, s in shapes.items()}
    given["layer1.0.conv1.weight"] = np.zeros((4, 4, 5, 5))
    message = r"layer1\.0\.conv1\.weight \(4, 4, 3, 3\) \(ours: .* \(1, 3, 3, 4, 4\)\), received \(4, 4, 5, 5\)\.$"
    with pytest.raises(ValueError, match=message):
        convert_state_dict(name, given)


def test_files_of_densenet_have_older_names(shapes_of):
    """torchvision's files say ``norm.1`` where its code says ``norm1``."""
    name, rng = "densenet2d_121", np.random.default_rng(0)
    shapes = shapes_of(name, models.build(name, 3, width=4))
    given = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    old = {re.sub(r"(denselayer\d+\.(norm|conv))([12])", r"\1.\3", key): array for key, array in given.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    expected = convert_state_dict(name, given, width=4)
    jax.tree.map(np.testing.assert_array_equal, convert_state_dict(name, old, width=4), expected)


@pytest.mark.parametrize("name", ["fast_r18", "fast_densenet_121", "u2s_resnet_50"])
def test_networks_without_published_weights_have_no_torch_names(name):
    model = models.build(name, 3, width=4)
    with pytest.raises(TypeError, match=r"model must be .* published"):
        torch_key(name, model, ("params", "stem", "conv", "kernel"))


def _small(name, **options):
    # A DenseNet of width 4 has so few channels that its last ReLU may let nothing pass.
    width = 16 if "densenet" in name else 4
    return models.build(name, 5, width=width, conv="direct", **options).clone(stage_sizes=(1, 1, 1, 1))


@pytest.mark.parametrize("name", ["resnet2d_50", "densenet2d_121"])
def test_logits_of_a_clip_are_the_mean_over_its_frames(name, drawn, jit):
    model = _small(name)
    variables, video = drawn(model), jax.random.normal(jax.random.key(0), (2, 3, 45, 38, 3))
    apply = jit(functools.partial(model.apply, variables, train=False))
    logits = apply(video)
    frames = jnp.mean(jnp.stack([apply(video[:, t : t + 1]) for t in range(3)]), axis=0)
    np.testing.assert_allclose(logits, frames, rtol=0, atol=1e-5 * jnp.std(logits))


@pytest.mark.parametrize("name", ["resnet2d_18", "densenet2d_121"])
def test_every_block_halves_space_alone(name):
    model, blocks = _small(name), ("stem", "stage1", "stage2", "stage3", "stage4", "head")

    def outputs(video):
        named = lambda module, _: module.name in blocks  # noqa: E731
        variables = model.init(jax.random.key(0), video)
        _, state = model.apply(variables, video, capture_intermediates=named, mutable=["intermediates"])
        return {block: state["intermediates"][block]["__call__"][0] for block in blocks}

    shapes = {name: leaf.shape for name, leaf in jax.eval_shape(outputs, jnp.zeros((1, 3, 64, 96, 3))).items()}
    assert shapes["head"] == (1, 5)
    sizes = [shapes[block][1:4] for block in blocks[:-1]]
    assert sizes == [(3, 32, 48), (3, 16, 24), (3, 8, 12), (3, 4, 6), (3, 2, 3)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("max", 3, "avg")),
        ({"pool": "soft"}, ("soft", 3, "soft")),
        ({"pool": "avg"}, ("avg", 3, "avg")),
        ({"pool": "soft", "transition_pool": "avg"}, ("soft", 3, "avg")),
        ({"pool_window": np.int64(2), "transition_pool": "max"}, ("max", 2, "max")),
    ],
)
def test_one_argument_makes_every_pooling_of_a_densenet_soft(options, expected):
    model = models.build("densenet2d_121", 5, **options)
    assert (model.pool, model.pool_window, model.transition_pool) == expected


@pytest.mark.parametrize("options", [{"pool": "soft"}, {"pool": "avg"}, {"pool_window": 2}])
@pytest.mark.parametrize("name", ["resnet2d_18", "densenet2d_121"])
def test_another_pooling_gives_other_logits_of_the_same_variables(name, options, drawn, jit):
    model, other = _small(name), _small(name, **options)
    variables, video = drawn(model), jax.random.normal(jax.random.key(0), (1, 1, 40, 33, 3))
    ours, theirs = jit(lambda video: [m.apply(variables, video) for m in (model, other)])(video)
    assert np.all(np.isfinite(theirs))
    assert np.abs(ours - theirs).max() > 1e-3 * np.std(ours)


@pytest.mark.parametrize("name", ["resnext2d_50_32x4d", "resnext2d_101_32x8d"])
@pytest.mark.parametrize("width", [1, 4, 24])
def test_narrow_networks_keep_their_groups(name, width):
    model = models.build(name, 5, width=width).clone(stage_sizes=(1, 1, 1, 1))
    params = cost.variable_shapes(model, IMAGE)["params"]
    per_group = int(name[-2])
    for stage in (1, 2, 3, 4):
        kernel = params[f"stage{stage}"]["block0"]["conv2"]["kernel"].shape
        channels = max(1, width * 2 ** (stage - 1) * per_group // 64)
        assert kernel == (1, 3, 3, channels, 32 * channels)


def test_rematerialised_dense_layers_compute_the_same(drawn, jit):
    plain = _small("densenet2d_121").clone(stage_sizes=(2, 1, 1, 1))
    model = plain.clone(remat=True)
    variables, video = drawn(plain), jax.random.normal(jax.random.key(0), (2, 1, 40, 40, 3))

    def loss(params, model):
        return jnp.sum(jnp.sin(model.apply(variables | {"params": params}, video, train=False)))

    gradient = jit(lambda params: [jax.grad(loss)(params, m) for m in (plain, model)])
    expected, received = gradient(variables["params"])
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(received), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-4 * np.abs(one).max(), err_msg=str(path))
    texts = [str(jax.make_jaxpr(functools.partial(loss, model=m))(variables["params"])) for m in (plain, model)]
    assert ["checkpoint" in text or "remat" in text for text in texts] == [False, True]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet2d_18", {"pool_window": 4}, r"pool_window must be one of 2, 3, received pool_window=4\."),
        ("resnet2d_18", {"expansion": 4}, r"expansion must be 1 where the blocks are simple .* for 'resnet2d_18'\."),
        ("resnet2d_18", {"fast": "parallel"}, r"fast may only be set for a fast_ model, received .* 'resnet2d_18'\."),
        ("densenet2d_121", {"fast": "parallel"}, r"fast may only be set for a fast_ model, .* 'densenet2d_121'\."),
        ("densenet2d_121", {"transition_pool": "sum"}, r"transition_pool must be one of max, avg, soft, received"),
        ("densenet2d_121", {"pool": "sof"}, r"pool must be one of max, avg, soft, .* did you mean 'soft'"),
        ("densenet2d_121", {"width": 0}, r"width must be a whole number >= 1, received width=0\."),
        ("densenet2d_122", {}, r"received 'densenet2d_122'; did you mean 'densenet2d_121'"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, 10, **options)


@pytest.mark.parametrize("name", ["resnet2d_18", "densenet2d_121"])
def test_a_single_value_is_not_normalised(name, drawn):
    model = _small(name)
    variables = drawn(model)
    train = functools.partial(model.apply, variables, train=True, mutable=["batch_stats"])
    with pytest.raises(ValueError, match=r"several clips, or more than 1 frames or 32 pixels"):
        train(jnp.zeros((1, 1, 32, 32, 3)))
    logits, _ = jax.eval_shape(train, jnp.zeros((1, 2, 32, 32, 3)))
    assert logits.shape == (1, 5)
