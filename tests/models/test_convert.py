"""Torch state dicts: every array exactly once, or one sentence that says what is wrong."""

import flax.linen
import flax.traverse_util
import jax
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.convert import convert, convert_state_dict, torch_key
from jaxvid.models.readers.stored import StoredArray

CASES = ["r3d_18", "r2plus1d_18", "wide_r3d_50", "srtg_r3d_18", "r2plus1d_50", "resnet3d_18_hara",
         "resnet3d_50_hara", "r2plus1d_18_hara", "r2plus1d_50_hara", "srtg_resnet3d_18_hara", "resnext3d_50", "i3d",
         "r3d_18_torchvision", "mc3_18_torchvision", "r2plus1d_18_torchvision", "srtg_mc3_18_torchvision",
         "tsm_r18", "tsm_r50", "tam_r50", "srtg_tam_r50"]  # fmt: skip
ROUNDED = ["x3d_s", "srtg_x3d_s", "mfnet", "srtg_mfnet"]  # their width cannot be read from the arrays


@pytest.fixture
def arrays(shapes_of):
    """``(name, **options) -> state dict`` in which every array holds numbers of its own."""

    def make(name, **options):
        rng = np.random.default_rng(0)
        model = models.build(name, num_classes=3, width=4, **options)
        return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes_of(name, model).items()}

    return make


@pytest.mark.parametrize("name", CASES + ROUNDED)
def test_every_array_arrives_once(name, arrays):
    given = arrays(name)
    model = models.build(name, 3, width=4)
    variables = convert_state_dict(name, given, width=4)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, dict(cost.variable_shapes(model)))
    used = set()
    for path, array in flax.traverse_util.flatten_dict(variables).items():
        key = torch_key(name, model, path)
        used.add(key)
        source = given[key]
        expected = source.transpose(2, 3, 4, 1, 0) if source.ndim == 5 else source.T
        np.testing.assert_array_equal(array, expected.reshape(array.shape))
        assert array.dtype == np.float32
    assert used == {key for key in given if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("r3d_18", ["stem.0.weight", "stem.1.running_var", "layer2.0.conv1.0.0.weight", "layer2.0.downsample.1.bias"]),
        ("r2plus1d_50", ["stem.3.weight", "stem.4.weight", "layer1.0.conv1.0.weight", "layer1.0.conv2.0.3.weight"]),
        ("srtg_r3d_18", ["layer4.1.sar.lstm.weight_hh_l1", "layer4.1.sar.lstm.bias_ih_l0", "fc.bias"]),
        ("resnet3d_50_hara", ["conv1.weight", "bn1.weight", "layer1.0.conv3.weight", "layer1.0.bn3.running_mean"]),
        ("r2plus1d_50_hara", ["conv1_s.weight", "bn1_t.bias", "layer1.0.conv1.weight", "layer1.0.bn1.bias",
                              "layer1.0.conv2_t.weight", "layer1.0.bn2_s.bias", "layer1.0.bn2_t.bias"]),
        ("x3d_s", ["blocks.0.conv.conv_t.weight", "blocks.1.res_blocks.0.branch2.norm_b.1.block.0.bias",
                   "blocks.1.res_blocks.0.branch1_conv.weight", "blocks.4.res_blocks.0.branch1_norm.running_var",
                   "blocks.5.pool.post_conv.weight", "blocks.5.proj.bias"]),
        ("resnext3d_50", ["conv1.weight", "layer1.0.conv2.weight", "layer4.2.bn3.bias", "layer2.0.downsample.1.bias"]),
        ("i3d", ["Conv3d_1a_7x7.bn.bias", "Mixed_4f.b2b.conv3d.weight", "Mixed_5c.b3b.bn.bias", "logits.conv3d.bias"]),
        ("mfnet", ["conv1.bn.bias", "conv2.B01.conv_w1.conv.weight", "conv5.B03.conv_m2.bn.bias", "tail.bn.bias"]),
        ("srtg_mfnet", ["conv2.B01.sar.lstm.weight_hh_l1"]),
        ("r2plus1d_18_hara", ["layer1.0.conv1_s.weight", "layer1.0.bn1_s.bias", "layer1.0.conv2_t.weight"]),
    ],
)  # fmt: skip
def test_names_of_the_authors(name, keys, shapes_of):
    assert set(keys) <= set(shapes_of(name, models.build(name, 3, width=4)))


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_other_cells(cell, arrays):
    given = arrays("srtg_r3d_18", cell=cell, num_layers=1)
    assert f"layer1.0.sar.{cell}.weight_ih_l0" in given
    variables = convert_state_dict("srtg_r3d_18", given, width=4, cell=cell, num_layers=1)
    assert "input_kernel_0" in variables["params"]["stage1"]["block0"]["srtg"]


