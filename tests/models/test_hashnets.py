"""Full-size networks against the logits that the authors' code computed from the same hashed weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.convert import convert_state_dict

# (name, name of the golden file)
NETWORKS = [
    ("r3d_18", "r3d_18"),
    pytest.param("r3d_34", "r3d_34", marks=pytest.mark.slow),
    ("r3d_50", "r3d_50"),
    ("r2plus1d_34", "r2plus1d_34"),
    pytest.param("wide_r3d_50", "wide_r3d50_2", marks=pytest.mark.slow),  # 141 million parameters
    pytest.param("srtg_r3d_34", "srtg_r3d_34", marks=pytest.mark.slow),
    pytest.param("srtg_r2plus1d_50", "srtg_r2plus1d_50", marks=pytest.mark.slow),
    ("x3d_s", "x3d_s"),
    pytest.param("i3d", "i3d_piergiaj", marks=pytest.mark.slow),  # a minute of compilation between them
    pytest.param("mfnet", "mfnet3d", marks=pytest.mark.slow),
    pytest.param("slow_r50_8x8", "slow_r50_8x8", marks=pytest.mark.slow),
    pytest.param("tsm_r18", "tsm_r18", marks=pytest.mark.slow),
    pytest.param("tsm_r50", "tsm_r50", marks=pytest.mark.slow),
    pytest.param("tsm_r101", "tsm_r101", marks=pytest.mark.slow),
    pytest.param("r3d_18_torchvision", "r3d_18_torchvision", marks=pytest.mark.slow),
    ("mc3_18_torchvision", "mc3_18_torchvision"),
    pytest.param("r2plus1d_18_torchvision", "r2plus1d_18_torchvision", marks=pytest.mark.slow),
    pytest.param("mtnet_ref_xs", "MTNet_xs", marks=pytest.mark.slow),
    pytest.param("mtnet_ref_s", "MTNet_s", marks=pytest.mark.slow),
]


def test_the_fill_is_the_one_of_the_golden_files(golden, fill):
    check = golden("hashfill_check")
    np.testing.assert_array_equal(fill(3, (16,), -1, 1), check["a"])
    np.testing.assert_array_equal(fill(0, (8,), 0, 1), check["b"])


@pytest.mark.parametrize(("name", "file"), NETWORKS)
def test_logits_and_stages_equal_the_authors(name, file, golden, fill, hashed_arrays, video_from_torch, jit):
    expected = golden(f"hashnet_{file}")
    model = models.build(name, num_classes=400)
    assert cost.count_parameters(model) == int(expected["params"])
    variables = convert_state_dict(name, hashed_arrays(name, model))
    video = video_from_torch(fill(10000, tuple(expected["clip_shape"]), -1.7, 1.7))

    def outputs(variables, video):
        named = lambda module, _: module.name in ("stem", "stage1", "stage2", "stage3", "stage4")  # noqa: E731
        logits, state = model.apply(
            variables, video, train=False, capture_intermediates=named, mutable=["intermediates"]
        )
        blocks = {k: v["__call__"][0] for k, v in state["intermediates"].items()}
        streams = {k: jax.tree.leaves(v) for k, v in blocks.items()}  # a stage of two streams gives a pair
        statistics = {
            k: [jnp.stack([x.mean(), x.std(), jnp.abs(x).max()]) for x in pair] for k, pair in streams.items()
        }
        return logits, statistics, jnp.concatenate([x.mean((1, 2, 3)) for x in streams["stage4"]], axis=-1)

    logits, statistics, features = jit(outputs)(variables, video)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4 * expected["logits"].std())
    if "fc_in" not in expected:
        return
    np.testing.assert_allclose(features, expected["fc_in"], rtol=1e-4, atol=1e-4 * expected["fc_in"].std())
    for block in ("stem", "stage1", "stage2", "stage3", "stage4"):
        for index, found in enumerate(statistics[block]):
            stored = expected[f"stat_{block.replace('stage', 'layer')}_{index}"]
            np.testing.assert_allclose(found, stored, rtol=1e-4, err_msg=block)


_FILES = {"wide_r3d_50": "wide_r3d50_2", "i3d": "i3d_piergiaj", "mfnet": "mfnet3d"}


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file"),
    [(name, _FILES.get(name, name.replace("mtnet_ref", "MTNet"))) for name in
     ("r3d_18", "r3d_34", "r3d_50", "r3d_101", "r2plus1d_34", "r2plus1d_50", "wide_r3d_50",
      "srtg_r3d_34", "srtg_r3d_50", "srtg_r2plus1d_50", "x3d_s", "x3d_l", "i3d", "mfnet",
      "mtnet_ref_xs", "mtnet_ref_s", "mtnet_ref_m_g8")],
)  # fmt: skip
def test_torch_keys_and_shapes_are_the_authors(name, file, golden, shapes_of):
    expected = {key: tuple(shape) for key, shape in golden("statedict_keys")[file].items()}
    assert shapes_of(name, models.build(name, num_classes=400)) == expected
