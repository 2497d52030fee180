"""softpool: golden numbers, the equality of its formulations, derivatives of both orders, extreme inputs and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvid.benchmarks.softpool_shapes import SMALL
from jaxvid.ops import soft_pooling as module
from jaxvid.ops import soft_pooling_form, soft_pooling_tpu, soft_pooling_xla, softpool, softpool_reference
from jaxvid.ops.pooling_windows import Windows

GOLDEN = [
    "1d_k2s2", "1d_k2s2_odd", "1d_k3s2_odd", "2d_big", "2d_k2s1", "2d_k2s2", "2d_k3s2_odd", "2d_odd_k2",
    "3d_big", "3d_k122", "3d_k2_odd", "3d_k2s2",
]  # fmt: skip


def _values_and_gradient(function, x, cotangent=None):
    @jax.jit
    def run(x):
        y, pull = jax.vjp(function, x)
        return y, pull(_cotangent(y) if cotangent is None else cotangent)[0]

    return run(x)


def _cotangent(y):
    return jnp.sin(jnp.arange(y.size, dtype=jnp.float32) + 1).reshape(y.shape).astype(y.dtype)


def _normal(shape, dtype=jnp.float32, scale=2.0):
    return (scale * jax.random.normal(jax.random.key(3), shape)).astype(dtype)


def _compare_with_golden(arrays):
    rank = arrays["x"].ndim - 2
    channels_last = {name: jnp.asarray(np.moveaxis(a, 1, -1)) for name, a in arrays.items() if a.ndim == rank + 2}
    x, cotangent = channels_last["x"], channels_last["cotangent"]
    window, strides = (np.broadcast_to(arrays[name].ravel(), rank).tolist() for name in ("kernel", "stride"))
    for function in (softpool, softpool_reference):
        y, gx = _values_and_gradient(lambda x, f=function: f(x, window, strides), x, cotangent)
        np.testing.assert_allclose(y, channels_last["y_paper_f64"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(gx, channels_last["gx_paper_f64"], rtol=1e-6, atol=2e-6)
    # The emulated CUDA backward is meaningful where it wrote nothing outside, and its 3-D form reads wrong places.
    if rank < 3 and arrays["refcuda_oob_writes"] == 0:
        _, gx = _values_and_gradient(lambda x: softpool(x, window, strides, gradient="reference"), x, cotangent)
        np.testing.assert_allclose(gx, channels_last["gx_refcuda_emul"], rtol=1e-5, atol=1e-5)
        return True
    return False


def test_golden_numbers_in_one_dimension(golden):
    assert _compare_with_golden(golden("softpool_1d_k2s2"))


@pytest.mark.data
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(golden, name):
    emulated = _compare_with_golden(golden(f"softpool_{name}"))
    assert emulated == (name in ("1d_k2s2", "2d_big", "2d_k2s2"))


def test_literal_by_hand():
    # Weights 1/4 and 3/4: y = 3/4 log 3; the derivatives are w (1 + x - y).
    log3 = np.log(3)
    y, gx = _values_and_gradient(
        lambda x: softpool(x, (2,)), jnp.array([0, log3]).reshape(1, 2, 1), jnp.ones((1, 1, 1))
    )
    np.testing.assert_allclose(y.ravel(), [0.75 * log3], rtol=1e-6)
    np.testing.assert_allclose(gx.ravel(), [0.25 * (1 - 0.75 * log3), 0.75 * (1 + 0.25 * log3)], rtol=1e-6)


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("by_axes", [False, True], ids=["taps", "axes"])
def test_equals_the_reference_in_value_and_gradient(case, by_axes, monkeypatch):
    if by_axes:
        monkeypatch.setattr(soft_pooling_xla, "MAX_TAPS", 0)
    x, options = _normal(case.shape), case[1:]
    expected_y, expected_gx = _values_and_gradient(lambda x: softpool_reference(x, *options), x)
    y, gx = _values_and_gradient(lambda x: softpool(x, *options), x)
    np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gx, expected_gx, rtol=1e-5, atol=5e-6)
    undifferentiated = jax.jit(lambda x: softpool(x, *options, implementation="xla"))(x)
    np.testing.assert_allclose(undifferentiated, expected_y, rtol=1e-5, atol=1e-6)
    assert np.abs(gx).max() > 0.1


def test_equals_flax_max_pool_in_shape_and_bounds():
    """A drop-in for max pooling: between the window's mean and its maximum, and of the same shape."""
    x = _normal((2, 7, 8, 3))
    window, strides, padding = (3, 2), (2, 2), ((1, 1), (0, 1))
    highest = jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0))
    )
    y = softpool(x, window, strides, padding)
    assert y.shape == highest.shape
    assert (y <= highest).all()
    assert (y >= softpool(x, window, strides, padding).min()).all()
    np.testing.assert_allclose(softpool(1e3 * x, window, strides, padding), 1e3 * highest, rtol=0.02)