@pytest.mark.parametrize("name", [*CASES, "wide_resnet3d_50_hara"])
def test_width_is_that_of_the_arrays(name, shapes_of):
    model = models.build(name, 3, width=6)
    given = {key: np.zeros(shape, np.float32) for key, shape in shapes_of(name, model).items()}
    shapes = jax.tree.map(np.shape, convert_state_dict(name, given))
    assert shapes == jax.tree.map(np.shape, dict(cost.variable_shapes(model)))


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_cell_and_layers_are_those_of_the_arrays(cell, num_layers, arrays):
    given = arrays("srtg_r3d_18", cell=cell, num_layers=num_layers)
    expected = convert_state_dict("srtg_r3d_18", given, width=4, cell=cell, num_layers=num_layers)
    jax.tree.map(np.testing.assert_array_equal, convert_state_dict("srtg_r3d_18", given), expected)


@pytest.mark.data
@pytest.mark.parametrize("name", ["r3d_34", "srtg_r3d_34", "srtg_r3d_50"])
def test_stored_networks_of_width_8_need_no_option(name, golden):
    stored = golden(f"net_{name}_width8")
    given = {key.removeprefix("w."): value for key, value in stored.items() if key.startswith("w.")}
    variables = convert_state_dict(name, given)
    assert variables["params"]["stem"]["conv"]["kernel"].shape == (3, 7, 7, 3, 8)
    expected = convert_state_dict(name, given, width=8)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_given_options_are_not_overruled_by_the_arrays(arrays):
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.1\.running_mean \(8,\) .*, received \(4,\)"):
        convert_state_dict("r3d_18", arrays("r3d_18"), width=8)
    with pytest.raises(ValueError, match=r"missing \(layer1\.0\.sar\.gru"):
        convert_state_dict("srtg_r3d_18", arrays("srtg_r3d_18"), cell="gru")


def test_arrays_that_fit_no_width_name_both_shapes(arrays):
    given = arrays("r3d_18")
    given["layer4.1.conv2.1.weight"] = np.zeros(31)
    with pytest.raises(ValueError, match=r"layer4\.1\.conv2\.1\.weight \(32,\) .*, received \(31,\)\.$"):
        convert_state_dict("r3d_18", given)
    odd = arrays("wide_resnet3d_50_hara")
    odd["bn1.weight"] = np.zeros(7)
    with pytest.raises(ValueError, match=r"shapes: bn1\.weight \(8,\) .*, received \(7,\)\.$"):
        convert_state_dict("wide_resnet3d_50_hara", odd)
    three = arrays("srtg_r3d_18")
    three |= {key.replace("_l1", "_l2"): value for key, value in three.items() if key.endswith("_l1")}
    with pytest.raises(ValueError, match=r"num_layers must be one of 1, 2, received num_layers=3\."):
        convert_state_dict("srtg_r3d_18", three)


def test_only_networks_with_published_names_have_torch_names():
    with pytest.raises(TypeError, match=r"model must be a network of which .* published weights, received Dense"):
        torch_key("r3d_18", flax.linen.Dense(3), ("params", "kernel"))


def test_the_stems_of_x3d_are_not_mixed_up(arrays):
    """`conv_t` is the spatial kernel and `conv_xy` the temporal one; exchanged, their shapes do not fit."""
    given = arrays("x3d_s")
    stem = convert_state_dict("x3d_s", given, width=4)["params"]["stem"]
    assert (stem["spatial"]["kernel"].shape, stem["temporal"]["kernel"].shape) == ((1, 3, 3, 3, 8), (5, 1, 1, 1, 8))
    one, other = "blocks.0.conv.conv_t.weight", "blocks.0.conv.conv_xy.weight"
    given[one], given[other] = given[other], given[one]
    with pytest.raises(ValueError, match=r"conv_xy\.weight \(8, 1, 5, 1, 1\) .*, received \(8, 3, 1, 3, 3\)"):
        convert_state_dict("x3d_s", given, width=4)


def test_peepholes_have_no_torch_layout(arrays):
    with pytest.raises(ValueError, match=r"cell must be lstm, gru or rnn, .* received cell='peephole_lstm'"):
        convert_state_dict("srtg_r3d_18", arrays("srtg_r3d_18"), width=4, cell="peephole_lstm")


def test_prefix_of_data_parallel_and_half_precision(arrays):
    given = arrays("r3d_18")
    wrapped = {f"module.{key}": array.astype(np.float16) for key, array in given.items()}
    plain = convert_state_dict("r3d_18", {k: v.astype(np.float16) for k, v in given.items()}, width=4)
    jax.tree.map(np.testing.assert_array_equal, convert_state_dict("r3d_18", wrapped, width=4), plain)


def test_an_array_with_and_without_the_prefix_is_refused(arrays):
    given = arrays("r3d_18")
    with pytest.raises(ValueError, match=r"every array must occur once, received 'fc\.bias' twice, spelt or"):
        convert_state_dict("r3d_18", given | {"module.fc.bias": given["fc.bias"]}, width=4)


