"""The names of several codes for one network: each variable has one, and they are the codes' own."""

import flax.linen
import flax.traverse_util
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost, names_pyslowfast, names_pytorchvideo, names_vmz
from jaxvid.models.convert import convert_state_dict, torch_key

# (code, network, options, some of its keys with their shapes in torch)
CASES = [
    (names_pyslowfast, "slowfast_r50_8x8", {}, 662, {
        "s1.pathway0_stem.conv.weight": (64, 3, 1, 7, 7), "s1.pathway1_stem.bn.running_var": (8,),
        "s1_fuse.conv_f2s.weight": (16, 8, 7, 1, 1), "s4_fuse.bn.bias": (256,),
        "s2.pathway0_res0.branch1.weight": (256, 80, 1, 1, 1), "s2.pathway0_res0.branch1_bn.weight": (256,),
        "s4.pathway1_res5.branch2.a.weight": (32, 128, 3, 1, 1), "s5.pathway0_res2.branch2.c_bn.running_mean": (2048,),
        "head.projection.weight": (400, 2304)}),
    (names_pyslowfast, "slowfast_r101_16x8", {}, 1274, {
        "s4.pathway0_res5.branch2.a.weight": (256, 1024, 3, 1, 1),
        "s4.pathway0_res6.branch2.a.weight": (256, 1024, 1, 1, 1)}),
    (names_pyslowfast, "slow_r50_8x8", {}, 320, {
        "s1.pathway0_stem.conv.weight": (64, 3, 1, 7, 7), "s1.pathway0_stem.bn.running_var": (64,),
        "s2.pathway0_res0.branch1.weight": (256, 64, 1, 1, 1), "s2.pathway0_res0.branch1_bn.weight": (256,),
        "s4.pathway0_res5.branch2.a.weight": (256, 1024, 3, 1, 1),
        "s5.pathway0_res2.branch2.c_bn.running_mean": (2048,), "head.projection.weight": (400, 2048)}),
    (names_pyslowfast, "x3d_s", {"shortcut_norm": True}, None, {
        "s1.pathway0_stem.conv_xy.weight": (24, 3, 1, 3, 3), "s1.pathway0_stem.conv.weight": (24, 1, 5, 1, 1),
        "s1.pathway0_stem.bn.weight": (24,), "s2.pathway0_res0.branch1_bn.weight": (24,),
        "s2.pathway0_res0.branch2.b.weight": (54, 1, 3, 3, 3),
        "s2.pathway0_res0.branch2.se.fc1.weight": (8, 54, 1, 1, 1),
        "s5.pathway0_res6.branch2.se.fc2.bias": (432,), "head.conv_5.weight": (432, 192, 1, 1, 1),
        "head.conv_5_bn.running_mean": (432,), "head.lin_5.weight": (2048, 432, 1, 1, 1),
        "head.projection.bias": (400,)}),
    (names_pyslowfast, "ir_csn_101", {}, None, {
        "model.blocks.0.conv.weight": (64, 3, 3, 7, 7), "model.blocks.5.proj.weight": (400, 2048)}),
    (names_pytorchvideo, "ir_csn_101", {}, None, {
        "blocks.0.conv.weight": (64, 3, 3, 7, 7), "blocks.0.norm.bias": (64,),
        "blocks.1.res_blocks.0.branch1_conv.weight": (256, 64, 1, 1, 1),
        "blocks.3.res_blocks.22.branch2.conv_b.weight": (256, 1, 3, 3, 3),
        "blocks.3.res_blocks.22.branch2.norm_b.running_var": (256,), "blocks.5.proj.bias": (400,)}),
    (names_pytorchvideo, "slow_r50_4x16", {}, 320, {
        "blocks.0.conv.weight": (64, 3, 1, 7, 7), "blocks.0.norm.running_mean": (64,),
        "blocks.1.res_blocks.0.branch1_conv.weight": (256, 64, 1, 1, 1),
        "blocks.3.res_blocks.5.branch2.conv_a.weight": (256, 1024, 3, 1, 1),
        "blocks.4.res_blocks.0.branch2.conv_b.weight": (512, 512, 1, 3, 3),
        "blocks.4.res_blocks.2.branch2.norm_c.bias": (2048,), "blocks.5.proj.weight": (400, 2048)}),
    (names_pytorchvideo, "slowfast_r101_8x8", {}, 1274, {
        "blocks.0.multipathway_fusion.conv_fast_to_slow.weight": (16, 8, 7, 1, 1),
        "blocks.3.multipathway_blocks.1.res_blocks.22.branch2.conv_a.weight": (32, 128, 3, 1, 1)}),
    (names_vmz, "ip_csn_50", {}, None, {
        "stem.0.weight": (64, 3, 3, 7, 7), "stem.1.running_mean": (64,), "layer1.0.conv1.0.weight": (64, 64, 1, 1, 1),
        "layer1.0.conv2.0.0.weight": (64, 64, 1, 1, 1), "layer1.0.conv2.0.1.running_var": (64,),
        "layer1.0.conv2.0.2.weight": (64, 1, 3, 3, 3), "layer1.0.conv2.1.weight": (64,),
        "layer4.2.conv3.1.bias": (2048,), "layer2.0.downsample.0.weight": (512, 256, 1, 1, 1), "fc.bias": (400,)}),
    (names_vmz, "ir_csn_50", {}, None, {"layer1.0.conv2.0.weight": (64, 1, 3, 3, 3)}),
]  # fmt: skip


