"""The residual block: the authors' numbers, the places of SRTG, and shapes."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.models.residual import PLACEMENTS, FactorisedConv, ResidualBlock, middle_channels
from jaxvid.nn.convolution import Conv3D
from jaxvid.nn.normalization import BatchNorm
from jaxvid.nn.srtg import SRTG

TORCH_NAMES = {  # of the SRTG authors' blocks
    "conv1": ("conv1.0.0", "conv1.0"), "conv2": ("conv2.0.0",), "conv3": ("conv3.0",),
    "norm1": ("conv1.1",), "norm2": ("conv2.1",), "norm3": ("conv3.1",),
    "shortcut_conv": ("downsample.0",), "shortcut_norm": ("downsample.1",),
    "spatial": ("0",), "norm": ("1",), "temporal": ("3",),
}  # fmt: skip
TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def make_block(planes=6, stride=1, bottleneck=False, factorised=False, srtg=True, **fields):
    return ResidualBlock(
        planes=planes, stride=stride, bottleneck=bottleneck, factorised=factorised,
        conv=functools.partial(Conv3D, implementation="direct"), norm=BatchNorm,
        srtg=functools.partial(SRTG) if srtg else None,
        **{"expansion": 1, "inner": planes, "groups": 1, "shared_middle": True} | fields,
    )  # fmt: skip


def torch_name(path):
    *modules, leaf = path[1:]
    if modules == ["srtg"]:
        kind, layer = leaf.rsplit("_", 1)
        names = {"input_kernel": "weight_ih", "recurrent_kernel": "weight_hh", "input_bias": "bias_ih"}
        return [f"sar.lstm.{names.get(kind, 'bias_hh')}_l{layer}"]
    if len(modules) == 2:
        return [f"{modules[0]}.0.{TORCH_NAMES[modules[1]][0]}.{TORCH_LEAVES[leaf]}"]
    return [f"{module}.{TORCH_LEAVES[leaf]}" for module in TORCH_NAMES[modules[0]]]


def to_flax(array):
    return array.transpose(2, 3, 4, 1, 0) if array.ndim == 5 else array.T


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("srtg_basicblock_final_r3d", {"stride": 2}),
        ("srtg_basicblock_final_r2plus1d", {"factorised": True}),
        ("srtg_bottleneck_final_r3d", {"stride": 2, "bottleneck": True}),
    ],
)
def test_blocks_equal_the_authors(file, fields, golden, video_from_torch):
    stored = golden(file)
    block, x = make_block(**fields), video_from_torch(stored["x"])
    shapes = flax.traverse_util.flatten_dict(
        jax.eval_shape(functools.partial(block.init, train=False), jax.random.key(0), x)
    )

    def arrays(prefix):
        found = {path: next(stored[prefix + n] for n in torch_name(path) if prefix + n in stored) for path in shapes}
        return flax.traverse_util.unflatten_dict({path: to_flax(array) for path, array in found.items()})

    variables = arrays("w.")
    y = block.apply(variables, x, False)
    np.testing.assert_allclose(y, np.moveaxis(stored["y_eval"], 1, -1), rtol=1e-4, atol=1e-5)
    y, state = block.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, np.moveaxis(stored["y_train"], 1, -1), rtol=1e-4, atol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        state["batch_stats"], arrays("w_after_train.")["batch_stats"],
    )  # fmt: skip


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_srtg_has_the_channels_of_its_place(placement, bottleneck):
    block = make_block(
        planes=4, stride=2, bottleneck=bottleneck, inner=6, expansion=2 if bottleneck else 1, placement=placement
    )
    init = functools.partial(block.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 2, 4, 4, 3)))["params"]
    outputs, first = (8, 6) if bottleneck else (4, 4)
    channels = {"start": 3, "top": first, "mid": first, "end": outputs, "res": outputs, "final": outputs}[placement]
    assert params["srtg"]["input_kernel_0"].shape == (channels, 4 * channels)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_srtg_acts_at_its_place(bottleneck):
    """A recurrence that answers 0 wipes out its place: what is left over tells where it sat."""
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 4, 6))

    # Six channels everywhere, so that the variables of one placement fit all of them.
    variables = make_block(bottleneck=bottleneck).init(jax.random.key(0), x, False)
    variables["params"]["srtg"] = jax.tree.map(jnp.zeros_like, variables["params"]["srtg"])

    def run(placement, srtg=True):
        return make_block(bottleneck=bottleneck, placement=placement, srtg=srtg).apply(variables, x, False)

    plain = run("final", srtg=False)
    assert not np.allclose(plain, jax.nn.relu(x))
    np.testing.assert_array_equal(run("final"), jnp.zeros_like(x))  # everything
    np.testing.assert_array_equal(run("start"), jnp.zeros_like(x))  # branch and shortcut (BN starts with bias 0)
    for placement in ("top", "mid", "end"):  # the branch alone
        np.testing.assert_array_equal(run(placement), jax.nn.relu(x))
    without_shortcut = run("res")
    assert not np.allclose(without_shortcut, plain)
    assert not np.allclose(without_shortcut, 0)
    # Only the branch is left: the plain block's sum less the shortcut, wherever that sum is seen through the ReLU.
    seen = plain > 0
    np.testing.assert_allclose(without_shortcut[seen], jax.nn.relu(plain - x)[seen], atol=1e-5)


def test_top_and_mid_of_a_bottleneck_differ():
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 4, 6))
    outputs = []
    for placement in ("top", "mid"):
        block = make_block(bottleneck=True, placement=placement, srtg=True)
        outputs.append(block.apply(block.init(jax.random.key(0), x, False), x, False))
    assert not np.allclose(*outputs, atol=1e-4)


def test_groups_and_inner_channels_reach_the_bottleneck():
    block = make_block(planes=4, bottleneck=True, inner=8, groups=2, srtg=False)
    init = functools.partial(block.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 2, 4, 4, 4)))["params"]
    assert params["conv1"]["kernel"].shape == (1, 1, 1, 4, 8)
    assert params["conv2"]["kernel"].shape == (3, 3, 3, 4, 8)  # 4 input channels in each of 2 groups
    assert params["conv3"]["kernel"].shape == (1, 1, 1, 8, 4)


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [(64, 64, 144), (64, 128, 230), (128, 128, 288), (128, 256, 460), (256, 256, 576), (256, 512, 921)],
)
def test_middle_channels_of_the_paper(inputs, outputs, expected):
    assert middle_channels(inputs, outputs) == expected


def test_middle_channels_of_hara_stem():
    assert middle_channels(3, 64, (7, 7, 7)) == 110


def test_factorised_conv_of_a_separable_kernel_is_the_3d_convolution():
    """Without the ReLU's and BN's effect, space then time is one 3-D convolution with the product kernel."""
    x = jax.random.uniform(jax.random.key(0), (1, 4, 5, 5, 1))
    conv = FactorisedConv(1, 1, (3, 3, 3), (1, 2, 2), functools.partial(Conv3D, implementation="direct"), BatchNorm)
    variables = conv.init(jax.random.key(1), x, False)
    space, time = jnp.abs(variables["params"]["spatial"]["kernel"]), variables["params"]["temporal"]["kernel"]
    variables["params"]["spatial"]["kernel"] = space  # positive input, positive kernel: the ReLU lets everything pass
    whole = Conv3D(1, (3, 3, 3), (1, 2, 2), (1, 1, 1), implementation="direct")
    expected = whole.apply({"params": {"kernel": space * time}}, x) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(conv.apply(variables, x, False), expected, rtol=1e-5, atol=1e-6)