def test_a_common_shift_moves_the_result_by_as_much():
    x = _normal((1, 6, 6, 2))
    np.testing.assert_allclose(softpool(x + 3, (2, 3)), softpool(x, (2, 3)) + 3, rtol=1e-5)


@pytest.mark.parametrize("by_axes", [False, True], ids=["taps", "axes"])
@pytest.mark.parametrize(
    ("values", "expected", "gradient"),
    [
        ([1e4, -1e4, 1e4, -1e4], 1e4, [0.5, 0, 0.5, 0]),
        ([1e4, 1e4 - 1, 0, 0], 1e4 - 1 / (1 + np.e), None),
        ([0, 0, 1e30, 0], 1e30, [0, 0, 1, 0]),
        ([7, 7, 7, 7], 7, [0.25] * 4),
        ([-1e4] * 4, -1e4, [0.25] * 4),
        ([-np.inf, 2, 2, -np.inf], 2, [0, 0.5, 0.5, 0]),
        ([-np.inf] * 4, -np.inf, [0.25] * 4),
        ([np.inf, 0, 0, -np.inf], np.inf, [1, 0, 0, 0]),
        ([np.nan, 0, 0, 0], np.nan, [np.nan] * 4),
    ],
)
def test_extreme_inputs(values, expected, gradient, by_axes, monkeypatch):
    if by_axes:
        monkeypatch.setattr(soft_pooling_xla, "MAX_TAPS", 0)
    x = jnp.array(values, jnp.float32).reshape(1, 2, 2, 1)
    if gradient is None:  # two values one apart, at a height where their squares' difference is lost
        w = np.array([np.e, 1]) / (1 + np.e)
        gradient = [w[0] * (1 + w[1]), w[1] * (1 - w[0]), 0, 0]
    for function in (softpool, softpool_reference):
        y, gx = _values_and_gradient(lambda x, f=function: f(x, (2, 2)), x, jnp.ones((1, 1, 1, 1)))
        np.testing.assert_allclose(y.ravel(), [np.float32(expected)], rtol=1e-7)
        if np.isfinite(values).all() or function is softpool:
            np.testing.assert_allclose(gx.ravel(), gradient, rtol=1e-6, atol=1e-7)


