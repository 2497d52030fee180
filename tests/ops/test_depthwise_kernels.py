"""Depthwise kernels for TPU and GPU: interpreted they equal XLA's convolution, they lower, what must be is refused."""

import functools
import math
import re

import jax
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxvid.benchmarks.op_shapes import DEPTHWISE_NETWORK, DEPTHWISE_SMALL
from jaxvid.ops import conv3d, depthwise_gpu, depthwise_tpu, gpu_tiles, grouped, tpu_memory
from jaxvid.ops import depthwise as module
from jaxvid.ops.depthwise_form import Geometry

SIMULATES_A_GPU = hasattr(plgpu, "InterpretGPUParams")  # jax 0.11; that of 0.10 cannot load into a layout
SIMULATOR = plgpu.InterpretGPUParams() if SIMULATES_A_GPU else None


def _simulated(**options):
    """The GPU's kernels where no partitioner sees them: it does not take the simulator's ordered effects."""
    return depthwise_gpu.form(interpret=SIMULATOR, **options)._replace(divisible=True)


INTERPRETED = {"tpu": depthwise_tpu.form(interpret=True), "gpu": _simulated()}
needs_simulation = pytest.mark.skipif(not SIMULATES_A_GPU, reason="jax 0.10 does not simulate a GPU")
BRIEFLY = {("tpu", name, jnp.float32) for name in DEPTHWISE_SMALL} | {
    ("tpu", "strided, odd", jnp.bfloat16),
    ("gpu", "time only", jnp.float32),
    ("gpu", "gaps", jnp.bfloat16),
}
"""Compiling what is interpreted takes seconds a case: the others are slow tests."""
LOWERED = {"tpu": ("tpu", depthwise_tpu), "gpu": ("cuda", depthwise_gpu)}
CALL = {"tpu": "tpu_custom_call", "gpu": "mosaic_gpu"}


