"""Grouped convolution over a sharded batch: derivatives of higher order, vmap, and where the samples are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxvid.ops import conv3d, grouped

CONVS = [
    functools.partial(conv3d, strides=(1, 2, 1), padding=(1, 0, 1), groups=2, implementation=form)
    for form in ("direct", "folded")
]


def _inputs():
    x = jax.random.normal(jax.random.key(0), (4, 3, 5, 4, 4))
    return x, jax.random.normal(jax.random.key(1), (3, 2, 3, 2, 6)) / 6


def _bend(conv):
    """Gradients of a function of the gradients: they hold every second derivative of the convolution."""

    def bent(x, kernel):
        gradients = jax.grad(lambda x, kernel: jnp.sin(conv(x, kernel)).sum(), (0, 1))(x, kernel)
        return sum(jnp.sum(g**2) for g in gradients)

    return jax.grad(bent, (0, 1))


def test_second_derivatives_stay_where_the_batch_is():
    x, kernel = _inputs()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    compiled = jax.jit(_bend(CONVS[0])).lower(sharded, jax.device_put(kernel, NamedSharding(mesh, PartitionSpec())))
    compiled = compiled.compile()
    assert "all-gather" not in compiled.as_text()
    received = compiled(sharded, jax.device_put(kernel, NamedSharding(mesh, PartitionSpec())))
    assert received[0].sharding.is_equivalent_to(sharded.sharding, 5)
    for ours, theirs in zip(received, jax.jit(_bend(CONVS[1]))(x, kernel), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_vmap_over_inputs_and_over_kernels():
    x, kernel = _inputs()
    scales = jnp.array([1.0, 2.0, -1.0])[:, None, None, None, None, None]
    one = CONVS[0](x, kernel)
    by_input = jax.vmap(CONVS[0], (0, None))(scales * x, kernel)
    by_kernel = jax.vmap(CONVS[0], (None, 0))(x, scales * kernel)
    np.testing.assert_allclose(by_input, scales * one, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_kernel, scales * one, rtol=1e-5, atol=1e-5)


def test_samples_on_every_device_give_the_same():
    """Nothing is divided where the batch is not, and the sum over devices has nothing to add."""
    x, kernel = _inputs()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel = jax.device_put((x, kernel), NamedSharding(mesh, PartitionSpec()))
    gradients = [jax.jit(jax.grad(lambda x, k, c=conv: jnp.sin(c(x, k)).sum(), (0, 1)))(x, kernel) for conv in CONVS]
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_one_device_computes_xlas_convolution():
    """Another device's program is lowered as it always was: one convolution."""
    text = jax.export.export(jax.jit(CONVS[0]), platforms=["cuda"])(*_inputs()).mlir_module()
    assert text.count("stablehlo.convolution") == 1
    assert "feature_group_count = 2" in text
    assert "custom_call" not in text


@pytest.mark.parametrize("wanted", [grouped.X, grouped.KERNEL, grouped.Y])
@pytest.mark.parametrize("batch", [PartitionSpec("data"), PartitionSpec()])
def test_what_one_device_computes(wanted, batch):
    """The parts of the devices, put together, are the whole. The compiler asks for them where no coverage is seen."""
    x, kernel = _inputs()
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1, 1),
        padding="VALID",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=2,
    )
    meeting = grouped.Meeting(convolve, x.shape[1:], kernel.shape)
    arrays = (x, kernel, jnp.cos(convolve(x, kernel)))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    specs = (batch, PartitionSpec(), batch)
    given = [k for k in range(3) if k != wanted]
    shapes = [jax.ShapeDtypeStruct(arrays[k].shape, jnp.float32, sharding=NamedSharding(mesh, specs[k])) for k in given]
    partition = grouped.keeping_samples(meeting, wanted).partition
    _, one_device, result, arguments = partition(mesh, shapes, None)
    assert result.is_equivalent_to(NamedSharding(mesh, specs[wanted]), 5)
    assert [a.is_equivalent_to(NamedSharding(mesh, specs[k]), 5) for k, a in zip(given, arguments, strict=True)] == [
        True
    ] * 2
    parts = jax.shard_map(
        one_device, mesh=mesh, in_specs=tuple(specs[k] for k in given), out_specs=specs[wanted], check_vma=False
    )
    operands = [arrays[k] for k in given]
    np.testing.assert_allclose(jax.jit(parts)(*operands), meeting.solve(wanted, *operands), rtol=1e-5, atol=1e-5)
