"""Fingerprints of frames: the same for another size and quality, different for another picture."""

import numpy as np
import pytest

from jaxvid.data.frame_hash import MAX_BITS, NUM_HASHED, frame_hash, near_pairs, video_hash


def picture(seed, height=36, width=48):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
    return coarse.repeat(height // 6, 0).repeat(width // 8, 1)


def distance(a, b):
    return (a ^ b).bit_count()


def test_size_and_noise_change_few_bits():
    noise = np.random.default_rng(9).integers(-4, 5, (36, 48, 3))
    noisy = np.clip(picture(0).astype(int) + noise, 0, 255).astype(np.uint8)
    assert distance(frame_hash(picture(0)), frame_hash(noisy)) <= MAX_BITS
    assert distance(frame_hash(picture(0)), frame_hash(picture(0, 72, 96))) <= MAX_BITS
    assert distance(frame_hash(picture(0)), frame_hash(picture(1))) > 10


def test_a_literal_by_hand():
    frame = np.zeros((8, 9, 3), np.uint8)
    frame[0, 1] = 200  # brighter than its left neighbour: one bit, the first row's first
    assert frame_hash(frame) == 2**63


@pytest.mark.parametrize("shape", [(8, 9), (9, 32), (57, 33)])
def test_odd_sizes(shape):
    ramp = np.broadcast_to(np.linspace(0, 250, shape[1]).astype(np.uint8)[:, None], (*shape, 3))
    assert frame_hash(ramp) == 2**64 - 1


def test_a_video_has_three_hashes_or_none():
    frames = [picture(k) for k in range(8)]
    assert video_hash(frames, 8) == tuple(frame_hash(frames[k]) for k in (2, 4, 6))
    assert len(video_hash(frames[:1], 1)) == NUM_HASHED
    assert video_hash([*frames[:2], np.zeros((36, 48, 3), np.uint8), *frames[3:]], 8) == ()


def test_pairs_are_found_at_the_limit_and_not_beyond():
    one = np.array([[1, 2, 3], [0, 0, 2**40 * 255]], np.uint64)
    three_bits, four_bits, elsewhere = [1, 2, 3 ^ 0b11100], [1, 2, 3 ^ 0b1111000], [2**63, 0b111, 2**40 * 255]
    other = np.array([three_bits, four_bits, elsewhere], np.uint64)
    assert MAX_BITS == 3
    assert list(near_pairs(one, other)) == [(0, 0), (1, 2)]
    assert list(near_pairs(one[:0], other)) == []


def test_pairs_are_found_in_every_block():
    one = np.random.default_rng(0).integers(0, 2**63, (700, NUM_HASHED), np.uint64)
    places = [0, 255, 256, 699]
    assert list(near_pairs(one, one[places])) == [(place, k) for k, place in enumerate(places)]