def _case(layer, dtype=jnp.float32):
    """Inputs and geometry of ``(shape, taps, strides)``, padded like the benchmark's, and a cotangent."""
    shape, taps, strides = (*layer, (1, 1, 1))[:3]
    geometry = Geometry(shape[1:4], taps, strides, tuple((size // 2, size // 2) for size in taps))
    shapes = (shape, (*taps, 1, shape[-1]), (shape[0], *geometry.outs, shape[-1]))
    return [jax.random.normal(jax.random.key(k), size).astype(dtype) for k, size in enumerate(shapes)], geometry


def _convolve(x, kernel, geometry, form):
    return grouped.solve(module.Depthwise(geometry, form), grouped.Y, x, kernel)


def _both(form, geometry):
    def run(x, kernel, g):
        y, pull = jax.vjp(lambda x, kernel: _convolve(x, kernel, geometry, form), x, kernel)
        return y, *pull(g)

    return jax.jit(run)


@functools.partial(jax.jit, static_argnums=3)
def _in_float32(x, kernel, g, geometry):
    def convolve(x, kernel):
        strides, pads = geometry.strides, geometry.pads
        return conv3d(x, kernel, strides, pads, groups=x.shape[-1], implementation="direct")

    y, pull = jax.vjp(convolve, x.astype(jnp.float32), kernel.astype(jnp.float32))
    return y, *pull(g.astype(jnp.float32))


def _assert_equal(received, expected, tolerance):
    for value, exact in zip(received, expected, strict=True):
        scale = np.abs(exact).max()
        assert scale > 0.1
        np.testing.assert_allclose(value.astype(jnp.float32), exact, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(
    ("device", "name", "dtype"),
    [
        pytest.param(
            *(device, name, dtype),
            marks=[
                *([needs_simulation] if device == "gpu" else []),
                *([] if (device, name, dtype) in BRIEFLY else [pytest.mark.slow]),
            ],
            id=f"{device}, {name}, {dtype.__name__}",
        )
        for device in INTERPRETED
        for name in DEPTHWISE_SMALL
        for dtype in (jnp.float32, jnp.bfloat16)
    ],
)
def test_interpreted_kernels_equal_direct_in_value_and_gradients(device, name, dtype):
    arrays, geometry = _case(DEPTHWISE_SMALL[name], dtype)
    received = _both(INTERPRETED[device], geometry)(*arrays)
    assert {value.dtype for value in received} == {jnp.dtype(dtype)}
    # Products of bfloat16 are summed in float32, so that only the result is rounded.
    _assert_equal(received, _in_float32(*arrays, geometry), 1e-6 if dtype == jnp.float32 else 2**-8)


@pytest.mark.parametrize("tile", [(1, 1, 4), (3, 2, 4), (2, 5, 4), (8, 9, 4)])
def test_the_tpu_kernels_tile_does_not_change_the_result(tile):
    """Tiles that end beyond the output, in time, in rows, and in both."""
    arrays, geometry = _case(((1, 4, 6, 3, 4), (3, 3, 1)))
    received = _both(depthwise_tpu.form(tile=tile, interpret=True), geometry)(*arrays)
    _assert_equal(received, _in_float32(*arrays, geometry), 1e-6)


@needs_simulation
@pytest.mark.slow
@pytest.mark.parametrize("tile", [(16, 8), (32, 4), (32, 8)])
def test_the_gpu_kernels_tile_does_not_change_the_result(tile):
    arrays, geometry = _case(DEPTHWISE_SMALL["even"])
    received = _both(_simulated(tile=tile), geometry)(*arrays)
    _assert_equal(received, _in_float32(*arrays, geometry), 1e-6)


def test_kernels_can_be_differentiated_twice():
    (x, kernel, g), geometry = _case(((1, 3, 3, 4, 3), (2, 2, 1), (1, 2, 1)))

    def bend(convolve):
        def gradients(x, kernel):
            return jax.vjp(convolve, x, kernel)[1](jnp.cos(convolve(x, kernel)) * g)

        return jax.jit(jax.grad(lambda *at: sum(jnp.sum(value**2) for value in gradients(*at)), (0, 1)))(x, kernel)

    def direct(x, kernel):
        return conv3d(x, kernel, geometry.strides, geometry.pads, groups=3, implementation="direct")

    received = bend(lambda x, kernel: _convolve(x, kernel, geometry, INTERPRETED["tpu"]))
    _assert_equal(received, bend(direct), 1e-5)


def test_kernels_leave_every_sample_on_its_device():
    (x, kernel, g), geometry = _case(((4, 2, 3, 3, 2), (3, 2, 1), (1, 2, 1)))
    run = _both(INTERPRETED["tpu"], geometry)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    by_sample, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    sharded = jax.device_put((x, kernel, g), (by_sample, everywhere, by_sample))
    compiled = run.lower(*sharded).compile()
    assert set(re.findall(r" (all-[a-z]+|collective-[a-z]+)(?:-start)?\(", compiled.as_text())) == {"all-reduce"}
    received = compiled(*sharded)
    assert received[1].sharding.is_equivalent_to(by_sample, 5)
    _assert_equal(received, _in_float32(x, kernel, g, geometry), 1e-6)


def _lower(form, layer, dtype, platform):
    """Exports value and gradients for a platform that is not here; returns the program's text."""
    arrays, geometry = jax.eval_shape(lambda: _case(layer, dtype)[0]), _geometry(layer)
    return export.export(_both(form, geometry), platforms=[platform])(*arrays).mlir_module()


def _geometry(layer):
    shape, *rest = layer
    return _case(((1, *shape[1:4], 1), *rest))[1]


@pytest.mark.parametrize("device", LOWERED)
@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        pytest.param(layer, dtype, marks=marks, id=f"{layer}, {dtype.__name__}")
        for dtype, of_network in ((jnp.float32, []), (jnp.bfloat16, [pytest.mark.slow]))
        for layers, marks in ((DEPTHWISE_SMALL.values(), []), (DEPTHWISE_NETWORK, of_network))
        for layer in layers
    ],
)
def test_kernels_lower_for_their_device(device, dtype, layer):
    platform, kernels = LOWERED[device]
    geometry = _geometry(layer)
    phases = math.prod(map(min, geometry.window, geometry.strides))
    calls = _lower(kernels.FORM, layer, dtype, platform).count(f"@{CALL[device]}")
    assert calls == 1 + phases + 1  # value, gradient of the input by phases of the strides, gradient of the kernel


@pytest.mark.parametrize("device", LOWERED)
def test_pallas_is_the_kernel_of_the_default_backend(device, monkeypatch):
    platform, _ = LOWERED[device]
    monkeypatch.setattr(jax, "default_backend", lambda: device)

    def run(x, kernel):
        return conv3d(x, kernel, (1, 2, 2), (1, 1, 1), groups=8, implementation="pallas")

    arrays = (jax.ShapeDtypeStruct((2, 4, 6, 6, 8), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 1, 8), jnp.float32))
    assert CALL[device] in export.export(jax.jit(run), platforms=[platform])(*arrays).mlir_module()


@pytest.mark.parametrize(
    ("taps", "options", "message"),
    [
        ((3, 3, 3), {}, "needs a TPU or GPU as the default backend, received 'cpu'"),
        ((5, 5, 3), {}, r"at most 64 taps and dilation 1, received kernel size \(5, 5, 3\), dilation=\(1, 1, 1\)\."),
        ((3, 1, 1), {"dilation": (2, 1, 1)}, r"received kernel size \(3, 1, 1\), dilation=\(2, 1, 1\)\."),
    ],
)
def test_what_has_no_kernel_is_refused(taps, options, message):
    with pytest.raises(ValueError, match=message):
        conv3d(jnp.zeros((1, 5, 6, 6, 4)), jnp.zeros((*taps, 1, 4)), groups=4, implementation="pallas", **options)


def test_a_kernel_that_is_not_depthwise_is_refused():
    with pytest.raises(ValueError, match=r"'pallas' must have a depthwise kernel .* groups=4, I=4, O=8"):
        conv3d(jnp.zeros((1, 5, 6, 6, 4)), jnp.zeros((1, 1, 1, 1, 8)), groups=4, implementation="pallas")


def test_a_block_of_channels_that_is_no_tile_is_refused(monkeypatch):
    layer = DEPTHWISE_SMALL["more than 128 channels"]
    form = depthwise_tpu.form(tile=(1, 1, 100))
    with pytest.raises(ValueError, match=r"all 200 channels or a multiple of 128, received tile=\(1, 1, 100\)"):
        _lower(form, layer, jnp.float32, "tpu")
    # Not out of caution: Mosaic refuses it, too.
    monkeypatch.setattr(depthwise_tpu, "_check", lambda *args: (1, 1, 100))
    with pytest.raises(ValueError, match="divisible by 8 and 128"):
        _lower(form, layer, jnp.float32, "tpu")


@pytest.mark.parametrize("tile", [(0, 1, 12), (1, -1, 12), (1, 1, 0)])
def test_an_empty_tile_is_refused(tile):
    with pytest.raises(ValueError, match=r"frames, rows and channels >= 1"):
        _lower(depthwise_tpu.form(tile=tile), DEPTHWISE_SMALL["3x3x3"], jnp.float32, "tpu")


def test_vmem_is_counted_in_tiles():
    # Under 3x3x3 a tile of 2 frames and 4 rows sees 4 and 6; 28 + 2 columns in tiles of 8 (16), 54 channels in 128.
    geometry = _geometry(((1, 8, 28, 28, 54), (3, 3, 3)))
    kernel = 32 * 128 * 4  # 27 taps
    tile = (2, 4, 54)
    assert depthwise_tpu.needed_bytes(tile, geometry, jnp.float32) == 2 * (
        4 * 6 * 32 * 128 * 4 + 2 * 4 * 32 * 128 * 4 + kernel
    )
    assert depthwise_tpu.needed_bytes(tile, geometry, jnp.bfloat16) == (
        2 * (4 * 6 * 32 * 128 * 2 + 2 * 4 * 32 * 128 * 2 + kernel) + 4 * 6 * 32 * 128 * 4
    )
    # Both phases of a stride in W, of 14 + 1 columns.
    strided = _geometry(((1, 8, 28, 28, 54), (3, 3, 3), (1, 1, 2)))
    assert depthwise_tpu.needed_bytes(tile, strided, jnp.float32) == 2 * (
        4 * 6 * 2 * 16 * 128 * 4 + 2 * 4 * 16 * 128 * 4 + kernel
    )


@pytest.mark.parametrize("layer", DEPTHWISE_NETWORK)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_tile_that_is_chosen_fits_every_tpu(layer, dtype):
    geometry = _geometry(layer)
    frames, rows, channels = tile = depthwise_tpu.choose_tile(geometry, layer[0][-1], dtype)
    assert depthwise_tpu.needed_bytes(tile, geometry, dtype) <= depthwise_tpu.TILE_BYTES < 16 * 2**20
    axes = zip((frames, rows), geometry.strides, geometry.window, strict=False)
    seen = math.prod((count - 1) * stride + taps for count, stride, taps in axes)
    assert seen <= 2 * frames * rows * math.prod(geometry.strides[:2])  # no more than twice what there is
    assert channels == min(layer[0][-1], 128)


def test_tiles_that_do_not_fit_into_vmem_are_refused():
    layer = ((1, 16, 112, 112, 64), (3, 3, 3))
    with pytest.raises(ValueError, match=r"16 frames of 112 rows of 112 columns and 64 .* bytes of the 62914560 there"):
        _lower(depthwise_tpu.form(tile=(16, 112, 64)), layer, jnp.float32, "tpu")
    # Mosaic's lowering does not know: on a machine without a TPU only the count above can tell.
    needed = depthwise_tpu.needed_bytes((16, 112, 64), _geometry(layer), jnp.float32)
    assert needed > 4 * tpu_memory.VMEM_BYTES
    with pytest.raises(ValueError, match="1 frames of 1 rows of 90000 columns"):
        _lower(depthwise_tpu.FORM, ((1, 1, 1, 90000, 64), (1, 1, 3)), jnp.float32, "tpu")


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        ((2, 4), "a multiple of 128 numbers"),
        ((16, 16), "must divide 24"),
        ((128, 8), r"128 registers of each of 128 threads, received tile=\(128, 8\) for a kernel of \(3, 3, 3\).* 216"),
        ((256, 8), "at most 1024 numbers"),
    ],
)
def test_tiles_that_a_warpgroup_cannot_hold_are_refused(tile, message):
    layer = ((1, 4, 8, 8, 24), (3, 3, 3))
    with pytest.raises(ValueError, match=message):
        _lower(depthwise_gpu.form(tile=tile), layer, jnp.float32, "cuda")


