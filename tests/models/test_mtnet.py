"""MTNet: the thesis' network and its options, the public code's, and the law of delta."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.convert import convert, convert_state_dict, torch_key
from jaxvid.models.delta_law import DELTAS, PRINTED
from jaxvid.models.mtnet_reference import MTBlockReference, _pad_to_even, round_up, windows_of_streams
from jaxvid.models.names_mtnet import width_and_delta
from jaxvid.nn import BatchNorm, Conv3D
from jaxvid.nn.mtconv_reference import split_streams

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")


def shapes(name, clip=(4, 32, 32), **options):
    return jax.tree.map(lambda leaf: leaf.shape, cost.variable_shapes(models.build(name, 7, **options), clip)["params"])


def few(name, **options):
    return models.build(name, 5, width=4, conv="direct", **options).clone(stage_sizes=(1, 1, 1, 1))


def test_channels_are_those_of_table_6_1():
    found = shapes("mtnet_m")
    for stage, (blocks, inner, outer) in enumerate([(3, 54, 24), (5, 108, 48), (11, 216, 96), (7, 432, 192)], 1):
        assert set(found[f"stage{stage}"]) == {f"block{i}" for i in range(blocks)}
        block = found[f"stage{stage}"]["block1"]
        local, prolonged = int(inner * 7 / 8), inner - int(inner * 7 / 8)
        assert block["conv2"]["local"]["kernel"] == (3, 3, 3, 1, local)
        assert block["conv2"]["prolonged"]["kernel"] == (3, 3, 3, 1, prolonged)
        assert block["conv2"]["lateral"]["kernel"] == (1, 1, 1, local, prolonged)
        assert block["conv1"]["local"]["kernel"] == (1, 1, 1, outer * 7 // 8, local)
        assert block["conv3"]["prolonged"]["kernel"] == (1, 1, 1, prolonged, outer // 8)
        assert block["sr"]["input_kernel_0"] == (outer, 3 * outer)  # one layer
        assert "input_kernel_1" not in block["sr"]


def test_cells_differ_as_in_table_5_7():
    """0.75 million parameters per gate over all blocks: 24.3, 25.8, 26.5 million."""
    counts = {c: cost.count_parameters(few("mtnet_m", cell=c)) for c in ("rnn", "gru", "lstm", "peephole_lstm")}
    widths = (8, 8, 8, 16)
    per_gate = sum(2 * c * c + 2 * c for c in widths)
    assert counts["gru"] - counts["rnn"] == 2 * per_gate
    assert counts["lstm"] - counts["gru"] == per_gate
    assert counts["peephole_lstm"] - counts["lstm"] == 3 * sum(widths)
    steps = 3 * (2 * 24**2 + 48) + 5 * (2 * 48**2 + 96) + 11 * (2 * 96**2 + 192) + 7 * (2 * 192**2 + 384)
    assert steps / 1e6 == pytest.approx(0.75, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "params", "gmacs"),
    [
        ("mtnet_m", {}, 5_986_413, 5.149466880),
        ("mtnet_m", {"groups": 1}, 45_605_727, 107.021488128),
        ("mtnet_m", {"cell": "rnn"}, 4_484_877, 5.125615872),
        ("mtnet_m", {"cell": "lstm"}, 6_737_181, 5.161392384),
    ],
)
def test_counts(name, options, params, gmacs):
    model = models.build(name, 400, **options)
    assert cost.count_parameters(model) == params
    assert cost.count_macs(model, (16, 256, 256)) / 1e9 == pytest.approx(gmacs, rel=1e-9)


# The counts of the public code, MTNet_m at 16x256x256.
REFERENCE = {7 / 8: (44_038_288, 33.048), 3 / 4: (35_769_808, 26.5304), 5 / 8: (30_808_720, 21.172),
             1 / 2: (29_155_024, 16.9729), 3 / 8: (30_808_720, 13.933), 1 / 4: (35_769_808, 12.0524)}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("delta", list(REFERENCE))
def test_reference_counts_at_every_delta(delta):
    model = models.build("mtnet_ref_m", 400, delta=delta)
    params, gmacs = REFERENCE[delta]
    assert cost.count_parameters(model) == params
    assert cost.count_macs(model, (16, 256, 256)) / 1e9 == pytest.approx(gmacs, abs=6e-5)


@pytest.mark.slow
def test_cost_over_delta_is_the_parabola_of_table_5_6():
    """Dense kernels, the widths of one stage as powers of two: quadratic, least parameters at 1/2, ratio 1/8."""

    def costs(delta):
        model = few("mtnet_m", delta=delta, groups=1).clone(width_factor=64 / 12, stage_sizes=(2,))
        return cost.count_parameters(model), cost.count_macs(model, (8, 32, 32))

    deltas = [delta for delta in DELTAS if delta < 1]
    params, macs = zip(*(costs(delta) for delta in deltas), strict=True)
    assert np.all(np.diff(macs) < 0)  # falls with delta, which falls
    assert np.argmin(params) == deltas.index(1 / 2)
    np.testing.assert_allclose(np.diff(macs, 3), 0, atol=1e-6 * macs[0])  # no cubic part
    assert np.all(np.diff(macs, 2) > 0)
    assert np.all(np.diff(params, 2) > 0)
    printed = [PRINTED[delta] for delta in deltas]
    assert np.argmin([row.params for row in printed]) == np.argmin(params)
    # What is printed, as a + b d^2 + c (1-d)^2 by least squares.
    d, gmacs = np.array(list(PRINTED)), [row.gmacs for row in PRINTED.values()]
    _, local, prolonged = np.linalg.lstsq(np.stack([np.ones_like(d), d**2, (1 - d) ** 2], 1), gmacs, rcond=None)[0]
    assert prolonged / local == pytest.approx(1 / 8, abs=0.05)


@pytest.mark.slow
def test_blocks_can_be_captured_at_odd_sizes(drawn):
    for name, streams in (("mtnet_s", 1), ("mtnet_ref_xs", 2)):
        model = few(name)
        named = lambda module, _: module.name in BLOCKS  # noqa: E731
        apply = functools.partial(
            model.apply, train=False, capture_intermediates=named, mutable=["intermediates", "perturbations"]
        )
        for size in ((1, 1, 1), (2, 33, 40), (5, 70, 35)):
            logits, state = jax.eval_shape(apply, cost.variable_shapes(model), jnp.zeros((2, *size, 3)))
            assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
            assert set(state["perturbations"]) == set(BLOCKS)
            assert len(jax.tree.leaves(state["intermediates"]["stage3"])) == streams


def test_padding_stands_before_the_first_row_and_column():
    x = jnp.arange(6.0).reshape(1, 1, 2, 3, 1)
    np.testing.assert_array_equal(_pad_to_even(x)[0, 0, :, :, 0], [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5]])
    np.testing.assert_array_equal(_pad_to_even(x[:, :, :, :2]), x[:, :, :, :2])


def test_windows_of_two_streams():
    short, long = (
        jax.random.normal(jax.random.key(0), (1, 2, 8, 8, 3)),
        jax.random.normal(jax.random.key(1), (1, 1, 4, 4, 2)),
    )
    y = windows_of_streams((short, long), (2, 6, 6))
    assert y.shape == (1, 1, 2, 2, 5)
    np.testing.assert_allclose(y[0, 0, 1, 0, :3], short[0, :, 2:8, 0:6].mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y[0, 0, 1, 0, 3:], long[0, :, 1:4, 0:3].mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    one = windows_of_streams((short, long), (2, 8, 8))
    np.testing.assert_allclose(one, windows_of_streams((short, long), None), rtol=1e-5, atol=1e-6)


@pytest.mark.data
@pytest.mark.parametrize("train", [False, True])
def test_block_is_the_codes(train, golden, jit):
    stored = golden("mtblock_down")
    x = tuple(jnp.asarray(np.moveaxis(stored[f"x_{name}"], 1, -1)) for name in ("short", "long"))
    conv = functools.partial(Conv3D, implementation="direct")
    block = MTBlockReference(32, 32, 2, 0.875, 1, "torch", jnp.float32, conv, BatchNorm)
    flat = jax.tree_util.tree_leaves_with_path(jax.eval_shape(lambda: block.init(jax.random.key(0), x, False)))
    keys = {path: _key(path) for path, _ in flat}
    arrays = {path: stored[f"w.{key}"] for path, key in keys.items()}
    variables = {}
    for path, array in arrays.items():
        node = variables
        for entry in path[:-1]:
            node = node.setdefault(entry.key, {})
        order = (2, 3, 4, 1, 0) if array.ndim == 5 else tuple(reversed(range(array.ndim)))
        node[path[-1].key] = jnp.asarray(array.transpose(order))
    y, state = jit(functools.partial(block.apply, train=train, mutable=["batch_stats"]))(variables, x)
    for name, output in zip(("short", "long"), y, strict=True):
        expected = np.moveaxis(stored[f"y_{name}_{'train' if train else 'eval'}"], 1, -1)
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4 * expected.std())
    if train:
        for path, leaf in jax.tree_util.tree_leaves_with_path({"batch_stats": state["batch_stats"]}):
            np.testing.assert_allclose(leaf, stored[f"w_after_train.{keys[path]}"], rtol=1e-4, atol=1e-6)


def _key(path):
    whole = ("params", "stage1", "block0", *(entry.key for entry in path[1:]))
    return torch_key("mtnet_ref_xs", models.build("mtnet_ref_xs", 5), whole).removeprefix("layer1.0.")


def test_weights_of_another_network_are_refused(hashed_arrays):
    arrays = hashed_arrays("mtnet_ref_xs", few("mtnet_ref_xs", delta=0.5))
    with pytest.raises(ValueError, match=r"the arrays must be exactly those of 'mtnet_ref_xs', received .* missing"):
        convert_state_dict("mtnet_ref_xs", arrays, width=4, delta=0.5)
    with pytest.raises(TypeError, match="received MTNet"):
        torch_key("mtnet_s", models.build("mtnet_s", 5), ("params", "head", "classifier", "kernel"))


@pytest.mark.parametrize(
    ("name", "width", "delta"),
    [
        ("mtnet_ref_xs", 6, 0.7),
        pytest.param("mtnet_ref_xs_g8", 16, 0.5, marks=pytest.mark.slow),
    ],
)
def test_width_and_delta_are_those_of_the_arrays(name, width, delta, shapes_of):
    model = models.build(name, 3, width=width, delta=delta)
    arrays = {key: np.zeros(shape, np.float32) for key, shape in shapes_of(name, model).items()}
    done = convert(name, arrays)
    assert done.options == {"width": width, "delta": delta}
    assert jax.tree.map(np.shape, done.variables) == jax.tree.map(np.shape, dict(cost.variable_shapes(model)))
    with pytest.raises(ValueError, match=r"\(ours: .*\), received \("):
        convert(name, arrays, delta=0.25)
    # A damaged vector does not mislead; without its name the arrays tell nothing.
    damaged = arrays | {"layer4.0.conv3.norm_short.weight": np.zeros(31)}
    found, whole = width_and_delta(damaged), 8 * width
    assert (found["width"], split_streams(whole, found["delta"])) == (width, split_streams(whole, delta))
    assert width_and_delta({}) == width_and_delta({"layer4.0.conv3.norm_short.weight": np.zeros(8)}) == {}


@pytest.mark.parametrize("delta", [1 / 16, 1 / 8, 0.3, 1 / 3, 0.5, 0.7, 0.875, 0.9])
def test_a_delta_that_gives_the_same_channels_is_found(delta):
    """The fraction of the least denominator: what the builder was given, if that was a simple one."""
    splits = {f"layer{i}.0.conv3": split_streams(64 * 2 ** (i - 1), delta) for i in (1, 2, 3, 4)}
    arrays = {
        f"{key}.norm_{stream}.weight": np.zeros(count)
        for key, counts in splits.items()
        for stream, count in zip(("short", "long"), counts, strict=True)
    }
    found = width_and_delta(arrays)
    assert found["width"] == 64
    assert found["delta"] == pytest.approx(delta)
    assert all(split_streams(sum(counts), found["delta"]) == counts for counts in splits.values())


def test_channels_are_rounded_to_the_groups():
    assert [round_up(c, 8) for c in (1, 8, 9, 64)] == [8, 8, 16, 64]
    found = shapes("mtnet_ref_xs_g8", width=4)
    assert found["stage1"]["block0"]["conv2"]["conv_short"]["kernel"] == (3, 3, 3, 1, 7)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mtnet_s", {"delta": 0}, r"delta must be a finite number > 0"),
        ("mtnet_s", {"delta": 1.5}, r"delta must be in \(0, 1\], received delta=1\.5"),
        ("mtnet_s", {"pool": "sof"}, r"pool must be one of avg, max, soft, stochastic, .* did you mean 'soft'"),
        ("mtnet_s", {"selection": "high"}, r"selection must be one of lowest, none"),
        ("mtnet_s", {"cell": "gru2"}, r"cell must be one of .* did you mean 'gru'"),
        ("mtnet_s", {"groups": 0}, r"groups must be a whole number >= 1"),
        ("mtnet_s", {"groups": 1, "conv": "shifted"}, r"conv must be one of auto, direct, folded, received"),
        ("mtnet_s", {"gate": "cyclic"}, r"the options of 'mtnet_s' must be among width, .* received 'gate'"),
        ("mtnet_ref_s", {"delta": 1.0}, r"delta must be in \[0, 1\), received delta=1\.0"),
        ("mtnet_ref_s", {"delta": 0.001}, r"delta must split 64 channels into two streams"),
        ("mtnet_ref_s_g8", {"delta": 0.9}, r"received delta=0\.9, which gives \(57, 7\)"),
        ("mtnet_ref_s", {"pool": "stochastic"}, r"pool must be one of max, avg, soft"),
        ("srtg_mtnet_s", {}, r"must be one of jaxvid.models.MODELS, received 'srtg_mtnet_s'"),
    ],
)  # fmt: skip
def test_errors_name_the_rule_and_the_value(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, 5, **options)
