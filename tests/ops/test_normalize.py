"""normalize_video: pixels to numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.ops import normalize_video

MEAN, STD = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)


def test_literal_by_hand():
    video = np.array([0, 255, 51], np.uint8).reshape(1, 1, 1, 1, 3)
    np.testing.assert_allclose(normalize_video(video, MEAN, STD).ravel(), [-1.0, 3.0, 0.2], rtol=1e-6)


def test_reversed_channels_come_before_the_constants():
    video = np.array([51, 255, 0], np.uint8).reshape(1, 1, 1, 1, 3)
    np.testing.assert_allclose(normalize_video(video, MEAN, STD, reverse=True).ravel(), [-1.0, 3.0, 0.2], rtol=1e-6)


def test_all_256_values_are_those_of_float64():
    video = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16, 1)
    expected = (np.arange(256) / 255 - 0.45) / 0.225
    received = jax.jit(lambda v: normalize_video(v, (0.45,), (0.225,)))(video)
    np.testing.assert_allclose(received.ravel(), expected, rtol=1e-5, atol=1e-6)


def test_views_and_dtype():
    video = np.zeros((2, 4, 3, 5, 5, 3), np.uint8)
    y = normalize_video(video, MEAN, STD, jnp.bfloat16)
    assert y.shape == video.shape
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y[0, 0, 0, 0, 0].astype(np.float32), [-1.0, -1.0, 0.0])


@pytest.mark.parametrize(
    ("video", "mean", "std", "message"),
    [
        (np.zeros((1, 1, 1, 1, 3), np.float32), MEAN, STD, r"video must be uint8 pixels .* received dtype float32\."),
        (np.zeros((1, 1, 1, 1, 3), np.uint8), (0.5,), STD, r"mean must hold one number per channel \(3\)"),
        (np.zeros((1, 1, 1, 1, 3), np.uint8), MEAN, (1.0, 1.0), r"std must hold one number per channel \(3\)"),
        (np.zeros((1, 1, 1, 1, 3), np.uint8), MEAN, (1.0, 0.0, 1.0), r"std must be > 0 in every channel"),
    ],
)
def test_errors_name_the_rule_and_the_value(video, mean, std, message):
    with pytest.raises(ValueError, match=message):
        normalize_video(video, mean, std)
