"""Class Regularization behind the stages of whole networks."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.class_regularized import class_regularized

STAGES = ("stage1", "stage2", "stage3", "stage4")
NUM_CLASSES = 5
# Name -> frames of a clip, and the channels of the head's input and of the regularised stages at the width below.
NETWORKS = {
    "r3d_18": (4, 32, (4, 8, 16, 32)),
    "x3d_s": (2, 2048, (8, 8, 8, 16)),
    "i3d": (8, 64, (30, 52, 64)),
    "slowfast_r50_4x16": (8, 144, (20, 36, 72, 144)),  # both pathways side by side
    "mtnet_s": (4, 2048, (8, 8, 8, 16)),
}


def narrow(name, **options):
    network = models.build(name, NUM_CLASSES, width=4, conv="direct", **options)
    return network if name == "i3d" else network.clone(stage_sizes=(1, 1, 1, 1))


def video(frames, clips=2):
    return jax.random.normal(jax.random.key(0), (clips, frames, 32, 32, 3))


def of_network(variables):
    """The network's own variables."""
    params = {name: tree for name, tree in variables["params"].items() if name != "class_regularization"}
    return {**variables, "params": params}


QUICK = ("r3d_18", "x3d_s")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NETWORKS]
)
def test_at_rate_1_it_is_the_network(name, drawn, jit):
    frames, inputs, channels = NETWORKS[name]
    network = narrow(name)
    identity = class_regularized(name, network, affection_rates=(1.0,) * len(channels))
    variables = drawn(identity, (frames, 32, 32))
    added = variables["params"]["class_regularization"]
    stages = STAGES[-len(channels) :]
    assert {stage: leaf["kernel"].shape for stage, leaf in added.items()} == {
        stage: (inputs, wide) for stage, wide in zip(stages, channels, strict=True)
    }
    assert jax.tree.structure(of_network(variables)) == jax.tree.structure(dict(cost.variable_shapes(network)))

    @jit
    def both(variables, x):
        logits, sown = identity.apply(variables, x, mutable=["side"])
        return network.apply(of_network(variables), x), logits, sown["side"]["class_regularization"]

    plain, regularised, chosen = both(variables, video(frames))
    np.testing.assert_allclose(regularised, plain, rtol=1e-5, atol=1e-5 * float(jnp.abs(plain).max()))
    assert {stage: leaf["class_index"].shape for stage, leaf in chosen.items()} == dict.fromkeys(stages, (2,))


@pytest.fixture(scope="module")
def regularised(jit):
    """A regularised r3d, its variables, and what came of one clip: the gradients, and all that can be captured."""
    model = class_regularized("r3d_18", narrow("r3d_18"))
    x = video(4)
    variables = jit(model.init)(jax.random.key(0), x)
    # As in a trained network: at its start the classifier is so small that nothing can be measured.
    variables["params"]["head"]["classifier"]["kernel"] *= 100
    cotangent = jax.random.normal(jax.random.key(1), (2, NUM_CLASSES))

    def total(params, perturbations):
        logits, state = model.apply(
            {**variables, "params": params, "perturbations": perturbations}, x,
            mutable=["intermediates", "side"],
            capture_intermediates=lambda module, method: module.name in STAGES and method == "__call__",
        )  # fmt: skip
        return jnp.sum(cotangent * logits), (logits, state)

    @jit
    def run(params):
        _, state = model.apply(variables, x, mutable=["perturbations"])
        grads, (logits, state) = jax.grad(total, argnums=(0, 1), has_aux=True)(params, state["perturbations"])
        return grads, logits, state

    grads, logits, state = run(variables["params"])
    return model, variables, cotangent, grads, logits, state


def test_the_head_learns_from_its_own_input_alone(regularised):
    """No gradient reaches the classifier through the stages that read its kernel."""
    _, _, cotangent, (grads, _), _, state = regularised
    features = jnp.mean(state["intermediates"]["stage4"]["__call__"][0], axis=(1, 2, 3))
    np.testing.assert_allclose(grads["head"]["classifier"]["kernel"], features.T @ cotangent, rtol=1e-4, atol=1e-5)
    for stage in STAGES:
        assert float(jnp.abs(grads["class_regularization"][stage]["kernel"]).max()) > 1e-6