def test_padding_has_no_weight():
    x = jnp.full((1, 3, 3, 1), -5.0)
    for padding in ("SAME", ((1, 1), (1, 1)), (1, 1)):
        y, gx = _values_and_gradient(lambda x, p=padding: softpool(x, (3, 3), (1, 1), p), x, jnp.ones_like(x))
        np.testing.assert_allclose(y, x, rtol=1e-6)
        np.testing.assert_allclose(gx.sum(), 9, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_float32_inside(dtype):
    x = _normal((2, 4, 5, 6, 3), dtype)
    run = functools.partial(softpool, window=(3, 3, 3), strides=(1, 2, 2), padding="SAME")
    y, gx = _values_and_gradient(run, x)
    exact_y, exact_gx = _values_and_gradient(run, x.astype(jnp.float32), _cotangent(y).astype(jnp.float32))
    assert y.dtype == gx.dtype == dtype
    np.testing.assert_array_equal(y, exact_y.astype(dtype))
    # One rounding: compiled twice, a sum may fall on the other side of a tie.
    np.testing.assert_allclose(gx.astype(jnp.float32), exact_gx, rtol=float(jnp.finfo(dtype).eps), atol=1e-6)


@pytest.mark.parametrize("by_axes", [False, True], ids=["taps", "axes"])
def test_second_derivatives_equal_the_references(by_axes, monkeypatch):
    if by_axes:
        monkeypatch.setattr(soft_pooling_xla, "MAX_TAPS", 0)
    x = _normal((1, 4, 3, 2)).at[0, 0, 0, 0].set(-jnp.inf)
    direction = jnp.cos(jnp.arange(x.size)).reshape(x.shape)

    def hessian_product(function):
        def along(x):
            return (jax.grad(lambda x: jnp.sin(function(x, (3, 2), (1, 1), "SAME")).sum())(x) * direction).sum()

        return jax.jit(jax.grad(along))(x)

    expected = hessian_product(softpool_reference)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(hessian_product(softpool), expected, rtol=1e-4, atol=1e-5)


def test_the_reference_has_forward_mode_too():
    x = _normal((1, 5, 2))
    _, along = jax.jvp(lambda x: softpool_reference(x, (3,), (2,)), (x,), (jnp.ones_like(x),))
    np.testing.assert_allclose(along, np.ones((1, 2, 2)), rtol=1e-6)


def test_a_sharded_batch_stays_where_it_is():
    """The loop that keeps XLA's CPU compiler from fusing too much is over nothing, so it gathers nothing."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jax.device_put(_normal((8, 4, 4, 3)), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    grad = jax.jit(jax.grad(lambda x: softpool(x, (3, 3), (1, 1)).sum()))
    text = grad.lower(x).compile().as_text()
    assert not [name for name in ("all-gather", "all-reduce", "collective", "all-to-all") if name in text]
    assert grad(x).sharding.is_equivalent_to(x.sharding, x.ndim)
    np.testing.assert_allclose(grad(x), grad(np.asarray(x)), rtol=1e-6, atol=1e-6)


def test_is_batched_by_vmap():
    x = _normal((3, 2, 4, 4, 2))
    grad = jax.grad(lambda x: softpool(x, (2, 2)).sum())
    np.testing.assert_allclose(jax.vmap(grad)(x), grad(x.reshape(6, 4, 4, 2)).reshape(x.shape), rtol=1e-5, atol=1e-6)


def test_on_another_backend_the_statistics_are_computed_once(monkeypatch):
    """The loop that never runs is for CPU; elsewhere the program has half as many exponentials, and equal results."""
    x = _normal((2, 4, 4, 3))
    windows = Windows.of(x.shape, (2, 2), None, "VALID")
    on_cpu = str(jax.make_jaxpr(lambda x: soft_pooling_xla.FORM.statistics(x, windows))(x))
    expected = soft_pooling_xla.FORM.statistics(x, windows)
    monkeypatch.setattr(soft_pooling_xla.jax, "default_backend", lambda: "gpu")
    elsewhere = str(jax.make_jaxpr(lambda x: soft_pooling_xla.FORM.statistics(x, windows))(x))
    assert (on_cpu.count(" exp "), elsewhere.count(" exp ")) == (8, 4)
    assert "while" in on_cpu
    assert "while" not in elsewhere
    for received, value in zip(soft_pooling_xla.FORM.statistics(x, windows), expected, strict=True):
        np.testing.assert_allclose(received, value, rtol=1e-6)


def test_windows_of_thousands_of_taps_make_a_small_program():
    x = jnp.zeros((1, 8, 28, 28, 2))
    text = str(jax.make_jaxpr(jax.grad(lambda x: softpool(x, (8, 28, 28)).sum()))(x))
    assert len(text.splitlines()) < 400  # and 6272 taps
    y, gx = _values_and_gradient(lambda x: softpool(x, (8, 28, 28)), _normal(x.shape))
    expected, expected_gx = _values_and_gradient(
        lambda x: (jax.nn.softmax(x, (1, 2, 3)) * x).sum((1, 2, 3), keepdims=True), _normal(x.shape)
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    np.testing.assert_allclose(gx, expected_gx, rtol=1e-4, atol=1e-6)


@st.composite
def _problems(draw):
    rank = draw(st.integers(1, 3))
    axes = []
    for _ in range(rank):
        window = draw(st.integers(1, 3))
        low, high = draw(st.integers(0, window - 1)), draw(st.integers(0, window - 1))
        size = draw(st.integers(max(1, window - low - high), 6))
        axes.append((size, window, draw(st.integers(1, 4)), (low, high)))
    sizes, window, strides, pads = zip(*axes, strict=True)
    padding = draw(st.sampled_from(["SAME", pads]))
    shape = (draw(st.integers(1, 2)), *sizes, draw(st.integers(1, 3)))
    return shape, window, strides, padding, draw(st.integers(0, 9)), draw(st.sampled_from([0.1, 2.0, 30.0]))


@given(_problems(), st.sampled_from(["float32", "bfloat16", "float16"]))
@settings(max_examples=8, deadline=None)
def test_all_formulations_agree(problem, dtype):
    shape, window, strides, padding, seed, scale = problem
    x = (scale * np.random.default_rng(seed).normal(size=shape)).astype(dtype)
    windows = Windows.of(shape, window, strides, padding)
    expected_y, expected_gx = _plain(np.asarray(x, np.float64), windows)
    tolerance = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 1e-3}[dtype] * max(1, scale)

    @jax.jit  # one compilation a problem
    def both(x):
        results = []
        for most in (64, 0):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(soft_pooling_xla, "MAX_TAPS", most)
                y, pull = jax.vjp(lambda x: softpool(x, window, strides, padding), x)
                results.append((y, pull(jnp.ones_like(y))[0]))
        return results

    for y, gx in both(jnp.asarray(x)):
        assert y.dtype == gx.dtype == dtype
        np.testing.assert_allclose(np.asarray(y, np.float64), expected_y, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(np.asarray(gx, np.float64), expected_gx, rtol=tolerance, atol=8 * tolerance)


@pytest.mark.slow
@given(_problems(), st.sampled_from(["float32", "bfloat16"]))
@settings(max_examples=10, deadline=None)
def test_the_interpreted_tpu_kernels_agree(problem, dtype):
    shape, window, strides, padding, seed, scale = problem
    x = jnp.asarray((scale * np.random.default_rng(seed).normal(size=shape)).astype(dtype))
    windows = Windows.of(shape, window, strides, padding)
    tolerance = {"float32": 1e-5, "bfloat16": 1e-2}[dtype] * max(1, scale)
    results = [
        _values_and_gradient(lambda x, f=form: module._softpool(x, windows, f, "true"), x)
        for form in (soft_pooling_xla.FORM, soft_pooling_tpu.form(interpret=True))
    ]
    for expected, received in zip(*results, strict=True):
        expected, received = (v.astype(jnp.float32) for v in (expected, received))
        np.testing.assert_allclose(received, expected, rtol=tolerance, atol=8 * tolerance)


def _plain(x, windows):
    """The definition in float64 NumPy, window by window: values, and the gradient of their sum."""
    y, gx = np.zeros((x.shape[0], *windows.outs, x.shape[-1])), np.zeros_like(x)
    for place in np.ndindex(*windows.outs):
        inside = tuple(
            slice(max(0, o * s - low), min(n, o * s - low + k))
            for o, s, k, n, (low, _) in zip(
                place, windows.strides, windows.window, windows.sizes, windows.pads, strict=True
            )
        )
        values = x[(slice(None), *inside)]
        axes = tuple(range(1, values.ndim - 1))
        w = np.exp(values - values.max(axes, keepdims=True))
        w /= w.sum(axes, keepdims=True)
        y[(slice(None), *place)] = (w * values).sum(axes)
        gx[(slice(None), *inside)] += w * (1 + values - (w * values).sum(axes, keepdims=True))
    return y, gx


@given(_problems())
@settings(max_examples=4, deadline=None)
def test_gradients_equal_float64_finite_differences(problem):
    shape, window, strides, padding, seed, _ = problem
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        x, direction = jnp.asarray(rng.normal(size=shape)), rng.normal(size=shape)
        for function in (softpool, softpool_reference):
            run = jax.jit(jax.value_and_grad(lambda x, f=function: jnp.sin(f(x, window, strides, padding)).sum()))
            received = (run(x)[1] * direction).sum()
            assert received.dtype == jnp.float64
            step = 1e-5
            expected = (run(x + step * direction)[0] - run(x - step * direction)[0]) / (2 * step)
            np.testing.assert_allclose(received, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((2, 4, 3), ((2, 2),), "must have the axes N"),
        ((2, 4, 4, 4, 4, 3), ((2,) * 4,), "one to three spatial"),
        ((2, 4, 4, 3), ((2, 2), (1,)), r"strides=\(1,\)"),
        ((2, 4, 4, 3), ((2, 0),), r"must be >= 1, received window=\(2, 0\)"),
        ((2, 4, 4, 3), ((2, 2), (0, 1)), r"strides=\(0, 1\)"),
        ((2, 4, 4, 3), ((2, 2), None, "FULL"), "padding='FULL'"),
        ((2, 4, 4, 3), ((2, 2), None, (1,)), "must have 2 entries"),
        ((2, 4, 4, 3), ((2, 2), None, (0, 2)), "along spatial axis 1 .* smaller than the window"),
        ((2, 4, 4, 3), ((2, 2), None, (-1, 0)), "along spatial axis 0"),
        ((2, 4, 4, 3), ((2, 5),), "must fit, received size 4, window 5"),
    ],
)
def test_errors_name_the_rule_and_the_value(shape, arguments, message):
    for function in (softpool, softpool_reference):
        with pytest.raises(ValueError, match=message):
            function(jnp.zeros(shape), *arguments)


def test_errors_of_choices():
    x = jnp.zeros((1, 4, 2))
    with pytest.raises(ValueError, match=r"implementation='palas'; did you mean 'pallas'\?"):
        softpool(x, (2,), implementation="palas")
    with pytest.raises(ValueError, match="gradient must be one of true, reference"):
        softpool(x, (2,), gradient="refference")
    with pytest.raises(ValueError, match="float dtype, received int32"):
        softpool(jnp.zeros((1, 4, 2), jnp.int32), (2,))
    with pytest.raises(ValueError, match=r"needs a TPU or GPU as the default backend, received 'cpu'"):
        softpool(x, (2,), implementation="pallas")
    with pytest.raises(ValueError, match="at most 64 taps"):
        softpool(jnp.zeros((1, 99, 2)), (65,), implementation="pallas")


def test_the_limit_on_taps_is_the_forms():
    assert module.MAX_TAPS == soft_pooling_form.MAX_TAPS == soft_pooling_xla.MAX_TAPS == 64