def test_missing_and_superfluous_arrays_are_listed_together(arrays):
    given = arrays("r3d_18")
    del given["stem.0.weight"], given["layer3.0.conv1.1.running_mean"]
    given["layer9.0.weight"] = np.zeros(3)
    with pytest.raises(ValueError, match="must be exactly those of 'r3d_18'") as error:
        convert_state_dict("r3d_18", given, width=4)
    message = str(error.value)
    for part in ("2 missing", "stem.0.weight", "layer3.0.conv1.1.running_mean", "1 superfluous (layer9.0.weight)"):
        assert part in message
    assert "these are weights" not in message


def test_long_lists_are_cut(arrays):
    given = {key: array for key, array in arrays("r3d_18").items() if not key.startswith("layer")}
    with pytest.raises(ValueError, match=r"95 missing \(.*; and 75 more\)"):
        convert_state_dict("r3d_18", given, width=4)


def test_plain_weights_for_srtg_and_back_are_recognised(arrays):
    with pytest.raises(ValueError, match="these are weights of the plain network 'r3d_18'"):
        convert_state_dict("srtg_r3d_18", arrays("r3d_18"), width=4)
    with pytest.raises(ValueError, match="these are weights of the SRTG network 'srtg_r3d_18'"):
        convert_state_dict("r3d_18", arrays("srtg_r3d_18"), width=4)


def test_wrong_shapes_name_both_sides(arrays):
    given = arrays("r3d_18")
    given["stem.0.weight"] = np.zeros((4, 3, 3, 5, 5))
    given["layer1.0.conv1.1.bias"] = np.zeros(7)
    with pytest.raises(ValueError, match="must have the network's shapes") as error:
        convert_state_dict("r3d_18", given, width=4)
    message = str(error.value)
    assert "stem.0.weight (4, 3, 3, 7, 7) (ours: stem/conv/kernel (3, 7, 7, 3, 4)), received (4, 3, 3, 5, 5)" in message
    assert "layer1.0.conv1.1.bias (4,) (ours: stage1/block0/norm1/bias (4,)), received (7,)" in message


def test_another_number_of_classes_names_both(arrays):
    with pytest.raises(ValueError, match=r"num_classes=400 and a classifier of 3 classes \(fc\.weight\)"):
        convert_state_dict("r3d_18", arrays("r3d_18"), num_classes=400, width=4)
    with pytest.raises(ValueError, match=r"must hold the classifier 'fc\.weight'"):
        convert_state_dict("r3d_18", {}, width=4)


def test_arrays_are_read_once_and_one_at_a_time(arrays):
    """Of a file that is larger than the memory no more than what is converted is there."""
    read = []

    def stored(key, array):
        return StoredArray(array.shape, array.dtype, lambda: read.append(key) or array)

    given = arrays("r3d_18")
    variables = convert_state_dict("r3d_18", {key: stored(key, array) for key, array in given.items()})
    assert sorted(read) == sorted(key for key in given if not key.endswith("num_batches_tracked"))
    expected = convert_state_dict("r3d_18", given)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_another_number_of_classes_replaces_the_head_when_asked(arrays):
    given = arrays("r3d_18")
    done = convert("r3d_18", given, num_classes=7, replace_head=True)
    classifier = done.variables["params"]["head"]["classifier"]
    assert classifier["kernel"].shape == (32, 7)
    assert 0.008 < classifier["kernel"].std() < 0.012
    assert not classifier["bias"].any()
    assert set(done.filled) == {"params/head/classifier/kernel", "params/head/classifier/bias"}
    assert {"fc.weight", "fc.bias"} <= set(done.ignored)
    assert done.num_classes == 7
    same = convert("r3d_18", given, num_classes=3, replace_head=True)
    np.testing.assert_array_equal(same.variables["params"]["head"]["classifier"]["bias"], given["fc.bias"])
    assert same.filled == ()


def test_image_kernels_are_spread_over_time_when_asked(arrays):
    """A video of equal frames then gives what the image gave."""
    given = arrays("resnet3d_18_hara")
    flat = {key: array.sum(2) if array.ndim == 5 else array for key, array in given.items()}
    with pytest.raises(ValueError, match=r"conv1\.weight \(4, 3, 7, 7, 7\) .*, received \(4, 3, 7, 7\)"):
        convert_state_dict("resnet3d_18_hara", flat)
    params = convert("resnet3d_18_hara", flat, inflate=True).variables["params"]
    kernel = params["stem"]["conv"]["kernel"]
    assert kernel.shape == (7, 7, 7, 3, 4)
    np.testing.assert_allclose(kernel.sum(0), flat["conv1.weight"].transpose(2, 3, 1, 0), rtol=1e-5, atol=1e-6)
    assert np.ptp(kernel, axis=0).max() == 0


def test_numbers_that_are_not_finite_are_named(arrays):
    given = arrays("r3d_18")
    given["layer1.0.conv1.0.0.weight"][0, 0, 0, 0, :2] = np.nan
    given["fc.bias"][1] = np.inf
    with pytest.raises(ValueError, match=r"received NaN .* in fc\.bias \(1 of 3\); layer1\.0\.conv1.*\(2 of 432\)\."):
        convert_state_dict("r3d_18", given)
