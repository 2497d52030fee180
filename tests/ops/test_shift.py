"""The temporal shift: the golden file of TSM, a literal, its reference, its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops import temporal_shift, temporal_shift_reference


@pytest.mark.data
@pytest.mark.parametrize("function", [temporal_shift, temporal_shift_reference])
def test_equals_the_public_code(golden, function):
    data = golden("tsm_shift")
    frames = int(data["n_segment"])
    x, expected = (data[k].reshape(-1, frames, *data[k].shape[1:]).transpose(0, 1, 3, 4, 2) for k in "xy")
    np.testing.assert_array_equal(jax.jit(function, static_argnums=1)(x, int(data["fold_div"])), expected)


def test_by_hand():
    x = jnp.arange(1.0, 13.0).reshape(1, 3, 1, 1, 4)
    expected = [[5.0, 0.0, 3.0, 4.0], [9.0, 2.0, 7.0, 8.0], [0.0, 6.0, 11.0, 12.0]]
    assert temporal_shift(x, 4)[0, :, 0, 0].tolist() == expected


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("shape", "fold_div"), [((2, 5, 3, 2, 16), 8), ((1, 2, 2, 2, 7), 3), ((2, 1, 2, 2, 4), 2)])
def test_equals_its_reference_in_value_and_gradient(shape, fold_div, dtype):
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    cotangent = jax.random.normal(jax.random.key(1), shape, dtype)
    received, pull = jax.vjp(jax.jit(lambda x: temporal_shift(x, fold_div)), x)
    expected, pull_expected = jax.vjp(lambda x: temporal_shift_reference(x, fold_div), x)
    assert received.dtype == dtype
    np.testing.assert_array_equal(received, expected)
    np.testing.assert_array_equal(pull(cotangent)[0], pull_expected(cotangent)[0])


def test_the_gradient_is_the_shift_of_the_other_direction():
    """<shift(x), y> = <x, gradient(y)>, and forward differences agree: the map is linear."""
    x, y = jax.random.normal(jax.random.key(0), (2, 2, 4, 3, 3, 8))
    shifted, pull = jax.vjp(temporal_shift, x)
    np.testing.assert_allclose(jnp.vdot(shifted, y), jnp.vdot(x, pull(y)[0]), rtol=1e-5)
    np.testing.assert_array_equal(jax.jvp(temporal_shift, (x,), (y,))[1], temporal_shift(y))


def test_one_frame_keeps_only_its_unshifted_channels():
    received = temporal_shift(jnp.ones((1, 1, 1, 1, 8)), 4).ravel()
    assert received.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_what_is_not_a_number_stays_in_its_channels():
    x = jnp.ones((1, 3, 1, 1, 8)).at[0, 1, 0, 0, 7].set(jnp.nan).at[0, 1, 0, 0, 0].set(jnp.inf)
    y = temporal_shift(x)
    assert np.argwhere(~np.isfinite(y)).tolist() == [[0, 0, 0, 0, 0], [0, 1, 0, 0, 7]]


@pytest.mark.parametrize("function", [temporal_shift, temporal_shift_reference])
@pytest.mark.parametrize(
    ("shape", "fold_div", "message"),
    [
        ((8, 4, 4, 16), 8, r"x must have the axes N T H W C, received shape \(8, 4, 4, 16\)\."),
        ((1, 2, 1, 1, 16), 1, r"fold_div must be from 2 to the number of channels 16, received fold_div=1\."),
        ((1, 2, 1, 1, 6), 8, r"fold_div must be from 2 to the number of channels 6, received fold_div=8\."),
    ],
)
def test_errors_name_the_rule_and_the_value(function, shape, fold_div, message):
    with pytest.raises(ValueError, match=message):
        function(jnp.zeros(shape), fold_div)
