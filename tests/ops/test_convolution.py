"""conv3d: literals, the equality of its formulations in value and gradient, dtypes and errors."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxvid.ops import conv3d, convolution, folded

CASES = {
    # name: (x, kernel, strides, padding, dilation, groups)
    "stem": ((2, 5, 9, 8, 3), (3, 7, 7, 3, 4), (1, 2, 2), (1, 3, 3), (1, 1, 1), 1),
    "dense": ((2, 4, 5, 6, 6), (3, 3, 3, 6, 7), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    "strided, odd": ((2, 5, 7, 7, 6), (3, 3, 3, 6, 5), (2, 2, 2), (1, 1, 1), (1, 1, 1), 1),
    "one frame": ((2, 1, 3, 3, 5), (3, 3, 3, 5, 5), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    "one row": ((2, 3, 1, 6, 5), (3, 3, 3, 5, 6), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    "one frame, strided": ((2, 1, 3, 3, 5), (3, 3, 3, 5, 5), (2, 2, 2), (1, 1, 1), (1, 1, 1), 1),
    "one frame, 4 channels": ((2, 1, 3, 3, 4), (3, 3, 3, 4, 5), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    "two frames": ((1, 2, 3, 3, 5), (5, 3, 3, 5, 5), (1, 1, 1), (2, 1, 1), (1, 1, 1), 1),
    "pointwise": ((2, 4, 5, 5, 6), (1, 1, 1, 6, 8), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "pointwise, strided": ((2, 5, 5, 4, 6), (1, 1, 1, 6, 8), (2, 2, 2), (0, 0, 0), (1, 1, 1), 1),
    "pointwise, padded": ((1, 2, 3, 3, 5), (1, 1, 1, 5, 2), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    "temporal": ((2, 5, 3, 3, 6), (3, 1, 1, 6, 4), (2, 1, 1), (1, 0, 0), (1, 1, 1), 1),
    "temporal, long": ((2, 6, 3, 4, 6), (5, 1, 1, 6, 4), (1, 2, 1), ((3, 1), (0, 0), (0, 0)), (1, 1, 1), 1),
    "temporal, shrinking": ((1, 7, 2, 3, 4), (3, 1, 1, 4, 6), (1, 1, 1), "VALID", (1, 1, 1), 1),
    "temporal, dilated": ((1, 7, 2, 3, 4), (3, 1, 1, 4, 6), (1, 1, 1), (2, 0, 0), (2, 1, 1), 1),
    "three taps, six frames": ((2, 5, 5, 4, 6), (3, 3, 3, 6, 5), (1, 2, 1), ((2, 1), (1, 1), (0, 1)), (1, 1, 2), 1),
    "three taps, five frames": ((1, 7, 4, 4, 5), (3, 2, 3, 5, 7), (1, 1, 1), "VALID", (1, 1, 1), 1),
    "taps of padding": ((2, 2, 1, 3, 5), (5, 4, 3, 5, 6), (1, 2, 1), ((4, 3), (3, 2), (1, 1)), (1, 1, 1), 1),
    "taps of padding, strided": ((2, 1, 2, 1, 5), (4, 5, 3, 5, 6), (3, 2, 2), ((6, 3), (2, 4), (3, 2)), (1, 1, 1), 1),
    "spatial": ((2, 3, 5, 5, 6), (1, 3, 3, 6, 4), (1, 2, 2), (0, 1, 1), (1, 1, 1), 1),
    "grouped": ((2, 3, 4, 4, 6), (3, 3, 3, 3, 4), (1, 1, 1), (1, 1, 1), (1, 1, 1), 2),
    "depthwise": ((2, 3, 4, 4, 5), (3, 3, 3, 1, 5), (1, 1, 1), (1, 1, 1), (1, 1, 1), 5),
    "dilated": ((1, 7, 7, 7, 5), (3, 3, 3, 5, 3), (2, 1, 1), (2, 2, 2), (2, 2, 2), 1),
    "dilated, 3 channels": ((1, 7, 5, 5, 3), (3, 3, 3, 3, 3), (2, 1, 1), (2, 1, 1), (2, 1, 1), 1),
    "uneven padding": ((1, 4, 4, 5, 5), (4, 4, 4, 5, 2), (1, 1, 1), ((2, 1), (2, 1), (0, 3)), (1, 1, 1), 1),
    "SAME": ((1, 5, 6, 7, 5), (3, 4, 5, 5, 2), (2, 2, 3), "SAME", (1, 1, 1), 1),
    "VALID": ((1, 5, 6, 7, 5), (3, 4, 5, 5, 2), (2, 2, 2), "VALID", (1, 1, 1), 1),
    "VALID, stride 1": ((1, 4, 6, 7, 5), (2, 3, 4, 5, 2), (1, 1, 1), "VALID", (1, 1, 1), 1),
    "VALID, dilated": ((1, 4, 6, 9, 5), (2, 2, 3, 5, 2), (1, 1, 2), "VALID", (1, 2, 3), 1),
    "depthwise, strided": ((2, 5, 7, 6, 5), (3, 3, 3, 1, 5), (2, 1, 2), (1, 1, 1), (1, 1, 1), 5),
    "depthwise, dilated": ((1, 6, 7, 9, 3), (2, 3, 2, 1, 3), (1, 2, 1), ((0, 1), (2, 0), (1, 3)), (2, 1, 3), 3),
    "depthwise, temporal": ((2, 6, 3, 3, 4), (5, 1, 1, 1, 4), (1, 1, 1), (2, 0, 0), (1, 1, 1), 4),
    "depthwise, stride jumps": ((1, 5, 4, 4, 3), (1, 1, 1, 1, 3), (3, 2, 4), (1, 0, 0), (1, 1, 1), 3),
    "VALID, grouped": ((1, 2, 4, 4, 6), (1, 3, 3, 3, 4), (1, 1, 1), "VALID", (1, 1, 1), 2),
    "small picture": ((2, 3, 2, 2, 5), (3, 3, 3, 5, 6), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    "small picture, uneven": ((1, 3, 3, 2, 5), (2, 4, 3, 5, 3), (1, 2, 1), ((0, 1), (4, 2), (3, 2)), (1, 2, 2), 1),
    "small picture, wide": ((1, 2, 4, 5, 256), (1, 3, 3, 256, 4), (1, 2, 1), (0, 1, 1), (1, 1, 1), 1),
    "long stride": ((1, 9, 4, 4, 5), (2, 1, 1, 5, 2), (4, 3, 1), (0, 0, 0), (1, 1, 1), 1),
}


def _inputs(case: str, dtype=jnp.float32):
    x_shape, kernel_shape, strides, padding, dilation, groups = CASES[case]
    x = jax.random.normal(jax.random.key(0), x_shape, dtype)
    kernel = jax.random.normal(jax.random.key(1), kernel_shape) / np.sqrt(np.prod(kernel_shape[:4]))
    return x, kernel, functools.partial(conv3d, strides=strides, padding=padding, dilation=dilation, groups=groups)


@pytest.mark.parametrize(
    ("case", "form"),
    [(case, form) for case in CASES for form in ("folded", "folded, tap by tap")]
    + [(case, "shifted") for case in CASES if case.startswith("depthwise")],
)
def test_every_form_equals_direct_in_value_and_gradient(case, form, monkeypatch):
    x, kernel, conv = _inputs(case)
    if form == "folded, tap by tap":
        monkeypatch.setattr(folded, "SLOW_CHANNELS", 0)  # as for wide layers
        monkeypatch.setattr(folded, "LARGE_FLOPS", 0)  # as for large ones: the kernel's gradient in parts
    form = form.split(",")[0]

    @jax.jit  # one compilation a case
    def both(x, kernel):
        results = []
        for name in ("direct", form):
            y, pull = jax.vjp(lambda x, k, name=name: conv(x, k, implementation=name), x, kernel)
            results.append((y, *pull(jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))))
        return results

    direct, other = both(x, kernel)
    np.testing.assert_allclose(other[0], direct[0], rtol=0, atol=1e-5)
    for received, expected in zip(other[1:], direct[1:], strict=True):
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", [None, "direct", "folded"])
def test_literal_by_hand(implementation):
    # Frames 1, 2, 4 and the kernel (1, 10, 100) in time: no flip of the kernel, zeros outside.
    x = jnp.array([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1, 1)
    kernel = jnp.array([1.0, 10.0, 100.0]).reshape(3, 1, 1, 1, 1)
    y = conv3d(x, kernel, padding=(1, 0, 0), implementation=implementation)
    np.testing.assert_array_equal(y.ravel(), [210.0, 421.0, 42.0])


def test_is_a_sum_over_the_window():
    """The plainest form of the definition, on an odd and strided case."""
    x, kernel, conv = _inputs("strided, odd")
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0))).astype(np.float64)
    y = conv(x, kernel)
    assert y.shape == (2, 3, 4, 4, 5)
    for t, h, w in np.ndindex(3, 4, 4):
        window = padded[:, 2 * t : 2 * t + 3, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3]
        expected = np.einsum("nabci,abcio->no", window, np.asarray(kernel, np.float64))
        np.testing.assert_allclose(y[:, t, h, w], expected, atol=1e-5)


def _convolutions(case, **options):
    """Shapes of what the 2-D convolutions of ``folded`` multiply."""
    x, kernel, conv = _inputs(case, **options)
    jaxpr = jax.make_jaxpr(lambda x: conv(x, kernel, implementation="folded"))(x)
    return [
        [v.aval.shape for v in equation.invars]
        for equation in _equations(jaxpr.jaxpr)
        if equation.primitive.name == "conv_general_dilated"
    ]


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                yield from _equations(value.jaxpr)


def test_taps_that_see_only_padding_are_not_computed(monkeypatch):
    monkeypatch.setattr(folded, "SLOW_CHANNELS", 0)
    assert len(_convolutions("one frame")) == 1
    assert {kernel[:2] for _, kernel in _convolutions("one row")} == {(1, 3)}


@pytest.mark.parametrize(("dtype", "frames"), [("float32", 2 * 12), ("bfloat16", 2 * (4 + 5 + 5))])
def test_three_taps_in_time_are_four_convolutions_for_two_frames(dtype, frames, monkeypatch):
    """Six output frames of two samples; rounded to bfloat16, sums of frames would lose too much."""
    monkeypatch.setattr(folded, "SLOW_CHANNELS", 0)
    assert sum(x[0] for x, _ in _convolutions("three taps, six frames", dtype=dtype)) == frames


@pytest.mark.parametrize(("case", "channels"), [("stem", 2 * 4), ("dense", 3 * 6)])
def test_few_channels_become_more(case, channels):
    """What a 2-D convolution has then: two output frames of 4 channels in a stem, else three input frames of 6."""
    x, kernel, conv = _inputs(case)
    equations = jax.make_jaxpr(lambda x: conv(x, kernel, implementation="folded"))(x).eqns
    convolution = next(equation for equation in equations if "conv_general_dilated" in str(equation))
    assert channels in convolution.invars[1].aval.shape[2:]


@pytest.mark.parametrize("implementation", ["direct", "folded"])
def test_where_no_tap_sees_a_frame_the_result_is_zero(implementation):
    """Strides may jump over the only frame: output frames 0 and 1 see the padding before and after it."""
    x, kernel = jnp.ones((2, 1, 5, 4, 6)), jnp.ones((1, 3, 1, 6, 7))
    y = conv3d(x, kernel, (2, 2, 1), (1, 1, 0), implementation=implementation)
    np.testing.assert_array_equal(y, np.zeros((2, 2, 3, 4, 7), np.float32), strict=True)


@pytest.mark.parametrize("implementation", ["direct", "folded"])
def test_permuting_the_batch_permutes_the_result(implementation):
    x, kernel, conv = _inputs("dense")
    conv = jax.jit(functools.partial(conv, implementation=implementation))
    np.testing.assert_allclose(conv(x[::-1], kernel), conv(x, kernel)[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("case", "implementation"),
    [(case, form) for case in ("stem", "dense", "pointwise, strided") for form in ("direct", "folded")]
    + [("depthwise, strided", "shifted")],
)
def test_bfloat16_in_bfloat16_out(case, implementation):
    x, kernel, conv = _inputs(case, jnp.bfloat16)

    @jax.jit
    def run(x, kernel):
        y, pull = jax.vjp(lambda x, k: conv(x, k, implementation=implementation), x, kernel)
        return y, conv(x.astype(jnp.float32), kernel), pull(y)

    y, exact, grads = run(x, kernel)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.05)
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize(
    ("case", "implementation"),
    [(case, form) for case in ("dense", "grouped", "depthwise") for form in ("direct", "folded")]
    + [("depthwise", "shifted")],
)
@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 4, "model": 2}], ids=["data", "data and model"])
def test_data_sharding_moves_no_sample(case, implementation, axes, monkeypatch):
    monkeypatch.setattr(folded, "LARGE_FLOPS", 0)
    """The compiled text gathers nothing; the kernel's gradient is summed over the devices, and by the right ones."""
    x, kernel, conv = _inputs(case)
    x = jax.random.normal(jax.random.key(2), (8, *x.shape[1:]))
    mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))
    by_sample, everywhere = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (("data",), ()))

    def both(x, kernel):
        y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, implementation=implementation), x, kernel)
        return y, *pull(jnp.sin(y))

    alone = jax.jit(both)(x, kernel)
    shardings = {"in_shardings": (by_sample, everywhere), "out_shardings": (by_sample, by_sample, everywhere)}
    compiled = jax.jit(both, **shardings).lower(x, kernel).compile()
    moves = re.findall(r" (all-[a-z]+|collective-[a-z]+|reduce-scatter)(?:-start)?\(", compiled.as_text())
    assert set(moves) == {"all-reduce"}
    apart = compiled(*jax.device_put((x, kernel), shardings["in_shardings"]))
    for received, expected in zip(apart, alone, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("dense", {}),
        ("dense", {"LARGE_FLOPS": 0}),
        ("dense", {"SLOW_CHANNELS": 0}),
        ("three taps, six frames", {"SLOW_CHANNELS": 0}),
        ("temporal, long", {}),
    ],
)
def test_folded_has_forward_mode_and_second_derivatives(case, settings, monkeypatch):
    for name, value in settings.items():
        monkeypatch.setattr(folded, name, value)
    x, kernel, conv = _inputs(case)

    @jax.jit
    def both(x, kernel):
        results = []
        for name in ("direct", "folded"):

            def loss(x, kernel, name=name):
                return (conv(x, kernel, implementation=name) ** 2).sum()

            results.append(jax.jvp(jax.grad(loss, argnums=(0, 1)), (x, kernel), (x, kernel)))
        return results

    for expected, received in zip(*map(jax.tree.leaves, both(x, kernel)), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-3)


