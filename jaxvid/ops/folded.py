"""3-D convolution out of 2-D convolutions and matrix products, shaped by what XLA's CPU backend is fast at.

The numbers that choose a form were measured there (:mod:`jaxvid.ops.convolution` has the table); the forms themselves
compute the same everywhere.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxvid.ops.depthwise_form import Geometry, out_size

CONCAT_CHANNELS = 4
"""Up to this many input channels (RGB, in a stem) ``folded`` is one 2-D convolution of concatenated frames."""

SLOW_CHANNELS = 16
"""XLA's fast convolutions on CPU begin above so many channels, of the input or of the output. Below, ``folded``
concatenates frames too, and where that is not enough gives ``PACKED_FRAMES`` output frames at once."""
PACKED_FRAMES = 2

SMALL_PIXELS = 64
WIDE_CHANNELS = 256
"""Pictures of at most so many pixels and at least so many channels, and those that are smaller than the kernel, are
multiplied patch by patch: there XLA's convolutions on CPU take 2 to 30 times longer than a matrix product."""

MINIMAL_FRAMES = 4
"""From so many frames on, a kernel of three taps in time takes the fewest multiplications (``_fold_minimal``), and one
of single pixels is one convolution along time."""
MINIMAL_PAIRS = 2
MINIMAL_DTYPES = (jnp.float32, jnp.float64)
"""``_fold_minimal`` makes so many pairs of frames at a time, which XLA computes side by side; below float32 the sums
and differences of frames that it convolves would be rounded too much."""

LARGE_FLOPS = 5e8
GRADIENT_PARTS = 8
"""From so much arithmetic on, ``folded`` computes a kernel's gradient as a sum over so many stretches of time: XLA's
CPU convolution reads from a cache then, and several run side by side."""

GROUPED_CHANNELS = 32
GROUPED_PARTS = 8
"""``folded`` takes groups together up to so many channels, or more where that would be more parts than these."""


def conv3d_folded(x: Array, kernel: Array, strides: tuple, pads: tuple, dilation: tuple, groups: int) -> Array:
    """See :func:`jaxvid.ops.convolution.conv3d`, which has checked everything.

    Args:
        x: Activations ``[N T H W I]``.
        kernel: ``[kT kH kW I/groups O]``, of the dtype of ``x``.
        strides: Steps along T, H, W.
        pads: Padding before and after, along T, H, W.
        dilation: Distance of the taps along T, H, W.
        groups: Number of channel groups.

    Returns:
        ``[N To Ho Wo O]``.
    """
    if groups > 1:
        return _fold_groups(x, kernel, strides, pads, dilation, groups)
    kernel, pads = _drop_blind_taps(x, kernel, strides, pads, dilation)
    (height, width, channels), (taps, *window) = x.shape[2:], kernel.shape[:3]
    if window == [1, 1] and not any(map(sum, pads[1:])):
        x = x[:, :, :: strides[1], :: strides[2]]
        return _fold_pointwise(x, kernel[:, 0, 0], strides[0], pads[0], dilation[0])
    small = height * width <= SMALL_PIXELS and channels >= WIDE_CHANNELS
    if small or window[0] > height or window[1] > width:
        return _multiply_patches(x, kernel, strides, pads, dilation)
    narrow = taps > 1 and max(kernel.shape[3:]) <= SLOW_CHANNELS
    if narrow or channels <= CONCAT_CHANNELS:
        return _fold_concatenated(x, kernel, strides, pads, dilation)
    long = x.shape[1] + sum(pads[0]) - 2 >= MINIMAL_FRAMES
    if long and taps == 3 and strides[0] == dilation[0] == 1 and x.dtype in MINIMAL_DTYPES:
        return _fold_minimal(x, kernel, strides[1:], pads, dilation[1:])
    convolve = functools.partial(_conv2d, strides=strides[1:], pads=pads[1:], dilation=dilation[1:])
    return _sum_over_taps(convolve, x, kernel, strides[0], pads[0], dilation[0])


def _drop_blind_taps(x: Array, kernel: Array, strides: tuple, pads: tuple, dilation: tuple) -> tuple[Array, tuple]:
    """The kernel without the outer taps that see nothing but padding, and the padding that is left then."""
    kept, left = [], []
    for axis, (stride, (low, high), step) in enumerate(zip(strides, pads, dilation, strict=True)):
        size, taps = x.shape[1 + axis], kernel.shape[axis]
        outs = out_size(size, taps, stride, (low, high), step)
        sees = [k for k in range(taps) if _seeing(size, outs, stride, k - low)] if step == 1 else []
        first, last = (sees[0], sees[-1]) if sees else (0, taps - 1)
        kept.append(slice(first, last + 1))
        left.append((low - first, high - (taps - 1 - last)))
    return kernel[tuple(kept)], tuple(left)


