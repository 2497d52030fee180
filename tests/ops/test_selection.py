"""Triplet-cosine selection of frames: golden numbers of the public code and of the thesis, laws, sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxvid.ops import frame_triplet_similarity, select_frames

LENGTHS = (4, 5, 8, 16)


def video(data, name):
    return jnp.asarray(data[name].transpose(0, 2, 3, 4, 1))


def from_angles(*degrees):
    """One clip whose frames are unit vectors at these angles, so that cosines are those of the differences."""
    angles = np.deg2rad(degrees)
    frames = np.stack([np.cos(angles), np.sin(angles)], -1)[None, :, None, None, :]
    return jnp.asarray(np.broadcast_to(frames, (1, len(degrees), 2, 3, 2)), jnp.float32)


def kept(x, *arguments, **options):
    """Which frames were kept, told by a number written into each; the similarity ignores a constant factor."""
    index = jnp.arange(1.0, x.shape[1] + 1)[None, :, None, None, None]
    frames = jnp.mean(select_frames(x * index, *arguments, **options) ** 2, axis=(2, 3))
    return (jnp.sqrt(jnp.sum(frames, axis=-1) / jnp.sum(jnp.mean(x[:, :1] ** 2, axis=(2, 3)), axis=-1)) - 1).tolist()


@pytest.mark.data
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_public_code(golden, length):
    data = golden("triplet_cosine_select")
    x = video(data, f"x_T{length}")
    np.testing.assert_allclose(
        frame_triplet_similarity(x, select="largest_squared"), data[f"triplet_T{length}"], rtol=1e-5, atol=1e-6
    )
    received = jax.jit(lambda x: select_frames(x, select="largest_squared"))(x)
    np.testing.assert_array_equal(received, video(data, f"y_T{length}"))


@pytest.mark.data
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_thesis(golden, length):
    data = golden("triplet_cosine_select")
    x, cosine = video(data, f"x_T{length}"), data[f"cos_T{length}"]
    np.testing.assert_allclose(frame_triplet_similarity(x), cosine[:, :-1] + cosine[:, 1:], rtol=1e-5, atol=1e-6)
    index = data[f"idx_thesis_lowest_interior_T{length}"]
    expected = np.take_along_axis(np.asarray(x), index[:, :, None, None, None], axis=1)
    np.testing.assert_array_equal(select_frames(x), expected)


def test_scores_by_hand():
    x = from_angles(0, 60, 60, 240, 240)  # cosines 1/2, 1, -1, 1
    np.testing.assert_allclose(frame_triplet_similarity(x), [[1.5, 0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(frame_triplet_similarity(x, select="largest_squared"), [[0.625, 1, 1]], atol=1e-6)


def test_the_two_rules_choose_differently_and_in_order_of_time():
    x = from_angles(0, 10, 20, 110, 200, 290, 290, 290)
    np.testing.assert_allclose(kept(x, 2), [[3, 4]], atol=1e-4)
    np.testing.assert_allclose(kept(x, 2, select="largest_squared"), [[1, 6]], atol=1e-4)


def test_of_equal_scores_the_first_in_time_is_kept():
    still = from_angles(*[0] * 9)
    for select in ("lowest", "largest_squared"):
        np.testing.assert_allclose(kept(still, select=select), [[1, 2, 3, 4]], atol=1e-4)
        black = jnp.zeros((2, 6, 2, 2, 3)).at[:, :, 0, 0, 0].add(1e-30 * jnp.arange(6.0))
        assert not frame_triplet_similarity(black, select=select).any()
        received = select_frames(black, select=select)[:, :, 0, 0, 0]
        np.testing.assert_array_equal(received, black[:, 1:4, 0, 0, 0])


def test_a_frame_that_is_not_a_number_is_kept_last():
    x = from_angles(0, 40, 80, 120, 160, 200, 240).at[:, 1].set(jnp.nan)
    for select in ("lowest", "largest_squared"):
        assert np.isnan(frame_triplet_similarity(x, select=select)).tolist() == [[True, True, False, False, False]]
        assert not np.isnan(select_frames(x, 3, select=select)).any()


def test_three_frames_give_the_middle_one_and_all_inner_frames_can_be_kept():
    x = jax.random.normal(jax.random.key(0), (2, 7, 3, 2, 4))
    for select in ("lowest", "largest_squared"):
        np.testing.assert_array_equal(select_frames(x[:, :3], select=select), x[:, 1:2])
        np.testing.assert_array_equal(select_frames(x, 5, select=select), x[:, 1:-1])


def test_each_sample_chooses_for_itself():
    x = jax.random.normal(jax.random.key(0), (5, 9, 3, 2, 4))
    together = select_frames(x)
    np.testing.assert_array_equal(jnp.concatenate([select_frames(one[None]) for one in x]), together)
    np.testing.assert_array_equal(jax.vmap(lambda one: select_frames(one[None])[0])(x), together)


def test_reversed_clips_keep_the_same_frames():
    x = jax.random.normal(jax.random.key(1), (4, 12, 2, 2, 5))
    for select in ("lowest", "largest_squared"):
        there, back = select_frames(x, select=select), select_frames(x[:, ::-1], select=select)
        np.testing.assert_array_equal(back[:, ::-1], there)


def test_the_gradient_goes_through_the_gather_only():
    x = jax.random.normal(jax.random.key(0), (3, 8, 2, 3, 4))
    y, pull = jax.vjp(jax.jit(select_frames), x)
    cotangent = 1 + jnp.arange(y.size, dtype=jnp.float32).reshape(y.shape)
    expected = np.zeros(x.shape, np.float32)
    for n in range(3):
        for s in range(4):
            (t,) = np.flatnonzero((np.asarray(x[n]) == np.asarray(y[n, s])).all(axis=(1, 2, 3)))
            expected[n, t] = cotangent[n, s]
    np.testing.assert_array_equal(pull(cotangent)[0], expected)
    # The scores themselves are differentiable, a frame of zeros included.
    grad = jax.grad(lambda x: frame_triplet_similarity(x).sum())(x.at[:, 3].set(0))
    assert np.isfinite(grad).all()
    assert np.abs(grad).max() > 1e-3


def test_bfloat16_is_scored_in_float32_and_kept_as_it_is():
    x = jax.random.normal(jax.random.key(0), (3, 8, 4, 4, 8), jnp.bfloat16)
    np.testing.assert_array_equal(select_frames(x), select_frames(x.astype(jnp.float32)).astype(jnp.bfloat16))
    assert select_frames(x).dtype == jnp.bfloat16
    assert frame_triplet_similarity(x).dtype == jnp.float32


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_data_sharding_moves_nothing_and_nothing_calls_the_host(direction):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((16, 8, 4, 4, 8), jnp.float32, sharding=sharding)
    function = select_frames if direction == "forward" else jax.grad(lambda x: jnp.sum(select_frames(x) ** 2))
    text = jax.jit(function, out_shardings=sharding).lower(x).compile().as_text()
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))
    assert not any(word in text for word in ("xla_python", "xla_ffi_python", "outfeed"))


@pytest.mark.parametrize(
    ("shape", "num_frames", "options", "message"),
    [
        ((2, 8, 4), None, {}, r"x must have the axes N T H W C, received shape \(2, 8, 4\)\."),
        ((1, 2, 1, 1, 1), None, {}, r"at least 3 frames, since the first and the last are never selected, rec.*T=2\."),
        ((1, 1, 1, 1, 1), 1, {}, r"at least 3 frames, .* received T=1\."),
        ((1, 8, 1, 1, 1), 7, {}, r"num_frames must be from 1 to T - 2 = 6, .* received num_frames=7\."),
        ((1, 8, 1, 1, 1), 0, {}, r"num_frames must be from 1 to T - 2 = 6, .* received num_frames=0\."),
        ((1, 8, 1, 1, 1), 2, {"select": "largest"}, r"select must be one of lowest, l.*mean 'largest_squared'\?"),
    ],
)
def test_errors_name_the_rule_and_the_value(shape, num_frames, options, message):
    with pytest.raises(ValueError, match=message):
        select_frames(jnp.zeros(shape), num_frames, **options)
