"""U2S around whole networks."""

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models import cost
from jaxvid.models.universal_to_specific import VARIANTS, universal_to_specific
from jaxvid.ops.confusing_classes import weight_similarity

K = 5
VIDEO = jax.random.normal(jax.random.key(0), (3, 4, 32, 32, 3))


def narrow(name="r3d_18"):
    return models.build(name, K, width=4, conv="direct").clone(stage_sizes=(1, 1, 1, 1))


@pytest.fixture(scope="module")
def network():
    return narrow()


@pytest.fixture(scope="module")
def full(network, drawn, jit):
    """Its variables with two confused pairs, and what comes of them."""
    model = universal_to_specific(network)
    variables = drawn(model, (4, 32, 32))
    confusing = np.eye(K, dtype=np.float32)
    for pair in ((0, 1), (1, 2)):
        confusing[pair] = confusing[pair[::-1]] = 1
    variables["batch_stats"]["u2s"]["confusing"] = jnp.asarray(confusing)
    run = jit(lambda variables: model.apply(variables, VIDEO, mutable=["side", "losses", "masks"]))
    return model, variables, *run(variables)


def test_what_is_shared_is_stored_once(network, full):
    _, variables, *_ = full
    plain = dict(cost.variable_shapes(network))
    for name in ("params", "batch_stats"):
        own = {block: tree for block, tree in variables[name].items() if block != "u2s"}
        assert jax.tree.structure(own) == jax.tree.structure(plain[name])
    params, specific = variables["params"], variables["params"]["u2s"]["specific"]
    assert set(specific) == {"stage3", "stage4", "head"}
    for block, tree in specific.items():
        assert jax.tree.map(np.shape, tree) == jax.tree.map(np.shape, params[block])


def test_the_universal_network_is_the_network(network, full, jit):
    _, variables, _, sown = full
    plain = {name: {k: v for k, v in variables[name].items() if k != "u2s"} for name in ("params", "batch_stats")}
    expected = jit(network.apply)(plain, VIDEO)
    np.testing.assert_allclose(sown["side"]["u2s"]["universal/logits"], expected, rtol=1e-5, atol=1e-5)


def test_the_specific_network_is_the_network_with_masked_features(network, full, jit):
    """The plain network with the other weights in its upper stages, and a mask before its head."""
    _, variables, _, sown = full
    mixed = {
        name: {k: v for k, v in variables[name].items() if k != "u2s"}
        | dict(variables[name]["u2s"]["specific"])
        for name in ("params", "batch_stats")
    }  # fmt: skip
    masks, confusing = np.asarray(sown["masks"]["u2s"]["all"]), np.asarray(variables["batch_stats"]["u2s"]["confusing"])
    chosen = np.argmax(sown["side"]["u2s"]["universal/logits"], axis=-1)
    mask = np.stack([m[..., confusing[c] > 0].mean(-1) for m, c in zip(masks, chosen, strict=True)])[..., None]
    np.testing.assert_allclose(sown["masks"]["u2s"]["selected"], mask, rtol=1e-4, atol=1e-5)

    def masked(variables, mask):
        def intercept(call, args, kwargs, context):
            output = call(*args, **kwargs)
            last = context.module.path == ("stage4",) and context.method_name == "__call__"
            return output * jax.nn.sigmoid(mask) if last else output

        with nn.intercept_methods(intercept):
            return network.apply(variables, VIDEO)

    found = sown["side"]["u2s"]["specific/logits"]
    np.testing.assert_allclose(found, jit(masked)(mixed, mask), rtol=1e-4, atol=1e-4)


def test_logits_are_those_of_the_mean_score(full):
    _, _, logits, sown = full
    scores = [jax.nn.softmax(each) for each in sown["side"]["u2s"].values()]
    assert len(scores) == 3
    np.testing.assert_allclose(jnp.exp(logits), sum(scores) / 3, rtol=1e-5, atol=1e-6)


def test_masks_speak_by_their_means(full):
    _, _, _, sown = full
    expected = sown["masks"]["u2s"]["all"].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(sown["side"]["u2s"]["mask/logits"], expected, rtol=1e-5, atol=1e-5)


