"""The temporal gate: golden transcription of the thesis' equations, literals, laws, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops import cyclic_consistency, gate_product, soft_nearest_neighbor


def test_equals_the_transcription_of_the_thesis(golden):
    data = golden("srtg_paper_gate_transcription")
    a, b = (jnp.asarray(data[name].transpose(0, 2, 1)) for name in "ab")
    for source, target, soft, index in (
        (a, b, "soft_b_for_a", "idx_a2b"),
        (b, a, "soft_a_for_b", "idx_b2a"),
    ):
        received_soft, received_index = soft_nearest_neighbor(source, target)
        np.testing.assert_allclose(received_soft, data[soft], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(received_index, data[index])
    assert set(data["gate"].tolist()) == {True, False}
    np.testing.assert_array_equal(cyclic_consistency(a, b), data["gate"])


def test_soft_neighbour_by_hand():
    # Squared distances of 0 to the steps 0 and 1 are 0 and 1: weights 1 and e^-1, so 0.27 of step 1, nearer to step 0.
    soft, index = soft_nearest_neighbor(jnp.zeros((1, 1, 1)), jnp.array([[[0.0], [1.0]]]))
    np.testing.assert_allclose(soft.item(), np.exp(-1) / (1 + np.exp(-1)), rtol=1e-6)
    assert index.item() == 0
    assert index.dtype == jnp.int32


def test_first_of_equally_near_steps():
    _, index = soft_nearest_neighbor(jnp.zeros((1, 3, 2)), jnp.ones((1, 4, 2)))
    np.testing.assert_array_equal(index, [[0, 0, 0]])


def test_one_step_always_agrees():
    a = jax.random.normal(jax.random.key(0), (4, 1, 3))
    assert cyclic_consistency(a, -9 * a).tolist() == [True] * 4


def test_distinct_steps_agree_with_themselves_and_not_with_their_reverse():
    a = 10 * jnp.arange(5.0)[None, :, None] * jnp.ones((2, 1, 3))
    assert cyclic_consistency(a, a + 0.1).tolist() == [True, True]
    assert cyclic_consistency(a, a[:, ::-1]).tolist() == [False, False]
    constant = jnp.ones_like(a)
    assert cyclic_consistency(constant, constant).tolist() == [False, False]


def test_both_directions_must_agree():
    # Every step of a finds its own step in b, but b's two last steps both find a's last one.
    a = jnp.array([[[0.0], [40.0], [90.0]]])
    b = jnp.array([[[0.0], [70.0], [90.0]]])
    assert soft_nearest_neighbor(a, b)[1].tolist() == [[0, 1, 2]]
    assert soft_nearest_neighbor(b, a)[1].tolist() == [[0, 2, 2]]
    assert not cyclic_consistency(a, b).item()
    assert not cyclic_consistency(b, a).item()


def test_decision_is_per_sample_and_equivariant_over_the_batch():
    a = 10 * jnp.arange(5.0)[None, :, None] * jnp.ones((3, 1, 3))
    b = a.at[1].set(a[1, ::-1])
    run = jax.jit(cyclic_consistency)
    assert run(a, b).tolist() == [True, False, True]
    assert run(a[::-1], b[::-1]).tolist() == [True, False, True]
    assert run(jnp.roll(a, 1, 0), jnp.roll(b, 1, 0)).tolist() == [True, True, False]


def test_large_values_do_not_overflow():
    """The authors' code divides by exp of the sum of distances; here values of hundreds are harmless."""
    a = 500.0 * jnp.arange(4.0)[None, :, None] * jnp.ones((1, 1, 64))
    soft, _ = soft_nearest_neighbor(a, a)
    np.testing.assert_allclose(soft, a)
    assert cyclic_consistency(a, a).tolist() == [True]


def test_bfloat16_is_decided_in_float32():
    a = (10 * jnp.arange(4.0)[None, :, None] * jnp.ones((1, 1, 3))).astype(jnp.bfloat16)
    assert soft_nearest_neighbor(a, a)[0].dtype == jnp.bfloat16
    assert cyclic_consistency(a, a).tolist() == [True]


def test_decision_has_no_gradient():
    a = jax.random.normal(jax.random.key(0), (2, 3, 4))

    def weighted(a, b):
        return jnp.sum(jnp.where(cyclic_consistency(a, b), 1.0, 2.0))

    for grad in jax.grad(weighted, (0, 1))(a, a + 0.1):
        np.testing.assert_array_equal(grad, np.zeros_like(grad))


def _gated(dtype=jnp.float32):
    x = jax.random.normal(jax.random.key(0), (3, 2, 2, 3, 4), dtype)
    h = jax.random.normal(jax.random.key(1), (3, 2, 4))
    return x, h, jnp.array([True, False, True])


@pytest.mark.parametrize("gradient", ["hard", "straight_through"])
def test_open_samples_are_scaled_and_closed_ones_untouched(gradient):
    x, h, is_open = _gated()
    y = jax.jit(lambda *a: gate_product(*a, gradient=gradient))(x, h, is_open)
    np.testing.assert_array_equal(y[1], x[1])
    for n in (0, 2):
        np.testing.assert_allclose(y[n], x[n] * h[n, :, None, None, :], rtol=1e-6)
    x, h, is_open = _gated(jnp.bfloat16)
    assert gate_product(x, h, is_open, gradient=gradient).dtype == jnp.bfloat16


@pytest.mark.parametrize("gradient", ["hard", "straight_through"])
def test_gradient_of_open_and_closed_samples(gradient):
    x, h, is_open = _gated()
    cotangent = jax.random.normal(jax.random.key(2), x.shape)
    _, pull = jax.vjp(lambda x, h: gate_product(x, h, is_open, gradient=gradient), x, h)
    x_bar, h_bar = pull(cotangent)
    as_if_open = jnp.sum(x * cotangent, (2, 3)), h[:, :, None, None, :] * cotangent
    for n in range(3):
        if is_open[n] or gradient == "straight_through":
            np.testing.assert_allclose(h_bar[n], as_if_open[0][n], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(x_bar[n], as_if_open[1][n], rtol=1e-6)
        else:
            np.testing.assert_array_equal(h_bar[n], np.zeros((2, 4)))
            np.testing.assert_array_equal(x_bar[n], cotangent[n])


def test_errors_name_the_rule_and_the_value():
    with pytest.raises(ValueError, match=r"one shape N T C, received \(2, 3, 4\) and \(2, 4, 4\)\."):
        cyclic_consistency(jnp.zeros((2, 3, 4)), jnp.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match=r"gradient must be one of hard, straight.* mean 'straight_through'\?"):
        gate_product(*_gated(), gradient="straight")
