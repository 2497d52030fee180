"""SoftPool in plain XLA: a sum over the window's taps, or axis by axis for windows of very many taps.

Milliseconds of processor time, float32: this, its gradient, and both of ``softpool_reference``:

=================  ======================  ========  ==========  ========  ==========
input              window / strides        forward   gradient    plain     gradient
=================  ======================  ========  ==========  ========  ==========
4x8x56x56x64       2 2 2 / 2 2 2           4.3       68          150       423
4x8x56x56x64       1 3 3 / 1 2 2           8.2       70          501       927
4x8x56x56x64       3 3 3 / 2 2 2           11        64          542       1211
4x8x28x28x64       3 3 3 / 1 1 1           19        69          1008      2083
=================  ======================  ========  ==========  ========  ==========

Least of 5 calls after a warm-up under ``jit``: ``time.process_time`` around ``softpool(x, ...)`` and the gradient of
the sum of its sines; jax 0.10.2, two shared cores of an AMD EPYC with AVX-512. All gradients compile in about a second.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxvid.ops.pooling_windows import Tap, Windows
from jaxvid.ops.soft_pooling_form import FLOOR, MAX_TAPS, Form, Statistics, finite


def tap(phases: Array, k: Tap, windows: Windows) -> Array:
    """Tap ``k`` of every window, of :meth:`Windows.split`'s view: ``[N, *outs, C]``."""
    index: list[slice | int] = [slice(None)]
    for entry, stride, out in zip(k, windows.strides, windows.outs, strict=True):
        index += [slice(entry // stride, entry // stride + out), entry % stride]
    return phases[tuple(index)]


def _pool(x: Array, windows: Windows) -> Array:
    if windows.num_taps > MAX_TAPS:
        return _statistics_by_axes(x, windows)[0]
    taps = _taps(x, windows)
    top = lax.stop_gradient(functools.reduce(jnp.maximum, taps))
    total, moment = _sums(taps, finite(top))
    return (top + moment / total).astype(x.dtype)


def _statistics(x: Array, windows: Windows) -> Statistics:
    if windows.num_taps > MAX_TAPS:
        return _statistics_by_axes(x, windows)
    taps = _taps(x, windows)
    top = lax.stop_gradient(functools.reduce(jnp.maximum, taps))
    total, moment = _sums(taps, finite(top))
    mean = moment / total
    y = (top + mean).astype(x.dtype)
    top = finite(top)
    if jax.default_backend() == "cpu":
        # A fused loop has one result on CPU, and exponentials that two loops want are written to memory, one array a
        # tap. Behind the barrier the total has its own: twice the arithmetic, a fifth of the time for 3x3x3.
        top = _materialize(top)
        total, _ = _sums(taps, top)
    return y, top, total, mean


def _gather(x: Array, top: Array, a: Array, b: Array, windows: Windows) -> Array:
    if windows.num_taps > MAX_TAPS:
        return _gather_by_axes(x, top, a, b, windows)
    phases = windows.split(windows.pad(x))
    top = windows.surround(top, float(jnp.finfo(top.dtype).max))
    a, b = windows.surround(a, 0), windows.surround(b, 0)
    out = jnp.zeros(phases.shape, x.dtype)
    for phase in windows.phases:
        inside = (slice(None), *itertools.chain.from_iterable((slice(None), p) for p in phase))
        values = finite(phases[inside].astype(top.dtype))
        total = jnp.zeros_like(values)
        for k in windows.taps_of(phase):
            # Group g is tap k of window g - k // stride.
            starts = [h - e // s for h, e, s in zip(windows.halo, k, windows.strides, strict=True)]
            seen = (slice(None), *(slice(i, i + g) for i, g in zip(starts, windows.groups, strict=True)))
            d = jnp.maximum(values - top[seen], FLOOR)
            total += jnp.exp(d) * (a[seen] + b[seen] * d)
        # Written in place, one phase after the other: on CPU this is much faster than interleaving a stack.
        shape, start = [x.shape[0]], [0]
        for p, g in zip(phase, windows.groups, strict=True):
            shape, start = [*shape, g, 1], [*start, 0, p]
        out = lax.dynamic_update_slice(out, total.astype(x.dtype).reshape(*shape, x.shape[-1]), [*start, 0])
    extents = (g * s for g, s in zip(windows.groups, windows.strides, strict=True))
    return windows.unpad(out.reshape(x.shape[0], *extents, x.shape[-1]))


FORM = Form(_pool, _statistics, _gather)


def _taps(x: Array, windows: Windows) -> list[Array]:
    phases = windows.split(windows.pad(x))
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return [tap(phases, k, windows).astype(dtype) for k in windows.taps]


def _sums(taps: list[Array], top: Array) -> tuple[Array, Array]:
    """``sum exp(d)`` and ``sum exp(d) d``."""
    total = moment = jnp.zeros_like(top)
    for values in taps:
        d = jnp.maximum(finite(values) - top, FLOOR)
        e = jnp.exp(d)
        total, moment = total + e, moment + e * d
    return total, moment


def _materialize(values: Array) -> Array:
    """The same values, behind a wall that XLA's CPU compiler does not fuse or share computations through.

    A loop that never runs: the compiler removes ``optimization_barrier`` before it fuses, but not this, because the
    number of iterations went through such a barrier and is unknown while loops are simplified.
    """
    never = lax.optimization_barrier(jnp.zeros((), jnp.int32))
    return lax.fori_loop(0, never, lambda _, v: 2 * v, values)


def _statistics_by_axes(x: Array, windows: Windows) -> Statistics:
    """Axis by axis, the statistics of parts merged to those of the whole; the program's size is that of one tap."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    top = windows.pad(x).astype(dtype)
    total, moment = jnp.ones_like(top), jnp.zeros_like(top)
    axes = list(enumerate(zip(windows.window, windows.strides, windows.outs, strict=True), start=1))
    for axis, (k, s, out) in reversed(axes):
        index = np.arange(out)[:, None] * s + np.arange(k)
        parts, totals, moments = (jnp.take(v, index, axis=axis) for v in (top, total, moment))
        top = lax.stop_gradient(parts.max(axis + 1))
        # Only the first part's d carries a derivative: afterwards parts are maxima, which are constants here.
        d = jnp.maximum(finite(parts) - jnp.expand_dims(finite(top), axis + 1), FLOOR)
        e = jnp.exp(d)
        total = (e * totals).sum(axis + 1)
        moment = (e * (moments + d * totals)).sum(axis + 1)
    mean = moment / total
    return (top + mean).astype(x.dtype), finite(top), total, mean


def _gather_by_axes(x: Array, top: Array, a: Array, b: Array, windows: Windows) -> Array:
    """Axis by axis, the windows that see an entry merged to one: ``exp(d) (a + b d)`` is closed under such sums."""
    largest = float(jnp.finfo(top.dtype).max)
    axes = zip(windows.window, windows.strides, windows.outs, windows.groups, strict=True)
    for axis, (k, s, out, groups) in enumerate(axes, start=1):
        place = np.arange(groups * s)[:, None]
        index = place // s - np.arange((k - 1) // s + 1)
        sees = (index >= 0) & (index < out) & (place - index * s < k)
        index = np.where(sees, index, out)  # beyond the end: take fills
        tops = jnp.take(top, index, axis=axis, mode="fill", fill_value=largest)
        parts_a, parts_b = (jnp.take(v, index, axis=axis, mode="fill", fill_value=0) for v in (a, b))
        top = tops.min(axis + 1)
        d = jnp.maximum(jnp.expand_dims(top, axis + 1) - tops, FLOOR)
        e = jnp.exp(d)
        a = (e * (parts_a + parts_b * d)).sum(axis + 1)
        b = (e * parts_b).sum(axis + 1)
    d = jnp.maximum(finite(windows.pad(x).astype(top.dtype)) - top, FLOOR)
    return windows.unpad((jnp.exp(d) * (a + b * d)).astype(x.dtype))