def _shapes(code, name, model):
    """Key -> shape in torch; keys that two variables have are an error."""
    shapes = {}
    for path, leaf in flax.traverse_util.flatten_dict(dict(cost.variable_shapes(model))).items():
        key, shape = code.key(name, model, path), leaf.shape
        assert key not in shapes, key
        shapes[key] = (shape[4], shape[3], *shape[:3]) if len(shape) == 5 else tuple(reversed(shape))
    return shapes


@pytest.mark.parametrize(("code", "name", "options", "count", "keys"), CASES)
def test_names_of_the_codes(code, name, options, count, keys):
    shapes = _shapes(code, name, models.build(name, 400, **options))
    assert {key: shapes.get(key) for key in keys} == keys
    if count:  # the number that torch's state dict has, with a counter per BatchNorm
        assert len(shapes) + sum(key.endswith("running_mean") for key in shapes) == count


@pytest.mark.parametrize(
    "name", ["srtg_x3d_s", "srtg_slowfast_r50_8x8", "srtg_slow_r50_8x8", "srtg_ir_csn_50", "srtg_ip_csn_50"]
)
def test_srtg_has_names_in_every_code(name):
    model = models.build(name, 3, width=8)
    codes = (names_vmz,) if "ip_csn" in name else (names_pytorchvideo, names_pyslowfast)
    for code in codes:
        keys = _shapes(code, name, model)
        assert sum(".sar.lstm.weight_hh_l1" in key for key in keys) >= 16


@pytest.mark.parametrize("name", ["slowfast_r50_4x16", "slow_r50_4x16", "ir_csn_50", "ip_csn_50", "srtg_ir_csn_50"])
def test_every_array_arrives_once_and_tells_its_width(name, shapes_of):
    rng = np.random.default_rng(0)
    model = models.build(name, 3, width=8)
    given = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes_of(name, model).items()}
    variables = flax.traverse_util.flatten_dict(convert_state_dict(name, given))
    assert variables.keys() == flax.traverse_util.flatten_dict(dict(cost.variable_shapes(model))).keys()
    used = {torch_key(name, model, path): array for path, array in variables.items()}
    assert used.keys() == {key for key in given if not key.endswith("num_batches_tracked")}
    for key, array in used.items():
        expected = given[key].transpose(2, 3, 4, 1, 0) if given[key].ndim == 5 else given[key].T
        np.testing.assert_array_equal(array, expected)


def test_networks_that_a_code_does_not_have():
    path = ("params", "head", "classifier", "kernel")
    for code, name in ((names_pytorchvideo, "ip_csn_50"), (names_pyslowfast, "ip_csn_50")):
        with pytest.raises(TypeError, match="an X3D, a SlowFast, a Slow-only one or an ir-CSN, received 'ip_csn_50'"):
            code.key(name, models.build(name, 3), path)
    with pytest.raises(TypeError, match="received 'r3d_18'"):
        names_pyslowfast.key("r3d_18", models.build("r3d_18", 3), path)
    with pytest.raises(TypeError, match="must be a CSN, received 'x3d_s'"):
        names_vmz.key("x3d_s", models.build("x3d_s", 3), path)


def test_pyslowfast_normalises_the_first_shortcut_of_x3d():
    """48 parameters more than pytorchvideo's: a BN of 24 channels."""
    plain, theirs = models.build("x3d_s", 400), models.build("x3d_s", 400, shortcut_norm=True)
    assert cost.count_parameters(theirs) - cost.count_parameters(plain) == 48
    assert isinstance(theirs, flax.linen.Module)
