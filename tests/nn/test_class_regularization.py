"""The module: the golden map, what gets a gradient, several arrays, the trained rate, what is sown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn import ClassRegularization
from jaxvid.ops import class_regularize

HEAD = jax.random.normal(jax.random.key(1), (10, 7))
X = jax.random.normal(jax.random.key(2), (3, 2, 3, 3, 6))


def variables(module, x=X):
    return module.init(jax.random.key(0), x, HEAD)


def test_equals_the_transcription(golden):
    data = golden("class_regularisation_transcription")
    x = jnp.asarray(data["a"].transpose(0, 2, 3, 4, 1), jnp.float32)
    params = {"kernel": jnp.asarray(data["Wproj_C_Cp"].T, jnp.float32)}
    received, sown = ClassRegularization(0.6).apply(
        {"params": params}, x, jnp.asarray(data["Wfc"].T, jnp.float32), mutable=["side"]
    )
    expected = data["out_recommended_lam0.6"].transpose(0, 2, 3, 4, 1)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(sown["side"]["class_index"], data["c_sum"])


def test_fresh_variables_are_the_map_alone():
    shapes = jax.tree.map(jnp.shape, variables(ClassRegularization(0.9)))
    assert shapes == {"params": {"kernel": (10, 6)}}
    with_all = ClassRegularization(0.9, train_affection_rate=True, use_bias=True)
    assert jax.tree.map(jnp.shape, variables(with_all)) == {
        "params": {"kernel": (10, 6), "bias": (6,), "affection_logit": ()}
    }


def test_the_head_gets_no_gradient():
    module = ClassRegularization(0.6)
    start = variables(module)

    def loss(start, x, head):
        return jnp.sum(jnp.square(module.apply(start, x, head)))

    of_module, of_x, of_head = jax.grad(loss, argnums=(0, 1, 2))(start, X, HEAD)
    np.testing.assert_array_equal(of_head, 0)
    assert float(jnp.abs(of_module["params"]["kernel"]).max()) > 1e-3
    assert float(jnp.abs(of_x).min()) > 0


def test_several_arrays_are_one_side_by_side():
    module = ClassRegularization(0.6)
    start = variables(module)
    whole, sown = module.apply(start, X, HEAD, mutable=["side"])
    parts, same = module.apply(start, (X[..., :4], X[..., 4:]), HEAD, mutable=["side"])
    np.testing.assert_allclose(jnp.concatenate(parts, axis=-1), whole, rtol=1e-6)
    np.testing.assert_array_equal(same["side"]["class_index"], sown["side"]["class_index"])


def test_a_trained_rate_starts_where_it_is_put_and_has_a_gradient():
    fixed, trained = ClassRegularization(0.7), ClassRegularization(0.7, train_affection_rate=True)
    start = variables(trained)
    kernel = {"params": {"kernel": start["params"]["kernel"]}}
    np.testing.assert_allclose(trained.apply(start, X, HEAD), fixed.apply(kernel, X, HEAD), rtol=1e-5)

    def loss(start):
        return jnp.sum(jnp.square(trained.apply(start, X, HEAD)))

    assert abs(float(jax.grad(loss)(start)["params"]["affection_logit"])) > 1e-3
    with pytest.raises(ValueError, match=r"inside of \(0, 1\) where it is trained, received affection_rate=1\.0\."):
        variables(ClassRegularization(1.0, train_affection_rate=True))


def test_options_reach_the_operator():
    for options in (
        {"normalization": "literal"},
        {"scope": "all"},
        {"class_choice": "elementwise"},
    ):
        fields = {"normalization_scope" if name == "scope" else name: value for name, value in options.items()}
        module = ClassRegularization(0.6, **fields)
        start = variables(module)
        weights = jax.nn.relu(HEAD.T @ start["params"]["kernel"])
        expected, _ = class_regularize(X, weights, affection_rate=0.6, **options)
        np.testing.assert_allclose(module.apply(start, X, HEAD), expected, rtol=1e-4)
    start = variables(ClassRegularization(0.6, use_bias=True))
    start["params"]["bias"] = jnp.arange(6.0)
    weights = jax.nn.relu(HEAD.T @ start["params"]["kernel"] + jnp.arange(6.0))
    expected, _ = class_regularize(X, weights, affection_rate=0.6)
    np.testing.assert_allclose(ClassRegularization(0.6, use_bias=True).apply(start, X, HEAD), expected, rtol=1e-4)


def test_bfloat16_keeps_its_dtype_and_float32_parameters():
    module = ClassRegularization(0.6)
    start = variables(module, X.astype(jnp.bfloat16))
    assert start["params"]["kernel"].dtype == jnp.float32
    received = module.apply(start, X.astype(jnp.bfloat16), HEAD)
    assert received.dtype == jnp.bfloat16
    np.testing.assert_allclose(received.astype(jnp.float32), module.apply(start, X, HEAD), rtol=2e-2, atol=2e-2)
