"""SoftPool's kernels for TPU and GPU: interpreted they equal XLA's form, they lower, and what must be is refused."""

import jax
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxvid.benchmarks.softpool_shapes import NETWORK, SMALL
from jaxvid.ops import gpu_tiles, soft_pooling_gpu, soft_pooling_tpu, soft_pooling_xla, softpool, tpu_memory
from jaxvid.ops import soft_pooling as module
from jaxvid.ops.pooling_windows import Windows

SIMULATES_A_GPU = hasattr(plgpu, "InterpretGPUParams")  # jax 0.11; that of 0.10 cannot load into a layout
INTERPRETED = {
    "tpu": soft_pooling_tpu.form(interpret=True),
    "gpu": soft_pooling_gpu.form(interpret=plgpu.InterpretGPUParams() if SIMULATES_A_GPU else None),
}
needs_simulation = pytest.mark.skipif(not SIMULATES_A_GPU, reason="jax 0.10 does not simulate a GPU")
DEVICES = ["tpu", pytest.param("gpu", marks=needs_simulation)]
BRIEFLY = {("tpu", name, jnp.float32) for name in SMALL} | {
    ("tpu", "1-D", jnp.bfloat16),
    ("tpu", "time only", jnp.bfloat16),
    ("gpu", "1-D", jnp.float32),
    ("gpu", "time only", jnp.float32),
}
"""Compiling what is interpreted takes seconds a case: the others are slow tests."""
LOWERED = {"tpu": ("tpu", soft_pooling_tpu), "gpu": ("cuda", soft_pooling_gpu)}
CALL = {"tpu": "tpu_custom_call", "gpu": "mosaic_gpu"}


def _case(case, dtype=jnp.float32):
    x = (2 * jax.random.normal(jax.random.key(5), case.shape)).astype(dtype)
    return x, Windows.of(*case)


