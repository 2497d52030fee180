"""Class Regularization: golden transcription, literals, laws, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops import class_factors, class_regularize

RATES = (0.9, 0.8, 0.7, 0.6)


@pytest.fixture(scope="module")
def data(golden):
    return golden("class_regularisation_transcription")


@pytest.fixture(scope="module")
def inputs(data):
    """``[N T H W C]`` activations and ``[K C]`` class weights."""
    return jnp.asarray(data["a"].transpose(0, 2, 3, 4, 1), jnp.float32), jnp.asarray(data["Wi"], jnp.float32)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("normalization", ["recommended", "literal"])
def test_equals_the_transcription(data, inputs, rate, normalization):
    received, index = class_regularize(*inputs, affection_rate=rate, normalization=normalization)
    expected = data[f"out_{normalization}_lam{rate}"].transpose(0, 2, 3, 4, 1)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(index, data["c_sum"])
    assert index.dtype == jnp.int32


@pytest.mark.parametrize("rate", RATES)
def test_the_range_of_all_classes_equals_the_transcription(data, inputs, rate):
    pooled = jnp.mean(inputs[0], axis=(1, 2, 3))
    factors, _ = class_factors(pooled, inputs[1], affection_rate=rate, scope="all")
    np.testing.assert_allclose(factors, data[f"recommended_globalnorm_lam{rate}"], rtol=1e-4, atol=1e-5)


def test_the_elementwise_choice_equals_the_transcription(data, inputs):
    _, index = class_regularize(*inputs, affection_rate=0.9, class_choice="elementwise")
    np.testing.assert_array_equal(index, data["c_elementmax"])
    assert not np.array_equal(data["c_elementmax"], data["c_sum"])


WEIGHTS = jnp.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])


def test_by_hand():
    # Scores: 1 + 2 = 3 and 3 for the first sample (the first of equals), 0 and 3 for the second.
    pooled = jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    factors, index = class_factors(pooled, WEIGHTS, affection_rate=0.6)
    assert index.tolist() == [0, 1]
    np.testing.assert_allclose(factors, [[0.6, 1.0, 1.4], [1.4, 0.6, 0.6]], rtol=1e-6)
    factors, _ = class_factors(pooled, WEIGHTS, affection_rate=0.6, scope="all")
    np.testing.assert_allclose(factors, [[0.6, 0.6 + 0.8 / 3, 0.6 + 1.6 / 3], [1.4, 0.6, 0.6]], rtol=1e-6)
    factors, _ = class_factors(pooled, WEIGHTS, affection_rate=0.6, normalization="literal")
    np.testing.assert_allclose(factors, [[0.0, 0.12, 0.24], [0.24, 0.0, 0.0]], rtol=1e-6)


def test_the_two_choices_differ():
    pooled, weights = jnp.array([[1.0, 1.0]]), jnp.array([[2.0, 2.0], [3.0, 0.0]])
    assert class_factors(pooled, weights, affection_rate=0.9, class_choice="sum")[1].tolist() == [0]
    assert class_factors(pooled, weights, affection_rate=0.9, class_choice="elementwise")[1].tolist() == [1]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("scope", ["selected", "all"])
def test_rate_1_is_the_identity(inputs, dtype, scope):
    features = inputs[0].astype(dtype)
    received, _ = class_regularize(features, inputs[1], affection_rate=1.0, scope=scope)
    assert received.dtype == dtype
    np.testing.assert_array_equal(received, features)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
def test_the_factors_fill_their_range(inputs, rate):
    pooled = jnp.mean(inputs[0], axis=(1, 2, 3))
    factors, _ = class_factors(pooled, inputs[1], affection_rate=rate)
    np.testing.assert_allclose(factors.min(axis=-1), rate, rtol=1e-6)
    np.testing.assert_allclose(factors.max(axis=-1), 2 - rate, rtol=1e-6)
    literal, _ = class_factors(pooled, inputs[1], affection_rate=rate, normalization="literal")
    np.testing.assert_allclose(literal.max(axis=-1), rate * (1 - rate), rtol=1e-6)


@pytest.mark.parametrize("class_choice", ["sum", "elementwise"])
def test_no_scale_of_either_matters(inputs, class_choice):
    pooled, weights = jnp.mean(inputs[0], axis=(1, 2, 3)), inputs[1]
    factors, index = class_factors(pooled, weights, affection_rate=0.7, class_choice=class_choice)
    for scale_pooled, scale_weights in ((2.0**-20, 1.0), (1.0, 2.0**-20), (2.0**20, 2.0**20)):
        scaled = class_factors(
            scale_pooled * pooled, scale_weights * weights, affection_rate=0.7, class_choice=class_choice
        )
        np.testing.assert_array_equal(scaled[0], factors)
        np.testing.assert_array_equal(scaled[1], index)


@pytest.mark.parametrize("normalization", ["recommended", "literal"])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_equal_weights_change_nothing(inputs, normalization, value):
    def total(features, weights):
        return jnp.sum(class_regularize(features, weights, affection_rate=0.6, normalization=normalization)[0])

    weights = jnp.full_like(inputs[1], value)
    received, _ = class_regularize(inputs[0], weights, affection_rate=0.6, normalization=normalization)
    np.testing.assert_array_equal(received, inputs[0])
    np.testing.assert_array_equal(jax.grad(total, argnums=1)(inputs[0], weights), 0)


def test_gradients_go_through_the_chosen_row_alone(inputs):
    features, weights = inputs
    cotangent = jax.random.normal(jax.random.key(0), features.shape)

    def total(features, weights):
        return jnp.sum(cotangent * class_regularize(features, weights, affection_rate=0.6)[0])

    of_features, of_weights = jax.grad(total, argnums=(0, 1))(features, weights)
    factors, index = class_factors(jnp.mean(features, axis=(1, 2, 3)), weights, affection_rate=0.6)
    # As if the factors did not depend on the features: the choice, which does, has no gradient.
    np.testing.assert_allclose(of_features, cotangent * factors[:, None, None, None, :], rtol=1e-6)
    others = np.setdiff1d(np.arange(len(weights)), index)
    np.testing.assert_array_equal(of_weights[others], 0)
    # By finite differences of a weight that is neither minimum nor maximum of its row.
    row = int(index[0])
    column = int(np.argsort(weights[row])[len(weights[row]) // 2 + 1])
    step = jnp.zeros_like(weights).at[row, column].set(1e-2)
    slope = (total(features, weights + step) - total(features, weights - step)) / 2e-2
    np.testing.assert_allclose(of_weights[row, column], slope, rtol=2e-3)
    assert abs(slope) > 1e-2


def test_bfloat16_features_are_scaled_in_float32(inputs):
    features = inputs[0].astype(jnp.bfloat16)
    received, index = class_regularize(features, inputs[1], affection_rate=0.9)
    exact, same = class_regularize(features.astype(jnp.float32), inputs[1], affection_rate=0.9)
    np.testing.assert_array_equal(index, same)
    np.testing.assert_array_equal(received, exact.astype(jnp.bfloat16))  # rounded once, at the end


def test_one_frame_one_position_and_jit(inputs):
    features, weights = inputs[0][:, :1, :1, :1], inputs[1]
    eager = class_regularize(features, weights, affection_rate=0.9)
    compiled = jax.jit(lambda rate: class_regularize(features, weights, affection_rate=rate))(0.9)
    np.testing.assert_allclose(compiled[0], eager[0], rtol=1e-6)
    np.testing.assert_array_equal(compiled[1], eager[1])
    np.testing.assert_array_equal(eager[1], jnp.argmax(features[:, 0, 0, 0] @ weights.T, axis=-1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"affection_rate": 1.5}, r"affection_rate must be in \[0, 1\], received affection_rate=1\.5\."),
        ({"normalization": "litral"}, r"normalization must be one of recommended, literal, .* did you mean 'literal'"),
        ({"scope": "none"}, r"scope must be one of selected, all, received scope='none'"),
        ({"class_choice": "max"}, r"class_choice must be one of sum, elementwise, received class_choice='max'"),
    ],
)
def test_what_cannot_be_is_named(inputs, options, message):
    with pytest.raises(ValueError, match=message):
        class_regularize(*inputs, **({"affection_rate": 0.9} | options))


def test_shapes_that_do_not_belong_together(inputs):
    with pytest.raises(ValueError, match=r"axes K C with the 6 channels of the features, received shape \(7, 5\)"):
        class_regularize(inputs[0], inputs[1][:, :5], affection_rate=0.9)
    with pytest.raises(ValueError, match=r"features must have the axes N T H W C, received shape \(3, 6\)"):
        class_regularize(inputs[0][:, 0, 0, 0], inputs[1], affection_rate=0.9)