def test_an_oracle_asks_for_the_class(network, full, jit):
    _, variables, _, sown = full
    oracle = universal_to_specific(network, oracle=True)
    run = jit(lambda variables: oracle.apply(variables, VIDEO, mutable=["side"])[1]["side"]["u2s"]["specific/logits"])
    right = np.argmax(sown["side"]["u2s"]["universal/logits"], axis=-1)
    told = run({**variables, "given": {"label": right}})
    np.testing.assert_allclose(told, sown["side"]["u2s"]["specific/logits"], rtol=1e-5, atol=1e-5)
    other = run({**variables, "given": {"label": (right + 3) % K}})
    assert not np.allclose(told, other, atol=1e-3)
    with pytest.raises(ValueError, match="an oracle must be given the collection 'given'"):
        oracle.apply(variables, VIDEO)


def test_the_variants_have_their_parts(network):
    shapes = {name: cost.variable_shapes(universal_to_specific(network, variant=name)) for name in VARIANTS}
    parts = {name: set(tree["params"]["u2s"]) for name, tree in shapes.items()}
    alone = {"specific"}
    assert parts == {
        "full": alone | {"mask"},
        "simple": alone | {"mask"},
        "soft": alone | {"mask"},
        "no_mask": alone,
        "non_local": alone | {"non_local"},
    }
    assert {name for name, tree in shapes.items() if "confusing" not in tree["batch_stats"]["u2s"]} == {
        "no_mask",
        "non_local",
    }


def test_the_simple_one_has_the_mask_of_the_predicted_class_alone(network, full, jit):
    """And what regularises the masks of the confused ones stays."""
    _, variables, _, sown = full
    simple = universal_to_specific(network, variant="simple")
    found = jit(lambda v: simple.apply(v, VIDEO, mutable=["side", "losses", "masks"])[1])(variables)
    chosen = np.argmax(sown["side"]["u2s"]["universal/logits"], axis=-1)
    own = np.stack([m[..., c] for m, c in zip(found["masks"]["u2s"]["all"], chosen, strict=True)])
    np.testing.assert_allclose(found["masks"]["u2s"]["selected"][..., 0], own, rtol=1e-5, atol=1e-6)
    term = sown["losses"]["u2s"]["category_regularization"]
    assert float(found["losses"]["u2s"]["category_regularization"]) == pytest.approx(float(term))


def test_the_regularised_weights_are_those_of_the_masks(full, jit):
    """Equation 4: the columns of the point-wise convolution; nothing else has a gradient."""
    model, variables, _, _sown = full

    def term(params):
        _, found = model.apply({**variables, "params": params}, VIDEO, mutable=["losses", "side"])
        return found["losses"]["u2s"]["category_regularization"]

    value, gradients = jit(jax.value_and_grad(term))(variables["params"])
    kernel = variables["params"]["u2s"]["mask"]["kernel"]
    expected = weight_similarity(kernel, variables["batch_stats"]["u2s"]["confusing"])
    assert float(value) == pytest.approx(0.5 * float(expected), rel=1e-5)
    flat = flax.traverse_util.flatten_dict(gradients, sep="/")
    moved = {path for path, leaf in flat.items() if np.asarray(leaf).any()}
    assert moved == {"u2s/mask/kernel"}


@pytest.mark.parametrize("variant", ["no_mask", "non_local"])
def test_without_masks_the_specific_network_is_a_second_one(variant, network, drawn, jit):
    """A non-local block starts as the identity."""
    model = universal_to_specific(network, variant=variant)
    variables = drawn(model, (4, 32, 32))
    for name in ("params", "batch_stats"):
        own = {block: variables[name][block] for block in ("stage3", "stage4", "head") if block in variables[name]}
        variables[name]["u2s"]["specific"] = own
    if variant == "non_local":
        norm = variables["params"]["u2s"]["non_local"]["norm"]
        norm["scale"], norm["bias"] = jnp.zeros(32), jnp.zeros(32)
    sown = jit(lambda v: model.apply(v, VIDEO, mutable=["side", "losses"]))(variables)[1]
    side = sown["side"]["u2s"]
    assert set(side) == {"universal/logits", "specific/logits"}
    np.testing.assert_allclose(side["specific/logits"], side["universal/logits"], rtol=1e-5, atol=1e-5)
    assert "losses" not in sown