def _run(form, x, windows, gradient="true"):
    @jax.jit
    def run(x):
        y, pull = jax.vjp(lambda x: module._softpool(x, windows, form, gradient), x)
        cotangent = jnp.sin(jnp.arange(y.size, dtype=jnp.float32) + 1).reshape(y.shape).astype(y.dtype)
        return form.pool(x, windows), y, pull(cotangent)[0]

    return run(x)


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
        for name in SMALL
        for dtype in (jnp.float32, jnp.bfloat16)
    ],
)
def test_interpreted_kernels_equal_xla_in_value_and_gradient(device, name, dtype):
    x, windows = _case(SMALL[name], dtype)
    x = x.at[(0,) * x.ndim].set(-jnp.inf).at[(-1,) * x.ndim].set(1e4)
    expected = _run(soft_pooling_xla.FORM, x, windows)
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    for received, value in zip(_run(INTERPRETED[device], x, windows), expected, strict=True):
        assert received.dtype == dtype
        received, value = received.astype(jnp.float32), value.astype(jnp.float32)
        np.testing.assert_allclose(received, value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_interpreted_kernels_have_the_references_gradient(device):
    x, windows = _case(SMALL["1-D"])
    _, y, gx = _run(INTERPRETED[device], x, windows, "reference")
    for received, value in zip((y, gx), _run(soft_pooling_xla.FORM, x, windows, "reference")[1:], strict=True):
        np.testing.assert_allclose(received, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [None, 256, 384])
def test_the_tpu_kernels_blocks_of_channels_do_not_change_the_result(channels):
    x, windows = _case(SMALL["3-D"]._replace(shape=(1, 2, 2, 2, 384)))
    form = soft_pooling_tpu.form(channels=channels, interpret=True)
    for received, value in zip(_run(form, x, windows), _run(soft_pooling_xla.FORM, x, windows), strict=True):
        np.testing.assert_allclose(received, value, rtol=1e-5, atol=1e-5)


def _lower(form, case, dtype, platform):
    """Exports value and gradient for a platform that is not here; returns the program's text."""
    windows = Windows.of(*case)

    def run(x):
        y, pull = jax.vjp(lambda x: module._softpool(x, windows, form, "true"), x)
        return form.pool(x, windows), pull(y)

    return export.export(jax.jit(run), platforms=[platform])(jax.ShapeDtypeStruct(case.shape, dtype)).mlir_module()


@pytest.mark.parametrize("device", LOWERED)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("case", [*SMALL.values(), *NETWORK], ids=[*SMALL, *map(str, NETWORK)])
def test_kernels_lower_for_their_device(device, dtype, case):
    platform, kernels = LOWERED[device]
    assert _lower(kernels.FORM, case, dtype, platform).count(f"@{CALL[device]}") == 3  # values, statistics, gradient


@pytest.mark.parametrize("device", LOWERED)
def test_pallas_is_the_kernel_of_the_default_backend(device, monkeypatch):
    platform, _ = LOWERED[device]
    monkeypatch.setattr(module.jax, "default_backend", lambda: device)

    def run(x):
        return softpool(x, (2, 2), implementation="pallas")

    x = jax.ShapeDtypeStruct((2, 4, 4, 8), jnp.float32)
    assert CALL[device] in export.export(jax.jit(run), platforms=[platform])(x).mlir_module()


def test_a_block_of_channels_that_is_no_tile_is_refused(monkeypatch):
    case = SMALL["more than 128 channels"]
    form = soft_pooling_tpu.form(channels=100)
    with pytest.raises(ValueError, match="all 200 or a multiple of 128, received channels=100"):
        _lower(form, case, jnp.float32, "tpu")
    # Not out of caution: Mosaic refuses it, too.
    monkeypatch.setattr(soft_pooling_tpu, "_check", lambda *args, **options: (100, None))
    with pytest.raises(ValueError, match="divisible by 8 and 128"):
        _lower(form, case, jnp.float32, "tpu")


def test_planes_that_do_not_fit_into_vmem_are_refused():
    # 113 rows, 113 columns in tiles of 8, 64 channels in tiles of 128, 4 bytes; two buffers.
    assert tpu_memory.vmem_bytes([(113, 113, 64, 4)]) == 2 * 113 * 120 * 128 * 4
    assert tpu_memory.vmem_bytes([(2, 17, 200, 2)] * 3) == 3 * 2 * 2 * 32 * 256 * 2
    case = SMALL["3-D"]._replace(shape=(1, 4, 224, 224, 64))
    with pytest.raises(ValueError, match=r"whole planes in VMEM: window \(2, 2, 2\) on planes of \(224, 224\)"):
        _lower(soft_pooling_tpu.FORM, case, jnp.float32, "tpu")
    # The gradient holds more than the values: it is refused by itself.
    x, windows = (
        jax.ShapeDtypeStruct((1, 3, 112, 112, 64), jnp.float32),
        Windows.of((1, 3, 112, 112, 64), *SMALL["stride 1"][1:]),
    )
    jax.eval_shape(lambda x: soft_pooling_tpu.FORM.pool(x, windows), x)
    with pytest.raises(ValueError, match="bytes of the"):
        jax.eval_shape(lambda x: soft_pooling_tpu.FORM.gather(x, x, x, x, windows), x)


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        ((2, 32), "a multiple of 128 numbers"),
        ((8, 48), "must divide 64"),
        ((0, 64), r"received tile=\(0, 64\)"),
        ((32, 64), "at most 1024 numbers"),
    ],
)
def test_tiles_that_a_warpgroup_cannot_hold_are_refused(tile, message):
    case = SMALL["3-D"]._replace(shape=(1, 4, 8, 8, 64))
    with pytest.raises(ValueError, match=message):
        _lower(soft_pooling_gpu.form(tile=tile), case, jnp.float32, "cuda")


def test_mosaic_gpu_refuses_a_tile_that_is_no_multiple_of_its_threads(monkeypatch):
    case = SMALL["3-D"]._replace(shape=(1, 4, 8, 8, 64))
    form = soft_pooling_gpu.form(tile=(1, 32))
    assert CALL["gpu"] in _lower(soft_pooling_gpu.form(tile=(4, 32)), case, jnp.float32, "cuda")
    monkeypatch.setattr(gpu_tiles, "check_tile", lambda tile, channels: 1)
    with pytest.raises(ValueError, match="128"):
        _lower(form, case, jnp.float32, "cuda")


@pytest.mark.parametrize("channels", [8, 24, 64, 96, 128, 384])
@pytest.mark.parametrize("columns", [1, 7, 14, 28, 56])
def test_the_tile_that_is_chosen_is_one_that_fits(columns, channels):
    high, wide = tile = gpu_tiles.choose_tile(columns, channels)
    assert gpu_tiles.check_tile(tile, channels) in (1, 2, 4)
    assert high * wide in (128, 256)
    assert high * wide == 128 or columns % high == 0


def test_dtypes_without_a_kernel_are_refused():
    x, windows = _case(SMALL["1-D"], jnp.float16)
    with pytest.raises(ValueError, match="float32 or bfloat16, received float16"):
        soft_pooling_tpu.FORM.pool(x, windows)
    with jax.enable_x64(True), pytest.raises(ValueError, match="float32, bfloat16 or float16, received float64"):
        soft_pooling_gpu.FORM.pool(jnp.zeros(x.shape, jnp.float64), windows)