def test_mosaic_gpu_refuses_a_tile_that_is_no_multiple_of_its_threads(monkeypatch):
    layer = DEPTHWISE_SMALL["time only"]
    assert CALL["gpu"] in _lower(depthwise_gpu.form(tile=(16, 8)), layer, jnp.float32, "cuda")
    monkeypatch.setattr(gpu_tiles, "check_tile", lambda tile, channels: 1)
    with pytest.raises(ValueError, match="128"):
        _lower(depthwise_gpu.form(tile=(4, 8)), layer, jnp.float32, "cuda")


@pytest.mark.parametrize("layer", [*DEPTHWISE_SMALL.values(), *DEPTHWISE_NETWORK])
def test_partial_sums_are_small_where_there_are_rows_enough(layer):
    geometry = _geometry(layer)
    tiles = math.ceil(geometry.outs[2] / 4)
    frames, out_rows, _ = geometry.outs
    rows = depthwise_gpu.rows_of_block(geometry, tiles)
    assert out_rows % rows == 0
    assert rows == out_rows or rows * frames * tiles >= depthwise_gpu.PARTIAL_SHARE * geometry.num_taps


def test_dtypes_without_a_kernel_are_refused():
    (x, kernel, _), geometry = _case(DEPTHWISE_SMALL["time only"], jnp.float16)
    with pytest.raises(ValueError, match="of conv3d needs float32 or bfloat16, received float16"):
        depthwise_tpu.FORM.convolve(x, kernel, geometry)
    with jax.enable_x64(True), pytest.raises(ValueError, match=r"of conv3d needs float32, bfloat16 or .* float64"):
        depthwise_gpu.FORM.convolve(jnp.zeros(x.shape, jnp.float64), kernel, geometry)