def test_a_stage_gives_what_the_next_one_gets(regularised):
    """Captured by its name is the regularised output, and the gradient of that name is the gradient of that."""
    _, variables, cotangent, (_, perturbations), logits, state = regularised
    last = state["intermediates"]["stage4"]["__call__"][0]
    kernel, bias = (variables["params"]["head"]["classifier"][name] for name in ("kernel", "bias"))
    np.testing.assert_allclose(jnp.mean(last, axis=(1, 2, 3)) @ kernel + bias, logits, rtol=1e-4, atol=1e-4)
    positions = np.prod(last.shape[1:4])
    expected = jnp.broadcast_to((cotangent @ kernel.T / positions)[:, None, None, None], last.shape)
    np.testing.assert_allclose(perturbations["stage4"]["output"], expected, rtol=1e-4, atol=1e-5)


def test_the_choice_is_that_of_the_operator(regularised):
    """Of the activations before they are scaled: they are the captured ones divided by the chosen row's factors."""
    _, variables, _, _, _, state = regularised
    head = variables["params"]["head"]["classifier"]["kernel"]
    for stage, rate in zip(STAGES, (0.9, 0.8, 0.7, 0.6), strict=True):
        kernel = variables["params"]["class_regularization"][stage]["kernel"]
        weights = jax.nn.relu(head.T @ kernel)
        chosen = state["side"]["class_regularization"][stage]["class_index"]
        row = weights[chosen]
        low, high = row.min(axis=-1, keepdims=True), row.max(axis=-1, keepdims=True)
        factors = rate + 2 * (1 - rate) * (row - low) / (high - low)
        pooled = jnp.mean(state["intermediates"][stage]["__call__"][0], axis=(1, 2, 3)) / factors
        np.testing.assert_array_equal(jnp.argmax(pooled @ weights.T, axis=-1), chosen)


def test_the_network_starts_as_without(regularised, jit):
    network = narrow("r3d_18")
    plain = flax.traverse_util.flatten_dict(jit(network.init)(jax.random.key(0), video(4)))
    ours = flax.traverse_util.flatten_dict(regularised[1])
    assert {path for path in ours if path not in plain} == {
        ("params", "class_regularization", stage, "kernel") for stage in STAGES
    }
    for path, leaf in plain.items():
        factor = 100 if path[1:] == ("head", "classifier", "kernel") else 1
        np.testing.assert_array_equal(ours[path], factor * leaf)


@pytest.mark.slow
def test_rematerialised_it_is_the_same(regularised, jit):
    _, variables, cotangent, (grads, _), logits, _ = regularised
    model = class_regularized("r3d_18", narrow("r3d_18", remat=True))

    def total(params):
        received = model.apply({**variables, "params": params}, video(4))
        return jnp.sum(cotangent * received), received

    again, received = jit(jax.grad(total, has_aux=True))(variables["params"])
    np.testing.assert_allclose(received, logits, rtol=1e-4, atol=1e-4)
    for stage in STAGES:
        name = ("class_regularization", stage, "kernel")
        expected = grads[name[0]][name[1]][name[2]]
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(again[name[0]][name[1]][name[2]], expected, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize(
    ("name", "increment", "biases"),
    [
        # The papers' figures hold 384,000 copies of the classifier's weights, 400 x 960, besides.
        *((name, 491_520, 960) for name in ("r3d_50", "r3d_101", "wide_r3d_50", "r2plus1d_50")),
        ("i3d", 1024 * (480 + 832 + 1024), 480 + 832 + 1024),
    ],
)
def test_what_it_adds(name, increment, biases):
    network = models.build(name, 400)
    plain = cost.count_parameters(network)
    assert cost.count_parameters(class_regularized(name, network)) - plain == increment
    assert cost.count_parameters(class_regularized(name, network, use_bias=True)) - plain == increment + biases


def test_trained_rates_are_parameters():
    model = class_regularized("r3d_18", narrow("r3d_18"), affection_rates=(0.7, 0.6), train_affection_rate=True)
    added = cost.variable_shapes(model)["params"]["class_regularization"]
    assert {stage: sorted(leaf) for stage, leaf in added.items()} == {
        stage: ["affection_logit", "kernel"] for stage in ("stage3", "stage4")
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"affection_rates": (0.9,) * 5}, r"at most one rate for each of 4 stages, received \(0\.9, "),
        ({"affection_rates": (1.1,)}, r"affection_rates must lie in \[0, 1\], received \(1\.1,\)\."),
        (
            {"affection_rates": (1.0,), "train_affection_rate": True},
            r"affection_rates must lie in \(0, 1\) where they are trained, received \(1\.0,\)\.",
        ),
        ({"normalization": "litral"}, r"normalization must be one of recommended, literal, .* did you mean 'literal'"),
        ({"scope": "none"}, r"scope must be one of selected, all, received scope='none'"),
        ({"class_choice": "max"}, r"class_choice must be one of sum, elementwise"),
    ],
)
def test_what_cannot_be_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        class_regularized("r3d_18", models.build("r3d_18", 5), **options)
