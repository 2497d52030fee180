"""I3D: its unit against the authors' numbers, its head, both codes' names, and the published weights."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost, i3d
from jaxvid.models.convert import convert_state_dict
from jaxvid.models.i3d import Head, Unit
from jaxvid.models.interface import make_norm
from jaxvid.models.torch_names import schemes_of, torch_key
from jaxvid.nn import Conv3D
from jaxvid.ops.pooling import max_pool3d

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
NAMED = (np.arange(2 * 5 * 9 * 8 * 6).reshape(2, 5, 9, 8, 6) * 2654435761 % 1000 / 500 - 1).astype(np.float32)


@pytest.fixture(scope="module")
def tiny():
    return models.build("i3d", 5, width=4, conv="direct").clone(stage_sizes=(2, 1, 1, 1))


def test_unit_is_the_authors(golden, video_from_torch):
    """TensorFlow's padding: of 9 frames two on each side and one more behind, BN with epsilon 1e-3."""
    stored = golden("i3d_unit")
    unit = Unit(4, (7, 7, 7), Conv3D, make_norm(None, epsilon=1e-3), strides=(2, 2, 2))
    variables = {
        "params": {
            "conv": {"kernel": stored["w.conv3d.weight"].transpose(2, 3, 4, 1, 0)},
            "norm": {"scale": stored["w.bn.weight"], "bias": stored["w.bn.bias"]},
        },
        "batch_stats": {"norm": {"mean": stored["w.bn.running_mean"], "var": stored["w.bn.running_var"]}},
    }
    y = unit.apply(variables, video_from_torch(stored["x"]), False)
    np.testing.assert_allclose(y, video_from_torch(stored["y"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("window", "strides", "key"), [((1, 3, 3), (1, 2, 2), "mp_y"), ((3, 3, 3), (2, 2, 2), "mp3_y")]
)
def test_pooling_behind_a_relu_is_the_authors(window, strides, key, golden, video_from_torch):
    """Their padding is zero, ours is none: the same where nothing is negative."""
    stored = golden("i3d_unit")
    x = video_from_torch(stored["mp_x"])
    # A ReLU and a maximum may be exchanged, so that the stored numbers tell both.
    y = max_pool3d(jax.nn.relu(x), window, strides, "SAME")
    np.testing.assert_array_equal(y, jax.nn.relu(video_from_torch(stored[key])))


def test_the_network_has_the_authors_normalisation(tiny, drawn):
    """Epsilon 1e-3 and momentum 0.01 everywhere."""
    variables, video = drawn(tiny), jax.random.normal(jax.random.key(0), (2, 9, 40, 40, 3))
    seen = []

    def spy(next_function, args, kwargs, context):
        if type(context.module).__name__ == "BatchNorm" and context.method_name == "__call__":
            seen.append((context.module.epsilon, context.module.momentum))
        return next_function(*args, **kwargs)

    with flax.linen.intercept_methods(spy):
        jax.eval_shape(functools.partial(tiny.apply, train=False), variables, video)
    assert set(seen) == {(1e-3, 0.99)}
    assert len(seen) == sum(path[-1] == "scale" for path in flax.traverse_util.flatten_dict(variables["params"]))


def test_channels_are_the_papers():
    shapes = jax.tree.map(lambda leaf: leaf.shape, cost.variable_shapes(models.build("i3d", 7))["params"])
    assert shapes["stem"]["conv"]["kernel"] == (7, 7, 7, 3, 64)
    assert shapes["stage1"]["block1"]["conv"]["kernel"] == (3, 3, 3, 64, 192)
    assert [len(shapes[f"stage{i}"]) for i in (1, 2, 3, 4)] == [2, 2, 5, 2]
    assert shapes["stage3"]["block0"]["branch1a"]["conv"]["kernel"] == (1, 1, 1, 480, 96)
    assert shapes["stage4"]["block1"]["branch2b"]["conv"]["kernel"] == (3, 3, 3, 48, 128)
    assert shapes["head"] == {"classifier": {"kernel": (1024, 7), "bias": (7,)}}
    narrow = jax.tree.map(lambda leaf: leaf.shape, cost.variable_shapes(models.build("i3d", 7, width=3))["params"])
    assert narrow["stage2"]["block0"]["branch2a"]["conv"]["kernel"] == (1, 1, 1, 9, 1)  # 0.75 is at least 1


def test_blocks_have_names_at_any_size_of_clip(tiny, drawn):
    variables = drawn(tiny)

    def shapes(*video):
        apply = functools.partial(
            tiny.apply,
            train=False,
            capture_intermediates=lambda module, _: module.name in BLOCKS,
            mutable=["intermediates", "perturbations"],
        )
        logits, state = jax.eval_shape(apply, variables, jnp.zeros((*video, 3)))
        assert (logits.shape, logits.dtype) == ((video[0], 5), jnp.float32)
        assert set(state["perturbations"]) == set(BLOCKS)
        return [state["intermediates"][block]["__call__"][0].shape[1:4] for block in BLOCKS[:-1]]

    assert shapes(1, 16, 224, 224) == [(8, 112, 112), (8, 56, 56), (8, 28, 28), (4, 14, 14), (2, 7, 7)]
    assert shapes(2, 19, 33, 50) == [(10, 17, 25), (10, 9, 13), (10, 5, 7), (5, 3, 4), (3, 2, 2)]  # rounded up
    assert shapes(1, 1, 1, 1)[-1] == (1, 1, 1)


def numpy_head(x, kernel, bias):
    """The definition: every 2x7x7 window of a map, or as much of it as there is."""
    _, *size, _ = x.shape
    pool = [min(a, b) for a, b in zip((2, 7, 7), size, strict=True)]
    logits = [
        x[:, t : t + pool[0], h : h + pool[1], w : w + pool[2]].mean((1, 2, 3)) @ kernel + bias
        for t, h, w in np.ndindex(*(a - b + 1 for a, b in zip(size, pool, strict=True)))
    ]
    return np.mean(logits, 0)


@pytest.mark.parametrize("size", [(2, 7, 7), (5, 9, 8), (1, 3, 8), (4, 2, 2)])
def test_head_is_its_definition(size):
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    x = NAMED[:, : size[0], : size[1], : size[2]]
    variables = {"params": {"classifier": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}}
    y = Head(3, 0.0).apply(variables, x, False)
    np.testing.assert_allclose(y, numpy_head(x, kernel, bias), rtol=1e-4, atol=1e-5)
    # A window of the map's own size is the same, and so is a larger one.
    for window in (size, (9, 9, 9)):
        np.testing.assert_allclose(Head(3, 0.0, window).apply(variables, x, False), y, rtol=1e-5, atol=1e-5)


def test_windows_of_a_larger_map_are_classified_one_by_one():
    rng = np.random.default_rng(0)
    kernel, bias = 9 * rng.normal(size=(6, 3)), rng.normal(size=3)
    variables = {"params": {"classifier": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}}
    window = (3, 4, 8)
    probabilities = [
        jax.nn.softmax(numpy_head(NAMED[:, t : t + 3, h : h + 4, :8], kernel, bias))
        for t, h in np.ndindex(5 - 3 + 1, 9 - 4 + 1)
    ]
    y = Head(3, 0.0, window).apply(variables, NAMED, False)
    np.testing.assert_allclose(jax.nn.softmax(y), np.mean(probabilities, 0), rtol=1e-4)
    trained = Head(3, 0.0, window).apply(variables, NAMED, True)
    np.testing.assert_allclose(trained, numpy_head(NAMED, kernel, bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["avg", "soft"])
def test_pooling_is_an_option(pool, tiny, drawn, jit):
    variables, video = drawn(tiny), jax.random.normal(jax.random.key(0), (1, 9, 40, 40, 3))
    run = jit(lambda: [m.apply(variables, video, train=False) for m in (tiny, tiny.clone(pool=pool))])
    logits, other = run()
    assert np.isfinite(other).all()
    assert not np.allclose(logits, other, rtol=1e-2)


def hub_arrays(model):
    """What TensorFlow Hub's file holds of a network: our layout, no scales."""
    rng = np.random.default_rng(0)
    _, hub = schemes_of("i3d", model)
    shapes = flax.traverse_util.flatten_dict(dict(cost.variable_shapes(model)))
    keys = {path: hub.key("i3d", model, path) for path in shapes if path[-1] != "scale"}
    return keys, {key: rng.normal(size=shapes[path].shape).astype(np.float32) for path, key in keys.items()}


def test_arrays_of_tensorflow_hub():
    """Recognised by their names, taken as they are; missing scales are ones; the classifier may be a convolution."""
    keys, arrays = hub_arrays(models.build("i3d", 3, width=4))
    classifier = "params|Logits/Conv3d_0c_1x1|Conv_0|kernel"
    assert {classifier, "batch_stats|Mixed_3b|Branch_2/Conv3d_0b_3x3|BatchNorm_0|var"} <= set(arrays)
    given = arrays | {classifier: arrays[classifier][None, None, None]}
    mean = "batch_stats|Conv3d_1a_7x7|BatchNorm_0|mean"
    given[mean] = given[mean].reshape(1, 1, 1, 1, -1)
    variables = flax.traverse_util.flatten_dict(convert_state_dict("i3d", given))
    for path, array in variables.items():
        expected = np.ones(array.shape) if path[-1] == "scale" else arrays[keys[path]]
        np.testing.assert_array_equal(array, expected)


def test_the_scheme_with_fewer_strangers_reports_the_error():
    model = models.build("i3d", 3, width=4)
    _, arrays = hub_arrays(model)
    lost = "params|Mixed_4d|Branch_1/Conv3d_0b_3x3|Conv_0|kernel"
    with pytest.raises(
        ValueError, match=r"of 'i3d' by the names of TensorFlow Hub, received 1 missing \(params\|Mixed_4d\|Branch_1"
    ):
        convert_state_dict("i3d", {key: array for key, array in arrays.items() if key != lost})
    arrays[lost] = np.zeros((3, 3, 3, 7, 8))
    with pytest.raises(
        ValueError, match=rf"^the arrays of 'i3d' .*: {lost.replace('|', '.')} \(3, 3, 3, 8, 16\) \(ours"
    ):
        convert_state_dict("i3d", arrays)
    with pytest.raises(ValueError, match=r"num_classes=4 and a classifier of 3 classes"):
        convert_state_dict("i3d", arrays, num_classes=4)
    with pytest.raises(ValueError, match=r"must hold the classifier 'logits\.conv3d\.weight'"):
        convert_state_dict("i3d", {})


def test_torch_key_is_that_of_the_first_scheme():
    path = ("params", "stage2", "block1", "branch2b", "norm", "scale")
    assert torch_key("i3d", models.build("i3d", 3), path) == "Mixed_3c.b2b.bn.weight"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placement": "mid"}, r"options of 'i3d' must be among width, pool, .*, received 'placement'"),
        ({"widht": 8}, r"received 'widht'; did you mean 'width'"),
        ({"pool": "median"}, r"pool must be one of max, avg, soft, received pool='median'"),
        ({"width": 0}, r"width must be a whole number >= 1, received width=0\."),
        ({"conv": "shifted"}, r"conv must be one of auto, direct, folded"),
    ],
)
def test_errors_name_the_rule_and_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("i3d", 3, **options)


def test_training_needs_more_than_one_value(tiny, drawn):
    with pytest.raises(ValueError, match=r"more than 8 frames or 32 pixels\), received shape \(1, 8, 32, 32, 3\)"):
        tiny.apply(drawn(tiny), jnp.zeros((1, 8, 32, 32, 3)), train=True, mutable=["batch_stats"])


def test_the_table_is_whole():
    assert i3d.I3D(3) == models.build("i3d", 3)
    assert sum(models.build("i3d", 3).stage_sizes) == 11


@pytest.mark.data
@pytest.mark.slow
def test_published_weights_recognise_the_published_clip(shared):
    """The logits that the code of the weights computes, and the order of the classes that the authors publish."""
    from jaxvid.data.decode import VideoReader

    with VideoReader(shared("weights", "v_CricketShot_g04_c01_rgb.gif")) as reader:
        frames = reader.read(range(reader.num_frames))
    assert frames.shape == (79, 224, 224, 3)
    with np.load(shared("weights", "i3d_rgb_kinetics400_tfhub.npz")) as arrays:
        variables = convert_state_dict("i3d", dict(arrays))
    model = models.build("i3d", 400)
    video = jnp.asarray(frames[None] / 127.5 - 1, jnp.float32)
    (logits,) = jax.jit(functools.partial(model.apply, train=False))(variables, video)
    np.testing.assert_allclose(logits, np.load(shared("weights", "golden_logits_cricket_gif.npy")), rtol=0, atol=1e-3)
    classes = shared("weights", "label_map.txt").read_text().splitlines()
    published = shared("weights", "expected_no_imagenet_rgb.txt").read_text().splitlines()[1:9]
    assert [classes[k] for k in np.argsort(-logits)[:8]] == [line.split(" ", 2)[2] for line in published]
