"""What blocks return and what is sown comes beside the same logits, by name, and nothing is compiled twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import models
from jaxvid.models.universal_to_specific import universal_to_specific
from jaxvid.train.captured import OpenNetwork, _outputs
from jaxvid.train.step import make_apply


def _halved(outputs):
    return {name: value / 2 for name, value in outputs.items()}


@pytest.fixture(scope="module")
def network():
    """A tiny U2S network, its variables and two clips."""
    model = universal_to_specific(models.build("resnet2d_18", 3, width=2, conv="direct"))
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1, 40, 40, 3)))
    apply = make_apply(model, mean=(0.5,) * 3, std=(0.25,) * 3)
    video = np.random.default_rng(0).integers(0, 256, (2, 1, 40, 40, 3), np.uint8)
    return OpenNetwork(apply), variables, video


def test_blocks_and_masks_come_beside_the_same_logits(network):
    opened, variables, video = network
    logits, outputs = opened.with_outputs(("stage4", "u2s/specific/stage4"), ("masks", "side"))(variables, video)
    np.testing.assert_allclose(logits, opened(variables, video), rtol=1e-5, atol=1e-6)
    universal, specific = outputs["stage4"], outputs["u2s/specific/stage4"]
    assert universal.shape == specific.shape
    assert set(outputs) == {"stage4", "u2s/specific/stage4", "masks/u2s/all", "masks/u2s/selected",
                            "side/u2s/universal/logits", "side/u2s/mask/logits", "side/u2s/specific/logits"}  # fmt: skip
    masks = outputs["masks/u2s/all"]
    kernel, bias = (variables["params"]["u2s"]["mask"][name] for name in ("kernel", "bias"))
    np.testing.assert_allclose(masks, universal @ kernel + bias, rtol=1e-4, atol=1e-5)
    # What leaves the specific network's last stage is masked already: its classifier sees just that.
    head = variables["params"]["u2s"]["specific"]["head"]["classifier"]
    expected = specific.mean(axis=(1, 2, 3)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(outputs["side/u2s/specific/logits"], expected, rtol=1e-4, atol=1e-5)
    confusing = variables["batch_stats"]["u2s"]["confusing"]
    np.testing.assert_array_equal(confusing, np.eye(3))
    chosen = outputs["side/u2s/universal/logits"].argmax(axis=-1)
    own = np.take_along_axis(np.asarray(masks), np.asarray(chosen)[:, None, None, None, None], axis=-1)
    np.testing.assert_allclose(outputs["masks/u2s/selected"], own, rtol=1e-6)


def test_what_is_made_of_them_is_made_in_the_program_which_is_compiled_once(network):
    opened, variables, video = network
    _, whole = opened.with_outputs(sown=("masks",))(variables, video)
    before = _outputs._cache_size()
    for _ in range(2):
        _, half = opened.with_outputs(sown=("masks",), reduce=_halved)(variables, video)
    assert _outputs._cache_size() == before + 1
    np.testing.assert_allclose(half["masks/u2s/all"], whole["masks/u2s/all"] / 2, rtol=1e-6)


def test_a_block_that_there_is_not(network):
    opened, variables, video = network
    with pytest.raises(ValueError, match=r"a block must be a part of the network that is called, received 'stage5'\."):
        opened.with_outputs(("stage4", "stage5"))(variables, video)


def test_an_oracle_says_that_it_takes_labels(network):
    opened, _, _ = network
    assert not opened.with_outputs(("stage4",)).takes_labels
    oracle = make_apply(opened.apply.model.clone(oracle=True), mean=(0.5,) * 3, std=(0.25,) * 3)
    assert OpenNetwork(oracle).with_outputs().takes_labels