@pytest.mark.slow
def test_the_network_starts_as_without(network, jit):
    key = jax.random.key(3)
    ours, plain = (jit(model.init)(key, VIDEO) for model in (universal_to_specific(network), network))
    for name in ("params", "batch_stats"):
        own = {block: tree for block, tree in ours[name].items() if block != "u2s"}
        jax.tree.map(np.testing.assert_array_equal, own, dict(plain[name]))


def train_terms(model, variables):
    """A function of the parameters that all networks and the regularisation are part of."""

    def total(params):
        _, sown = model.apply(
            {**variables, "params": params}, VIDEO, train=True, mutable=["side", "losses", "batch_stats"]
        )
        values = [*jax.tree.leaves(sown["side"]), *jax.tree.leaves(sown["losses"])]
        return sum(jnp.sum(jnp.sin(value.astype(jnp.float32))) for value in values)

    return total


@pytest.mark.slow
def test_rematerialised_it_is_the_same(full, jit):
    model, variables, *_ = full
    again = universal_to_specific(model.network.clone(remat=True))
    grads = [jit(jax.grad(train_terms(each, variables)))(variables["params"]) for each in (model, again)]
    flat = [flax.traverse_util.flatten_dict(each, sep="/") for each in grads]
    assert set(flat[0]) == set(flat[1])
    for path, leaf in flat[0].items():
        scale = float(jnp.abs(leaf).max()) + 1e-6
        np.testing.assert_allclose(flat[1][path], leaf, rtol=1e-3, atol=1e-3 * scale, err_msg=path)


@pytest.mark.slow
def test_of_two_classes_neither_need_be_confused(jit):
    """Nothing is regularised then, and every gradient is finite; in bfloat16 logits and masks are float32."""
    network = models.build("r3d_18", 2, width=4, conv="direct", dtype="bfloat16").clone(stage_sizes=(1, 1, 1, 1))
    model = universal_to_specific(network)
    variables = jit(model.init)(jax.random.key(0), VIDEO)
    np.testing.assert_array_equal(variables["batch_stats"]["u2s"]["confusing"], np.eye(2))
    grads = jit(jax.grad(train_terms(model, variables)))(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    logits, sown = jit(lambda v: model.apply(v, VIDEO, mutable=["side", "losses", "masks"]))(variables)
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, sown))} == {np.dtype(np.float32)}
    assert float(sown["losses"]["u2s"]["category_regularization"]) == 0


QUICK = ("u2s_resnet_50", "tsm_r50", "resnet2d_18")
FAMILIES = (*QUICK, "x3d_s", "srtg_r3d_18", "mfnet", "i3d", "mtnet_s", "densenet2d_121", "ir_csn_50")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)
def test_any_network_with_one_pathway(name):
    network = models.build(name, K, width=4 if name != "i3d" else 8)
    model = universal_to_specific(network, shared_stages=1)
    shapes = cost.variable_shapes(model)
    last = f"stage{len(network.stage_sizes)}"
    specific = shapes["params"]["u2s"]["specific"]
    assert {"stem", "stage1"}.isdisjoint(specific)
    assert {last, "head"} <= set(specific)


def test_several_pathways_are_refused():
    model = universal_to_specific(models.build("slowfast_r50_4x16", K, width=8))
    with pytest.raises(ValueError, match="must have one array behind stage4, received several"):
        cost.variable_shapes(model, (32, 64, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "whole"}, "variant must be one of"),
        ({"mask_function": "tanh"}, "mask_function must be one of"),
        ({"shared_stages": 4}, r"shared_stages must be in \[0, 4\), received shared_stages=4"),
        ({"regularization": -1.0}, "regularization must be >= 0"),
    ],
)
def test_impossible_options(network, options, message):
    with pytest.raises(ValueError, match=message):
        universal_to_specific(network, **options)