def test_shifted_can_be_differentiated_twice():
    x, kernel, conv = _inputs("depthwise, strided")

    def bend(implementation):
        gradient = jax.grad(lambda x, k: jnp.sin(conv(x, k, implementation=implementation)).sum(), (0, 1))
        return jax.grad(lambda k: sum(jnp.sum(g**2) for g in gradient(x, k)))(kernel)

    np.testing.assert_allclose(jax.jit(bend, static_argnums=0)("shifted"), bend("direct"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("case", "form"), [("temporal", "folded"), ("depthwise", "shifted")])
def test_none_takes_the_fastest_on_cpu_and_direct_elsewhere(case, form, monkeypatch):
    x, kernel, conv = _inputs(case)

    def primitives(**options):
        return str(jax.make_jaxpr(lambda x: conv(x, kernel, **options))(x))

    assert primitives() == primitives(implementation=form) != primitives(implementation="direct")
    monkeypatch.setattr(convolution.jax, "default_backend", lambda: "gpu")
    assert primitives() == primitives(implementation="direct")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"implementation": "foldet"},
            r"implementation must be one of direct, folded, shifted, pallas, received .* mean 'folded'\?",
        ),
        ({"strides": (1, 0, 1)}, r"strides must be three numbers >= 1 \(T, H, W\), received strides=\(1, 0, 1\)\."),
        ({"dilation": (1, 1)}, r"dilation must be three numbers >= 1"),
        ({"padding": "SAMe"}, r"padding must be 'SAME', 'VALID' or three numbers or pairs, received padding='SAMe'\."),
        ({"padding": (1, 1)}, r"padding must have three entries \(T, H, W\), received padding=\(1, 1\)\."),
        ({"groups": 4}, r"received I=6, groups=4"),
        ({"implementation": "shifted"}, r"must have a depthwise kernel .* received groups=1, I=6, O=7\."),
        (
            {"padding": (0, 0, 0), "dilation": (2, 1, 1)},
            r"fit into the padded input, received 4 \+ 0 \+ 0 along T .* 5",
        ),
    ],
)
def test_errors_name_the_rule_and_the_value(change, message):
    x, kernel = jnp.zeros((2, 4, 5, 6, 6)), jnp.zeros((3, 3, 3, 6, 7))
    with pytest.raises(ValueError, match=message):
        conv3d(x, kernel, **change)


def test_wrong_rank_is_an_error():
    with pytest.raises(ValueError, match=r"x must have the axes N T H W I .* received shapes \(4, 5, 6, 6\)"):
        conv3d(jnp.zeros((4, 5, 6, 6)), jnp.zeros((3, 3, 3, 6, 7)))