def _seeing(size: int, outs: int, stride: int, offset: int) -> range:
    """Which of the outputs of one axis see an entry, and no padding, at ``output * stride + offset``."""
    return range(max(0, -(offset // stride)), min(outs, (size - 1 - offset) // stride + 1))


def _fold_groups(x: Array, kernel: Array, strides: tuple, pads: tuple, dilation: tuple, groups: int) -> Array:
    """Dense convolutions of several groups at a time, with zeros in the kernel where a group would see another one."""
    inputs, outputs = kernel.shape[3], kernel.shape[4] // groups
    wide = max(GROUPED_CHANNELS, x.shape[-1] // GROUPED_PARTS)
    count = max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * max(inputs, outputs) <= wide))
    own = jnp.eye(count, dtype=bool)[:, None, :, None]
    parts = []
    for first in range(0, groups, count):
        taps = kernel[..., first * outputs : (first + count) * outputs].reshape(
            *kernel.shape[:3], 1, inputs, count, outputs
        )
        taps = jnp.where(own, taps, 0).reshape(*kernel.shape[:3], count * inputs, count * outputs)
        seen = x[..., first * inputs : (first + count) * inputs]
        parts.append(conv3d_folded(seen, taps, strides, pads, dilation, 1))
    return jnp.concatenate(parts, axis=-1)


def _sum_over_taps(
    convolve: Callable[[Array, Array], Array], x: Array, kernel: Array, stride: int, pads: tuple, step: int
) -> Array:
    """``convolve`` of the frames that each tap in time really sees; the results are added."""
    outs = out_size(x.shape[1], len(kernel), stride, pads, step)
    parts = []
    for k in range(len(kernel)):
        offset = k * step - pads[0]
        seeing = _seeing(x.shape[1], outs, stride, offset)
        if seeing:  # what the other outputs see is padding, and that adds nothing
            start = seeing[0] * stride + offset
            seen = lax.slice_in_dim(x, start, start + (len(seeing) - 1) * stride + 1, stride, axis=1)
            parts.append(_pad(convolve(seen, kernel[k]), 1, seeing[0], outs - 1 - seeing[-1]))
    if not parts:
        frame = jax.eval_shape(convolve, x[:, :1], kernel[0])
        return jnp.zeros((len(x), outs, *frame.shape[2:]), x.dtype)
    return functools.reduce(operator.add, parts)


def _fold_minimal(x: Array, kernel: Array, strides: tuple, pads: tuple, dilation: tuple) -> Array:
    """Two output frames from four 2-D convolutions, not six: minimal filtering F(2, 3) along time.

    Source: S. Winograd, "Arithmetic complexity of computations" (1980); A. Lavin and S. Gray, "Fast algorithms for
    convolutional neural networks" (2016), section 4.1. In float32 its rounding is that of the sum over taps.
    """
    convolve = functools.partial(_conv2d, strides=strides, pads=pads[1:], dilation=dilation)
    outs = x.shape[1] + sum(pads[0]) - 2
    pairs = -(-outs // 2)
    x = _pad(x, 1, pads[0][0], 2 * pairs + 2 - x.shape[1] - pads[0][0])
    ends = (kernel[0] + kernel[2]) / 2
    filters = (kernel[0], ends + kernel[1] / 2, ends - kernel[1] / 2, kernel[2])
    stretches = []
    for first in range(0, pairs, MINIMAL_PAIRS):
        count = min(MINIMAL_PAIRS, pairs - first)
        starts = range(2 * first, 2 * first + 4)
        a, b, c, d = (lax.slice_in_dim(x, start, start + 2 * count - 1, 2, axis=1) for start in starts)
        parts = (a - c, b + c, c - b, b - d)
        p, q, r, s = map(convolve, parts, filters)
        even, odd = p + q + r, q - r - s
        stretches.append(jnp.stack([even, odd], axis=2).reshape(len(x), 2 * count, *even.shape[2:]))
    return jnp.concatenate(stretches, axis=1)[:, :outs]


def _fold_concatenated(x: Array, kernel: Array, strides: tuple, pads: tuple, dilation: tuple) -> Array:
    """One 2-D convolution, whose input channels are all the frames that ``pack`` output frames see."""
    taps, height, width, channels, features = kernel.shape
    stride, step = strides[0], dilation[0]
    out_frames = out_size(x.shape[1], taps, stride, pads[0], step)
    pack = min(out_frames, PACKED_FRAMES if max(taps * channels, features) <= SLOW_CHANNELS else 1)
    blocks = -(-out_frames // pack)
    reach = step * (taps - 1) + 1
    seen = range(0, reach, step) if pack == 1 else range((pack - 1) * stride + reach)
    span = (blocks - 1) * pack * stride + 1
    x = _pad(x, 1, pads[0][0], span + seen[-1] - x.shape[1] - pads[0][0])
    frames = [lax.slice_in_dim(x, k, k + span, pack * stride, axis=1) for k in seen]
    if pack > 1:  # output frame k of a block sees its input frames from k * stride on
        kernel = _pad(kernel, 0, 0, 0, step - 1)
        shifts = [k * stride for k in range(pack)]
        kernel = jnp.stack([_pad(kernel, 0, shift, shifts[-1] - shift) for shift in shifts], axis=4)
    kernel = jnp.moveaxis(kernel, 0, 2).reshape(height, width, -1, pack * features)
    y = _conv2d(jnp.concatenate(frames, axis=-1), kernel, strides[1:], pads[1:], dilation[1:])
    y = jnp.moveaxis(y.reshape(*y.shape[:4], pack, features), 4, 2)
    return y.reshape(x.shape[0], blocks * pack, *y.shape[3:])[:, :out_frames]


def _pad(x: Array, axis: int, before: int, after: int, between: int = 0) -> Array:
    """Zeros around and between the entries of one axis; a negative number cuts off."""
    sides = [(0, 0, 0)] * x.ndim
    sides[axis] = (before, after, between)
    return lax.pad(x, jnp.zeros((), x.dtype), sides)


def _fold_pointwise(x: Array, kernel: Array, stride: int, pads: tuple[int, int], step: int) -> Array:
    """Convolves along time only, with ``[kT I O]``: matrix products."""
    if len(kernel) > 1 and stride == step == 1 and x.shape[1] >= MINIMAL_FRAMES:
        return _convolve_time(x, kernel, pads)
    return _sum_over_taps(_multiply, x, kernel, stride, pads, step)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _convolve_time(x: Array, kernel: Array, pads: tuple[int, int]) -> Array:
    """One 2-D convolution over time and all pixels in a row, which copies no frames."""
    rows = x.reshape(len(x), 1, x.shape[1], -1, x.shape[4])
    y = _convolve(rows, kernel[:, None], (1, 1), (pads, (0, 0)), (1, 1))
    return y.reshape(len(x), -1, *x.shape[2:4], kernel.shape[2])


@_convolve_time.defjvp
def _convolve_time_jvp(pads: tuple[int, int], primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """The derivative by the kernel is one product per tap, and so is the gradient: of all frames, shifted after it."""
    (x, kernel), (of_x, of_kernel) = primals, tangents
    outs = x.shape[1] + sum(pads) - len(kernel) + 1
    shifts = [pads[0] - k for k in range(len(kernel))]
    by_taps = [_pad(_multiply(x, of_kernel[k]), 1, shift, outs - x.shape[1] - shift) for k, shift in enumerate(shifts)]
    return _convolve_time(x, kernel, pads), functools.reduce(operator.add, by_taps, _convolve_time(of_x, kernel, pads))


def _conv2d(x: Array, kernel: Array, strides: tuple, pads: tuple, dilation: tuple) -> Array:
    """Convolves every frame of ``[N T H W I]`` with ``[kH kW I O]``."""
    if any(map(sum, pads)):
        return _convolve(x, kernel, strides, pads, dilation)
    # XLA's CPU convolutions without any padding take up to 7 times longer.
    y = _convolve(x, kernel, strides, ((0, 0), (0, 1)), dilation)
    return y[:, :, :, : out_size(x.shape[3], kernel.shape[1], strides[1], (0, 0), dilation[1])]


def _multiply_patches(x: Array, kernel: Array, strides: tuple, pads: tuple, dilation: tuple) -> Array:
    """One matrix product, of what each pixel sees and the kernel."""
    geometry = Geometry(x.shape[1:4], kernel.shape[:3], strides, pads, dilation)
    x = geometry.pad_zeros(x)
    seen = [geometry.see(x, tap) for tap in geometry.taps]
    return _multiply(jnp.concatenate(seen, axis=-1), kernel.reshape(-1, kernel.shape[4]))


def _multiply(x: Array, kernel: Array) -> Array:
    """``[... I]`` times ``[I O]``, as one matrix: XLA's CPU products of more axes transpose copies in the gradient."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _convolve(x: Array, kernel: Array, strides: tuple, pads: tuple, dilation: tuple) -> Array:
    y = lax.conv_general_dilated(
        x.reshape(-1, *x.shape[2:]),
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])


@_convolve.defjvp
def _convolve_jvp(strides: tuple, pads: tuple, dilation: tuple, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """The derivative by the kernel, in parts, so that the gradient of the kernel is a sum over parts."""
    (x, kernel), (of_x, of_kernel) = primals, tangents
    convolve = functools.partial(_convolve, strides=strides, pads=pads, dilation=dilation)
    y = convolve(x, kernel)
    parts = min(x.shape[1], GRADIENT_PARTS if 2 * y.size * kernel[..., 0].size >= LARGE_FLOPS else 1)
    ends = [x.shape[1] * k // parts for k in range(parts + 1)]
    # Along time: the other axis may lie on several devices.
    seen = [lax.slice_in_dim(x, *pair, axis=1) for pair in itertools.pairwise(ends)]
    return y, convolve(of_x, kernel) + jnp.concatenate([convolve(part, of_kernel) for part in seen], axis=1)
