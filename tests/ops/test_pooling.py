"""max_pool3d against Flax's pooling, in value and gradient, ties included."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops import max_pool3d

CASES = {
    "after the stem": ((2, 5, 8, 7, 3), (3, 3, 3), (2, 2, 2), ((1, 1), (1, 1), (1, 1))),
    "no padding": ((2, 4, 5, 6, 2), (2, 2, 2), (2, 2, 2), ((0, 0), (0, 0), (0, 0))),
    "space only": ((1, 3, 7, 7, 2), (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
    "one frame": ((2, 1, 4, 4, 2), (3, 3, 3), (2, 2, 2), ((1, 1), (1, 1), (1, 1))),
    "uneven": ((1, 4, 5, 6, 2), (2, 3, 4), (1, 3, 2), ((0, 1), (2, 0), (3, 1))),
    "subsample": ((1, 5, 5, 5, 2), (1, 1, 1), (2, 2, 2), ((0, 0), (0, 0), (0, 0))),
}


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


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        ((2, 4, 4, 1), {"window": (2, 2, 2)}, r"x must have the axes N T H W C"),
        ((1, 4, 4, 4, 1), {"window": (2, 2)}, r"window, strides and padding three entries"),
        ((1, 4, 4, 4, 1), {"window": (2, 2, 2), "padding": (2, 0, 0)}, r"along T the padding must be >= 0 and smaller"),
        ((1, 4, 4, 4, 1), {"window": (1, 1, 5)}, r"along W .* size 4, window 5, stride 5, padding \(0, 0\)"),
        ((1, 4, 4, 4, 1), {"window": (1, 2, 1), "strides": (1, 0, 1)}, r"along H .* stride 0"),
    ],
)
def test_errors_name_the_rule_and_the_value(x, options, message):
    with pytest.raises(ValueError, match=message):
        max_pool3d(jnp.zeros(x), **options)
