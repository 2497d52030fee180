"""What blocks return and what is sown comes beside the same logits, by name, and nothing is compiled twice."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models.universal_to_specific import universal_to_specific
from jaxvid.train.captured import OpenNetwork, _outputs
from jaxvid.train.step import make_apply

PIXELS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


class Small(nn.Module):
    """A dense layer in a block, and a mask of it; an oracle where it says so."""

    oracle: bool = False

    @nn.compact
    def __call__(self, video, train=False):
        x = nn.Dense(4, name="stage1")(video)
        self.sow("masks", "own", x[..., :1], init_fn=lambda: 0, reduce_fn=lambda _, new: new)
        return x.mean(axis=(1, 2, 3))


def _halved(outputs):
    return {name: value / 2 for name, value in outputs.items()}


@pytest.fixture(scope="module")
def small():
    variables = {"params": {"stage1": {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.zeros(4)}}}
    video = np.random.default_rng(0).integers(0, 256, (2, 1, 4, 5, 3), np.uint8)
    return OpenNetwork(make_apply(Small(), **PIXELS)), variables, video


def test_blocks_and_what_is_sown_come_beside_the_logits(small):
    network, variables, video = small
    logits, outputs = network.with_outputs(("stage1",), ("masks",))(variables, video)
    assert set(outputs) == {"stage1", "masks/own"}
    expected = (video / 255.0 - 0.5) / 0.25 @ np.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(outputs["stage1"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(outputs["masks/own"], outputs["stage1"][..., :1])
    np.testing.assert_allclose(logits, expected.mean(axis=(1, 2, 3)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, network(variables, video), rtol=1e-5)


def test_what_is_made_of_them_is_made_in_the_program_which_is_compiled_once(small):
    network, variables, video = small
    _, whole = network.with_outputs(sown=("masks",))(variables, video)
    before = _outputs._cache_size()
    for _ in range(2):
        _, half = network.with_outputs(sown=("masks",), reduce=_halved)(variables, video)
    assert _outputs._cache_size() == before + 1
    np.testing.assert_allclose(half["masks/own"], whole["masks/own"] / 2, rtol=1e-6)


def test_a_block_that_there_is_not(small):
    network, variables, video = small
    with pytest.raises(ValueError, match=r"a block must be a part of the network that is called, received 'stage5'\."):
        network.with_outputs(("stage1", "stage5"))(variables, video)


def test_an_oracle_says_that_it_takes_labels(small):
    assert not small[0].with_outputs(("stage1",)).takes_labels
    assert OpenNetwork(make_apply(Small(oracle=True), **PIXELS)).with_outputs().takes_labels


def test_the_networks_of_u2s():
    """Masks are a map of the universal features; what leaves the specific network's last stage is masked already."""
    model = universal_to_specific(models.build("resnet2d_18", 3, width=2, conv="direct"))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1, 40, 40, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.6, leaf.shape).astype(np.float32) - 0.2, shapes)
    variables["batch_stats"] = jax.tree.map(lambda leaf: np.abs(leaf) + 0.5, variables["batch_stats"])
    variables["batch_stats"]["u2s"]["confusing"] = np.eye(3, dtype=np.float32)
    video = rng.integers(0, 256, (2, 1, 40, 40, 3), np.uint8)
    blocks = ("stage4", "u2s/specific/stage4")
    opened = OpenNetwork(make_apply(model, **PIXELS)).with_outputs(blocks, ("masks", "side"))
    _, outputs = jax.device_get(opened(variables, video))
    names = {f"side/u2s/{name}/logits" for name in ("universal", "mask", "specific")}
    assert set(outputs) == {*blocks, "masks/u2s/all", "masks/u2s/selected"} | names
    universal, specific = (outputs[block] for block in blocks)
    assert universal.shape == specific.shape == (2, 1, 2, 2, 16)
    layer = variables["params"]["u2s"]["mask"]
    masks = universal @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(outputs["masks/u2s/all"], masks, rtol=1e-4, atol=1e-4)
    layer = variables["params"]["u2s"]["specific"]["head"]["classifier"]
    logits = specific.mean(axis=(1, 2, 3)) @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(outputs["side/u2s/specific/logits"], logits, rtol=1e-4, atol=1e-4)
    chosen = outputs["side/u2s/universal/logits"].argmax(axis=-1)
    own = np.take_along_axis(outputs["masks/u2s/all"], chosen[:, None, None, None, None], axis=-1)
    np.testing.assert_allclose(outputs["masks/u2s/selected"], own, rtol=1e-5)
