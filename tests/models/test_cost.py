"""Parameters and multiply-adds against the counts of the reference implementations."""

import functools
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.class_regularized import class_regularized
from jaxvid.models.universal_to_specific import universal_to_specific

_ROWS = json.loads((Path(__file__).parents[1] / "golden" / "model_counts.json").read_text())
_NAMES = {"wide_r3d50_2": "wide_r3d_50", "wide_r3d101_2": "wide_r3d_101", "hara_wide50_k2": "wide_resnet3d_50_hara"}
_NAMES |= {f"hara_resnet{depth}": f"resnet3d_{depth}_hara" for depth in (18, 34, 50, 101, 152)}
_NAMES |= {f"hara_r2p1d{depth}": f"r2plus1d_{depth}_hara" for depth in (18, 34, 50, 101)}
_NAMES |= {"i3d_piergiaj": "i3d", "mfnet3d": "mfnet"}
_OTHERS = {"ir_csn_101", "ip_csn_101"}  # the SRTG repository's builders of those names make other networks
_NAMES |= {
    row["tag"]: name
    for row in _ROWS
    if (name := row["tag"].lower().replace("mtnet", "mtnet_ref")) in models.MODELS and name not in _OTHERS
}
for _row in _ROWS:
    if isinstance(_row["shape"][0], list):
        _row["shape"] = _row["shape"][1]  # of SlowFast's two inputs the fast pathway's, which is our video


def _param(row):
    name, size = _NAMES[row["tag"]], row["shape"][-1]
    # Shallow networks are traced, and at one size only, unless slow tests are asked for.
    again = row is not next(first for first in _ROWS if _NAMES.get(first["tag"]) == name)
    deep = again or any(part in name for part in ("_101", "_r101", "_152", "mtnet", "x3d_l", "x3d_xl"))
    return pytest.param(name, row, id=f"{name}-{size}", marks=pytest.mark.slow if deep else ())


PUBLISHED = [_param(row) for row in _ROWS if row["tag"] in _NAMES]


def test_every_name_of_the_scope_has_published_counts():
    assert len(PUBLISHED) == 84
    assert len({param.values[0] for param in PUBLISHED}) == 46


@pytest.mark.parametrize(("name", "row"), PUBLISHED)
def test_published_counts(name, row):
    model = models.build(name, num_classes=400)
    # Buffers of the reference: mean, variance and a counter per normalisation.
    statistics = jax.tree.leaves(cost.variable_shapes(model)["batch_stats"])
    assert sum(leaf.size for leaf in statistics) + len(statistics) // 2 == row["buffers"]
    assert cost.count_parameters(model) == row["params"]
    # SlowFast's reference classifies each of several windows where the map is larger than a training clip's.
    near = 5e-5 if "slowfast" in name else 1e-5
    assert cost.count_macs(model, tuple(row["shape"][2:])) / 1e9 == pytest.approx(row["gmacs"], rel=near, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("r3d_50", 46_980_944, 32.293),
        ("r3d_101", 86_027_088, 47.579),
        ("r2plus1d_50", 53_949_691, 35.296),
        ("r2plus1d_101", 99_913_475, 53.284),
        ("wide_r3d_50", 158_210_640, 95.941),
    ],
)
def test_expansion_4(name, params, gmacs):
    model = models.build(name, num_classes=400, expansion=4)
    assert cost.count_parameters(model) == params
    assert cost.count_macs(model, (16, 224, 224)) / 1e9 == pytest.approx(gmacs, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("resnext3d_50", 26_685_264, 29.578),
        pytest.param("resnext3d_101", 48_340_816, 38.040, marks=pytest.mark.slow),
    ],
)
def test_resnext(name, params, gmacs):
    model = models.build(name, num_classes=400)
    assert cost.count_parameters(model) == params
    assert cost.count_macs(model, (16, 224, 224)) / 1e9 == pytest.approx(gmacs, abs=1e-3)


def test_multiply_adds_do_not_depend_on_the_formulation():
    direct, folded = (models.build("srtg_r3d_18", 5, width=4, conv=conv) for conv in ("direct", "folded"))
    assert cost.count_macs(direct, (8, 32, 32)) == cost.count_macs(folded, (8, 32, 32))


def macs(function, *shapes):
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return cost.macs_of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def product(x, w):
    return x @ w


def test_what_stands_around_a_network_is_counted_with_it():
    """In no formulation of the network's own convolutions but the direct one."""
    K, clip = 5, (4, 32, 32)
    plain, masked = (models.build("r3d_18", K, width=4, conv=conv) for conv in ("direct", "folded"))
    network = cost.count_macs(plain, clip)
    # Behind each stage K rows of 32 channels are mapped, compared with the features, and one is taken.
    added = sum(K * 32 * channels + 2 * K * channels for channels in (4, 8, 16, 32))
    assert cost.count_macs(class_regularized("r3d_18", masked), clip) == network + added
    rethought = {conv: cost.count_macs(universal_to_specific(each), clip)
                 for conv, each in (("direct", plain), ("folded", masked))}  # fmt: skip
    assert rethought["direct"] == rethought["folded"]
    assert network < rethought["direct"] < 2 * network


def test_matrix_product():
    assert macs(product, (2, 3), (3, 5)) == 2 * 3 * 5
    assert macs(lambda x, w: jnp.einsum("bij,bjk->bik", x, w), (7, 2, 3), (7, 3, 5)) == 7 * 2 * 3 * 5


def test_grouped_convolution_counts_padded_taps():
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )

    assert macs(convolve, (2, 5, 6, 4), (3, 3, 2, 8)) == 2 * 5 * 3 * 8 * (3 * 3 * 2)


def test_scan_counts_every_iteration():
    def scan(x, w):
        return jax.lax.scan(lambda h, _: (h @ w, None), x, length=11)[0]

    assert macs(scan, (2, 3), (3, 3)) == 11 * 2 * 3 * 3


def test_branches_count_the_costliest():
    def branch(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

    assert macs(branch, (2, 3), (3, 3)) == 2 * (2 * 3 * 3)


def test_programs_inside_calls_count():
    @jax.custom_vjp
    def custom(x, w):
        return x @ w

    custom.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))
    for call in (jax.jit(product), jax.checkpoint(product), custom, jax.jit(jax.jit(product))):
        assert macs(call, (2, 3), (3, 5)) == 2 * 3 * 5


def test_while_loops_with_multiply_adds_are_refused():
    def repeat(x, w):
        return jax.lax.while_loop(lambda h: h.sum() < 1, lambda h: h @ w, x)

    with pytest.raises(ValueError, match="while loop cannot be counted"):
        macs(repeat, (2, 3), (3, 3))
    assert macs(lambda x: jax.lax.while_loop(lambda h: h.sum() < 1, lambda h: h + 1, x), (2, 3)) == 0


def test_any_linen_module_can_be_counted():
    class Linear(nn.Module):
        @nn.compact
        def __call__(self, video, train):
            return nn.Dense(5)(video.mean((1, 2, 3)))

    assert cost.count_parameters(Linear()) == 3 * 5 + 5
    assert cost.count_macs(Linear(), (4, 8, 8)) == 3 * 5


def test_variable_shapes_are_those_of_a_real_start(jit):
    model = models.build("r3d_18", 5, width=2).clone(stage_sizes=(1, 1, 1, 1))
    variables = jit(functools.partial(model.init, train=False))(jax.random.key(0), jnp.zeros((1, 4, 16, 16, 3)))
    same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, variables, cost.variable_shapes(model))
    assert all(jax.tree.leaves(same))
