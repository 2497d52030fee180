"""SoftPool's TPU kernels (Pallas on Mosaic): one output plane, or one input plane of the gradient, a program.

A program holds whole planes ``[H W]`` of up to 128 channels in VMEM and walks over their rows; channels lie in the
lanes, columns in the sublanes, where a tap is a strided load. Every plane is read once per window that sees it in time;
the gradient reads ``x`` once. Lowering is tested for TPU and the numbers in interpret mode; no TPU was at hand to time
it, nor to see it compiled.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxvid.ops.pooling_windows import Windows
from jaxvid.ops.soft_pooling_form import FLOOR, Form, Statistics, finite
from jaxvid.ops.tpu_memory import LANES, SPILL_BYTES, VMEM_BYTES, vmem_bytes


def form(*, channels: int | None = None, interpret: bool = False) -> Form:
    """The kernels as a :class:`Form`.

    Args:
        channels: Channels of one block: all, or a multiple of 128; ``None`` takes all up to 128, else 128.
        interpret: Whether to run them as plain JAX on any backend, slowly, as tests do.
    """
    options: dict[str, Any] = {"channels": channels, "interpret": interpret}
    return Form(
        lambda x, windows: _run_statistics(x, windows, residuals=False, **options)[0],
        functools.partial(_run_statistics, residuals=True, **options),
        functools.partial(_run_gather, **options),
    )


def _run_statistics(
    x: Array, windows: Windows, *, residuals: bool, channels: int | None, interpret: bool
) -> Statistics:
    shape = (x.shape[0], *windows.outs, x.shape[-1])
    windows = windows.as_3d()
    channels, params = _check(x, windows, channels, (4,) * 3 if residuals else ())
    x = windows.pad(x.reshape(x.shape[0], *windows.sizes, x.shape[-1]))
    stride = windows.strides[0]
    out = (x.shape[0], *windows.outs, x.shape[-1])
    dtypes = [x.dtype, *([jnp.dtype(jnp.float32)] * 3 if residuals else [])]
    results = pl.pallas_call(
        functools.partial(_statistics_kernel, windows=windows),
        grid=(x.shape[0], pl.cdiv(x.shape[-1], channels), windows.outs[0]),
        in_specs=[_plane(x.shape, channels, lambda t, i=i: t * stride + i) for i in range(windows.window[0])],
        out_specs=[_plane(out, channels, lambda t: t) for _ in dtypes],
        out_shape=[jax.ShapeDtypeStruct(out, dtype) for dtype in dtypes],
        compiler_params=params,
        interpret=interpret,
    )(*[x] * windows.window[0])
    return tuple(v.reshape(shape) for v in results)  # type: ignore[return-value]


def _run_gather(
    x: Array, top: Array, a: Array, b: Array, windows: Windows, *, channels: int | None, interpret: bool
) -> Array:
    given, windows = windows, windows.as_3d()
    channels, params = _check(x, windows, channels, (), gradient=True)
    x = windows.pad(x.reshape(x.shape[0], *windows.sizes, x.shape[-1]))
    top, a, b = (v.reshape(v.shape[0], *windows.outs, v.shape[-1]) for v in (top, a, b))
    surrounded = (
        windows.surround(top, float(jnp.finfo(top.dtype).max)),
        windows.surround(a, 0),
        windows.surround(b, 0),
    )
    stride, halo = windows.strides[0], windows.halo[0]
    # The plane t is seen by the windows t // stride - j; halo windows were added before the first.
    per_window = [
        _plane(surrounded[0].shape, channels, lambda t, j=j: lax.div(t, stride) - j + halo) for j in range(halo + 1)
    ]
    gradient = pl.pallas_call(
        functools.partial(_gather_kernel, windows=windows),
        grid=(x.shape[0], pl.cdiv(x.shape[-1], channels), x.shape[1]),
        in_specs=[_plane(x.shape, channels, lambda t: t), *(spec for spec in per_window for _ in surrounded)],
        out_specs=_plane(x.shape, channels, lambda t: t),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=params,
        interpret=interpret,
    )(x, *surrounded * (halo + 1))
    return windows.unpad(gradient).reshape(x.shape[0], *given.sizes, x.shape[-1])


FORM = form()


def _plane(shape: tuple[int, ...], channels: int, time: Callable[[Any], Any]) -> pl.BlockSpec:
    """Blocks of one plane; program ``(n, c, t)`` takes the plane ``time(t)``."""
    return pl.BlockSpec((None, None, shape[2], shape[3], channels), lambda n, c, t: (n, time(t), 0, 0, c))


def _statistics_kernel(*refs: Any, windows: Windows) -> None:
    planes, results = refs[: windows.window[0]], refs[windows.window[0] :]
    _, stride, step = windows.strides
    columns = windows.outs[2]

    def row(h: Array, _: None) -> None:
        taps = [
            planes[i][pl.ds(h * stride + j, 1), pl.ds(k, columns, stride=step), :].astype(jnp.float32)
            for i, j, k in windows.taps
        ]
        highest = functools.reduce(jnp.maximum, taps)
        top = finite(highest)
        total = moment = jnp.zeros_like(top)
        for values in taps:
            d = jnp.maximum(finite(values) - top, FLOOR)
            e = jnp.exp(d)
            total, moment = total + e, moment + e * d
        mean = moment / total
        for ref, value in zip(results, (highest + mean, top, total, mean), strict=False):
            ref[pl.ds(h, 1)] = value.astype(ref.dtype)

    lax.fori_loop(0, windows.outs[1], row, None)


def _gather_kernel(x_ref: Any, *refs: Any, windows: Windows) -> None:
    *seen_by, out_ref = refs
    stride_t, stride, step = windows.strides
    columns = windows.groups[2]
    phase = lax.rem(pl.program_id(2), stride_t)

    def group(g: Array, _: None) -> None:
        for p, q in itertools.product(range(stride), range(step)):
            place = (pl.ds(g * stride + p, 1), pl.ds(q, columns, stride=step), slice(None))
            values = finite(x_ref[place].astype(jnp.float32))
            gradient = jnp.zeros_like(values)
            for j in range(windows.halo[0] + 1):
                refs = seen_by[3 * j : 3 * j + 3]
                part = jnp.zeros_like(values)
                for m, n in itertools.product(range(p, windows.window[1], stride), range(q, windows.window[2], step)):
                    start = windows.halo[2] - n // step
                    at = (pl.ds(g + windows.halo[1] - m // stride, 1), pl.ds(start, columns), slice(None))
                    top, a, b = (ref[at] for ref in refs)
                    d = jnp.maximum(values - top, FLOOR)
                    part += jnp.exp(d) * (a + b * d)
                # Whether the window reaches this plane depends on the plane's phase, which is known only here.
                gradient += jnp.where(phase + j * stride_t < windows.window[0], part, 0)
            out_ref[place] = gradient.astype(out_ref.dtype)

    lax.fori_loop(0, windows.groups[1], group, None)


def _check(
    x: Array, windows: Windows, channels: int | None, extra: tuple[int, ...], *, gradient: bool = False
) -> tuple[int, Any]:
    """Raises on what Mosaic refuses or could not place in VMEM; returns a block's channels and compiler options."""
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"the TPU kernel of softpool needs float32 or bfloat16, received {x.dtype}.")
    total = x.shape[-1]
    if channels is None:
        channels = min(total, LANES)
    if channels != total and channels % LANES:
        raise ValueError(
            f"channels of a block must be all {total} or a multiple of {LANES}, received channels={channels}."
        )
    rows, columns = (g * s for g, s in zip(windows.groups[1:], windows.strides[1:], strict=True))
    size = x.dtype.itemsize
    blocks: list[tuple[int, ...]]
    if gradient:
        inner = [o + 2 * h for o, h in zip(windows.outs[1:], windows.halo[1:], strict=True)]
        blocks = [(rows, columns, channels, size)] * 2
        blocks += [(inner[0], inner[1], channels, 4)] * 3 * (windows.halo[0] + 1)
    else:
        blocks = [(rows, columns, channels, size)] * windows.window[0]
        blocks += [(*windows.outs[1:], channels, s) for s in (size, *extra)]
    needed = vmem_bytes(blocks)
    if needed > VMEM_BYTES:
        raise ValueError(
            f"the TPU kernel of softpool holds whole planes in VMEM: window {windows.window} on planes of "
            f"{windows.sizes[1:]} with {channels} channels a block needs {needed} bytes of the {VMEM_BYTES} there are."
        )
    semantics = ("parallel", "parallel", "arbitrary")
    return channels, pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=needed + SPILL_BYTES)
