"""Masks of classes over frames: whose they are, their size, and where the planted one is hottest."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.explain import EXPLAINERS
from jaxvid.explain.masks import u2s_masks

N, T, H, W, K = 2, 4, 12, 8, 3


class Planted:
    """Says of each class where it was planted: class ``k`` of clip ``n`` is hot in one cell of ``[2 3 2]``."""

    def __init__(self, masks=True):
        self.asked, self.masks = [], masks
        planted = np.zeros((N, 2, 3, 2, K), np.float32)
        for n in range(N):
            for k in range(K):
                planted[n, n, k, (n + k) % 2, k] = 1 + k
        self.planted = planted

    def with_outputs(self, blocks=(), sown=()):
        self.asked.append((blocks, sown))
        mean = self.planted.mean(-1, keepdims=True)
        outputs = {"masks/u2s/all": jnp.asarray(self.planted), "masks/u2s/selected": mean}
        return lambda variables, video: (jnp.zeros((N, K)), outputs if self.masks else {})


@pytest.fixture
def video():
    return np.zeros((N, T, H, W, 3), np.uint8)


def test_the_planted_place_is_the_hottest(video):
    network = Planted()
    maps = u2s_masks(network, {}, video, np.array([[0, 2], [1, 1]]))
    assert maps.shape == (N, T, H, W, 2)
    assert network.asked == [((), ("masks",))]
    for n, c, k in [(0, 0, 0), (0, 1, 2), (1, 0, 1), (1, 1, 1)]:
        t, h, w = np.unravel_index(np.asarray(maps)[n, ..., c].argmax(), (T, H, W))
        assert (t // 2, h // 4, w // 4) == (n, k, (n + k) % 2)
        assert 0.7 * (1 + k) < maps[n, ..., c].max() <= 1 + k, "interpolated, and no more than it was"


def test_without_a_class_it_is_the_mask_that_the_network_has_chosen(video):
    maps = np.asarray(u2s_masks(Planted(), {}, video))
    assert maps.shape == (N, T, H, W, 1)
    own = np.asarray(u2s_masks(Planted(), {}, video, np.array([[0, 1, 2]] * N)))
    np.testing.assert_allclose(maps, own.mean(axis=-1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (np.zeros(N, int), r"class_index must be int\[N C\] with N=2, received int64\[2\]\."),
        (np.zeros((3, 1), int), r"class_index must be int\[N C\] with N=2, received int64\[3, 1\]\."),
        (np.zeros((N, 1)), r"received float64\[2, 1\]\."),
        (np.array([[0], [3]]), r"class_index must be in \[0, 3\), received 0 to 3\."),
    ],
)
def test_a_class_that_cannot_be(video, index, sentence):
    with pytest.raises(ValueError, match=sentence):
        u2s_masks(Planted(), {}, video, index)


def test_a_network_without_masks(video):
    with pytest.raises(ValueError, match="must be given a network with masks of its classes, received one that sows"):
        u2s_masks(Planted(masks=False), {}, video)


def test_the_table_is_read_only():
    with pytest.raises(TypeError):
        EXPLAINERS["mine"] = u2s_masks
