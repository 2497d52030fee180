"""Max, average and stochastic pooling: Flax's pooling, literals, laws of probability, gradients, ties, padding."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import ops
from jaxvid.ops import max_pool3d

CASES = {
    "after the stem": ((2, 5, 8, 7, 3), (3, 3, 3), (2, 2, 2), ((1, 1), (1, 1), (1, 1))),
    "no padding": ((2, 4, 5, 6, 2), (2, 2, 2), (2, 2, 2), ((0, 0), (0, 0), (0, 0))),
    "space only": ((1, 3, 7, 7, 2), (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
    "one frame": ((2, 1, 4, 4, 2), (3, 3, 3), (2, 2, 2), ((1, 1), (1, 1), (1, 1))),
    "uneven": ((1, 4, 5, 6, 2), (2, 3, 4), (1, 3, 2), ((0, 1), (2, 0), (3, 1))),
    "subsample": ((1, 5, 5, 5, 2), (1, 1, 1), (2, 2, 2), ((0, 0), (0, 0), (0, 0))),
}


def value_and_pull(function, x, cotangent):
    """The value, and the gradient for a cotangent, as one compiled program."""

    @jax.jit
    def run(x, cotangent):
        y, pull = jax.vjp(function, x)
        return y, pull(cotangent)[0]

    return run(x, cotangent)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_equals_flax_in_value_and_gradient(case, ties):
    shape, window, strides, padding = CASES[case]
    x = jax.random.normal(jax.random.key(0), shape)
    x = jnp.round(x) if ties else x
    expected, pull_expected = jax.vjp(lambda x: nn.max_pool(x, window, strides, padding), x)
    received, pull_received = jax.vjp(jax.jit(lambda x: max_pool3d(x, window, strides, padding)), x)
    np.testing.assert_array_equal(received, expected)
    # Distinct integers add up exactly in any order, so that a single misplaced gradient would show.
    cotangent = jnp.arange(expected.size, dtype=jnp.float32).reshape(expected.shape)
    np.testing.assert_array_equal(pull_received(cotangent)[0], pull_expected(cotangent)[0])


def test_negative_values_win_over_the_padding():
    x = jnp.full((1, 2, 2, 2, 1), -5.0)
    np.testing.assert_array_equal(max_pool3d(x, (3, 3, 3), (2, 2, 2), (1, 1, 1)), jnp.full((1, 1, 1, 1, 1), -5.0))


@pytest.mark.parametrize("position", range(5))
def test_nan_is_the_result_of_its_windows_only(position):
    x = jnp.arange(5.0).at[position].set(jnp.nan).reshape(1, 1, 1, 5, 1)
    y = max_pool3d(x, (1, 1, 3), (1, 1, 2), (0, 0, 1)).ravel()  # windows {0 1}, {1 2 3}, {3 4}
    assert np.isnan(y).tolist() == [position <= 1, 1 <= position <= 3, position >= 3]


def test_stride_defaults_to_the_window_and_bfloat16_stays():
    x = jnp.arange(8.0, dtype=jnp.bfloat16).reshape(1, 2, 2, 2, 1)
    y = max_pool3d(x, (2, 1, 2))
    assert y.dtype == jnp.bfloat16
    assert y.ravel().tolist() == [5.0, 7.0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", ["max", "avg"])
@pytest.mark.parametrize("case", ["after the stem", "uneven", "subsample"])
def test_equals_its_reference_in_value_and_gradient(case, name, dtype):
    shape, window, strides, padding = CASES[case]
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    function, reference = getattr(ops, f"{name}_pool3d"), getattr(ops, f"{name}_pool3d_reference")
    shape = jax.eval_shape(lambda x: reference(x, window, strides, padding), x).shape
    cotangent = jax.random.normal(jax.random.key(1), shape, dtype)
    received = value_and_pull(lambda x: function(x, window, strides, padding), x, cotangent)
    expected = value_and_pull(lambda x: reference(x, window, strides, padding), x, cotangent)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == jnp.float32 else {"rtol": 0.02, "atol": 0.02}
    for a, b in zip(received, expected, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), **tolerance)


@pytest.mark.parametrize("case", ["after the stem", "no padding", "uneven"])
def test_average_equals_flax_without_its_padding(case):
    shape, window, strides, padding = CASES[case]
    x = jax.random.normal(jax.random.key(0), shape)
    expected = nn.avg_pool(x, window, strides, padding, count_include_pad=False)
    np.testing.assert_allclose(ops.avg_pool3d(x, window, strides, padding), expected, rtol=1e-5, atol=1e-6)


def test_the_average_of_a_constant_is_the_constant_at_the_border_too():
    x = jnp.full((1, 4, 5, 6, 2), 3.0)
    y = ops.avg_pool3d(x, (3, 3, 3), (1, 2, 1), (2, 1, (0, 2)))
    np.testing.assert_allclose(y, jnp.full_like(y, 3.0), rtol=1e-6)


def test_average_by_hand_and_bfloat16_sums_in_float32():
    x = jnp.array([1.0, 2.0, 6.0]).reshape(1, 1, 1, 3, 1)
    assert ops.avg_pool3d(x, (1, 1, 2), (1, 1, 1), (0, 0, 1)).ravel().tolist() == [1.0, 1.5, 4.0, 6.0]
    ones = jnp.ones((1, 1, 32, 32, 1), jnp.bfloat16)  # in bfloat16 a sum of ones stops at 256
    assert ops.avg_pool3d(ones, (1, 32, 32)).item() == 1.0


def test_a_large_window_is_summed_axis_by_axis():
    x = jax.random.normal(jax.random.key(0), (1, 5, 7, 9, 2))
    options = (3, 4, 6), (2, 3, 1), ((1, 1), (0, 2), (4, 1))
    expected = ops.avg_pool3d_reference(x, *options)
    cotangent = jax.random.normal(jax.random.key(1), expected.shape)
    received, pulled = value_and_pull(lambda x: ops.avg_pool3d(x, *options), x, cotangent)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)
    gradient = value_and_pull(lambda x: ops.avg_pool3d_reference(x, *options), x, cotangent)[1]
    np.testing.assert_allclose(pulled, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("case", ["after the stem", "no padding", "subsample"])
def test_stochastic_pooling_equals_its_reference(case, train):
    shape, window, strides, padding = CASES[case]
    x = jax.nn.relu(jax.random.normal(jax.random.key(0), shape))
    key = jax.random.key(5) if train else None
    shape = jax.eval_shape(lambda x: ops.avg_pool3d(x, window, strides, padding), x).shape
    cotangent = jax.random.normal(jax.random.key(1), shape)
    received, expected = (
        value_and_pull(lambda x, f=function: f(x, window, strides, padding, key=key), x, cotangent)
        for function in (ops.stochastic_pool3d, ops.stochastic_pool3d_reference)
    )
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_the_mean_is_weighted_by_the_values():
    x = jnp.array([1.0, 3.0, -2.0, 0.0, 0.0, -1.0]).reshape(1, 1, 1, 6, 1)
    assert ops.stochastic_pool3d(x, (1, 1, 3), key=None).ravel().tolist() == [2.5, 0.0]
    assert ops.stochastic_pool3d(x, (1, 1, 3), (1, 1, 1), (0, 0, (2, 0)), key=None).ravel().tolist()[:2] == [1.0, 2.5]


def test_draws_come_as_often_as_their_share_and_their_mean_is_the_one_of_evaluation():
    values = jnp.array([0.5, 0.0, 1.5, 3.0])
    draws = 20_000
    x = jnp.broadcast_to(values.reshape(1, 1, 2, 2, 1), (draws, 1, 2, 2, 1))
    y = ops.stochastic_pool3d(x, (1, 2, 2), key=jax.random.key(0)).ravel()
    shares = jnp.mean(y[:, None] == values, axis=0)
    expected = values / 5
    # Four standard deviations of a share of so many draws.
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / draws**0.5)
    assert shares[1] == 0
    mean = ops.stochastic_pool3d(x[:1], (1, 2, 2), key=None).item()
    np.testing.assert_allclose(jnp.mean(y), mean, atol=4 * float(jnp.std(values)) / draws**0.5)
    assert mean == pytest.approx((0.25 + 2.25 + 9) / 5)


def test_the_expectation_over_keys_with_overlapping_padded_windows():
    x = jax.nn.relu(jax.random.normal(jax.random.key(0), (1, 3, 4, 4, 2)))
    options = ((3, 3, 3), (2, 2, 2), (1, 1, 1))
    keys = jax.random.split(jax.random.key(1), 4000)
    draws = jax.lax.map(lambda key: ops.stochastic_pool3d(x, *options, key=key), keys, batch_size=500)
    mean = ops.stochastic_pool3d(x, *options, key=None)
    error = jnp.abs(jnp.mean(draws, axis=0) - mean)
    assert (error <= 5 * jnp.std(draws, axis=0) / len(keys) ** 0.5 + 1e-6).all()


def test_a_draw_is_a_value_of_its_window_and_depends_on_the_key_only():
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 4, 3))
    pool = jax.jit(lambda x, key: ops.stochastic_pool3d(x, (2, 2, 2), key=key))
    y = pool(x, jax.random.key(7))
    windows = x.reshape(2, 2, 2, 2, 2, 2, 2, 3).transpose(0, 1, 3, 5, 7, 2, 4, 6).reshape(2, 2, 2, 2, 3, 8)
    assert (windows == y[..., None]).any(axis=-1).all()
    np.testing.assert_array_equal(pool(x, jax.random.key(7)), y)
    np.testing.assert_array_equal(ops.stochastic_pool3d(x, (2, 2, 2), key=jax.random.key(7)), y)
    assert 0.5 < jnp.mean(pool(x, jax.random.key(8)) != y) < 1


def test_the_gradient_of_a_draw_goes_to_the_drawn_entry_and_that_of_the_mean_is_true():
    x = jax.random.uniform(jax.random.key(0), (1, 2, 4, 4, 2)) + 0.1
    twos = jnp.full((1, 1, 2, 2, 2), 2.0)
    y, grad = value_and_pull(lambda x: ops.stochastic_pool3d(x, (2, 2, 2), key=jax.random.key(3)), x, twos)
    assert jnp.sum(grad != 0) == y.size
    np.testing.assert_array_equal(jnp.sort(x[grad == 2.0]), jnp.sort(y.ravel()))

    def mean(x):
        return ops.stochastic_pool3d(x, (2, 2, 2), key=None)[0, 0, 0, 0, 0]

    a = np.asarray(x[0, :, :2, :2, 0], float)
    expected = 2 * a / a.sum() - (a**2).sum() / a.sum() ** 2
    np.testing.assert_allclose(jax.jit(jax.grad(mean))(x)[0, :, :2, :2, 0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("key", [None, 0])
@pytest.mark.parametrize("value", [0.0, -3.0])
def test_windows_without_a_positive_value_give_zero_and_no_gradient(key, value):
    key = None if key is None else jax.random.key(key)
    x = jnp.full((1, 2, 3, 4, 2), value)
    ones = jnp.ones((1, 3, 4, 5, 2))
    y, grad = value_and_pull(lambda x: ops.stochastic_pool3d(x, (2, 2, 2), (1, 1, 1), (1, 1, 1), key=key), x, ones)
    np.testing.assert_array_equal(y, jnp.zeros_like(y))
    np.testing.assert_array_equal(grad, jnp.zeros_like(x))


def test_a_value_far_above_the_others_and_tiny_values_are_drawn_rightly():
    x = jnp.array([1e-30, 1e30, 0.0, 1e-30, 0.0, 0.0]).reshape(1, 1, 1, 6, 1)
    for key in (None, jax.random.key(0)):
        y = ops.stochastic_pool3d(x, (1, 1, 3), key=key).ravel()
        np.testing.assert_allclose(y, [1e30, 1e-30], rtol=1e-6)
    for value in (jnp.nan, jnp.inf):
        y = ops.stochastic_pool3d(x.at[0, 0, 0, 4, 0].set(value), (1, 1, 3), key=jax.random.key(0)).ravel()
        np.testing.assert_array_equal(y, jnp.array([1e30, value]))


def test_bfloat16_stays():
    x = jax.random.uniform(jax.random.key(0), (1, 2, 4, 4, 3), jnp.bfloat16)
    for key in (None, jax.random.key(0)):
        pool = jax.jit(lambda x, key=key: ops.stochastic_pool3d(x, (2, 2, 2), key=key))
        y, exact = pool(x), pool(x.astype(jnp.float32))
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        ((2, 4, 4, 1), {"window": (2, 2, 2)}, r"x must have the axes N T H W C"),
        ((1, 4, 4, 4, 1), {"window": (2, 2)}, r"window and strides an entry for each .* window=\(2, 2\)"),
        ((1, 4, 4, 4, 1), {"window": (2, 2, 2), "padding": (2, 0, 0)}, r"axis 0 the padding must be >= 0 and smaller"),
        ((1, 4, 4, 4, 1), {"window": (1, 1, 5)}, r"axis 2 .* size 4, window 5, padding \(0, 0\)"),
        ((1, 4, 4, 4, 1), {"window": (1, 2, 1), "strides": (1, 0, 1)}, r">= 1, received .* strides=\(1, 0, 1\)"),
        ((1, 4, 4, 4, 1), {"window": (2, 2, 2), "padding": "same"}, r"'SAME', 'VALID' .* received padding='same'"),
    ],
)
def test_errors_name_the_rule_and_the_value(x, options, message):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=message):
        max_pool3d(jnp.zeros(x), **options)
    for name in ("max_pool3d_reference", "avg_pool3d", "avg_pool3d_reference"):
        with pytest.raises(ValueError, match=message):
            getattr(ops, name)(jnp.zeros(x), **options)
    for name in ("stochastic_pool3d", "stochastic_pool3d_reference"):
        with pytest.raises(ValueError, match=message):
            getattr(ops, name)(jnp.zeros(x), **options, key=key)


def test_named_padding_is_that_of_xla():
    x = jnp.arange(1.0, 6.0).reshape(1, 1, 1, 5, 1)
    for padding, most, mean in (("SAME", [2, 4, 5], [1.5, 3.5, 5]), ("VALID", [2, 4], [1.5, 3.5])):
        window = {"window": (1, 1, 2), "padding": padding}
        np.testing.assert_array_equal(max_pool3d(x, **window).ravel(), most)
        np.testing.assert_array_equal(ops.avg_pool3d(x, **window).ravel(), mean)
        np.testing.assert_array_equal(ops.max_pool3d_reference(x, **window).ravel(), most)


def test_the_gradient_of_the_averages_gradient():
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 4, 1))
    options = ((2, 3, 2), (1, 2, 1), (1, 1, 0))

    def curvature(function):
        gradient = jax.grad(lambda x: jnp.sum(function(x, *options) ** 3))
        return jax.jit(jax.grad(lambda x: jnp.sum(gradient(x) ** 2)))(x)

    np.testing.assert_allclose(curvature(ops.avg_pool3d), curvature(ops.avg_pool3d_reference), rtol=1e-4, atol=1e-5)
