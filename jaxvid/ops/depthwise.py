"""Depthwise 3-D convolution: its gradients, which all of its forms share, and shifts and sums in plain XLA.

The shifts are what a CPU can do well where its libraries cannot; kernels for TPU and GPU are in files of their own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxvid.ops.choices import pallas_form
from jaxvid.ops.depthwise_form import Form, Geometry
from jaxvid.ops.grouped import KERNEL, Y, solve

if TYPE_CHECKING:
    from jaxtyping import Float

SUMS_AT_ONCE = 64
"""The kernel's gradient of ``shifted`` takes the sums of so many taps in one reduction."""

MAX_TAPS = 64
"""The kernels for TPU and GPU unroll no more taps than this."""


def depthwise_conv3d(
    x: Float[Array, "N T H W C"], kernel: Float[Array, "kT kH kW 1 C"], geometry: Geometry, implementation: str
) -> Float[Array, "N To Ho Wo C"]:
    """Adds up, over the taps of the kernel, the shifted input times that tap; float32 inside.

    Derivatives of any order in reverse mode; forward mode needs another formulation. A sharded batch stays where it is.

    Args:
        x: Activations.
        kernel: One channel in, one channel out, for each of the ``C`` groups; of the dtype of ``x``.
        geometry: Sizes, taps, strides, padding and dilation along T, H, W.
        implementation: ``shifted`` or ``pallas``.

    Returns:
        The result in the dtype of ``x``.

    Raises:
        ValueError: ``pallas`` where it has no kernel.
    """
    form = FORM if implementation == "shifted" else _pallas(geometry)
    return solve(Depthwise(geometry, form), Y, x, kernel)


def _pallas(geometry: Geometry) -> Form:
    if geometry.num_taps > MAX_TAPS or max(geometry.dilation) > 1:
        raise ValueError(
            f"implementation='pallas' takes kernels of at most {MAX_TAPS} taps and dilation 1, received "
            f"kernel size {geometry.window}, dilation={geometry.dilation}."
        )
    return pallas_form("depthwise")


@dataclasses.dataclass(frozen=True)
class Depthwise:
    """A depthwise convolution in some form, as a :class:`jaxvid.ops.grouped.Trilinear`."""

    geometry: Geometry
    form: Form

    @property
    def divisible(self) -> bool:
        """Of plain XLA."""
        return self.form.divisible

    def solve(self, wanted: int, first: Array, second: Array) -> Array:
        """See :class:`jaxvid.ops.grouped.Trilinear`."""
        if wanted == Y:
            return self.form.convolve(first, second, self.geometry)
        if wanted == KERNEL:
            return self.form.of_kernel(first, second, self.geometry).astype(first.dtype)
        return _of_input(first, second, self.geometry, self.form)


def _of_input(kernel: Array, g: Array, geometry: Geometry, form: Form) -> Array:
    """For every phase of the strides, a convolution of ``g`` with the taps that fall on it, in reverse."""
    sizes, strides = geometry.sizes, geometry.strides
    axes = zip(sizes, geometry.window, strides, geometry.pads, geometry.dilation, geometry.outs, strict=True)
    phases = list(itertools.product(*(_phases(*axis) for axis in axes)))
    groups = [math.ceil(size / stride) for size, stride in zip(sizes, strides, strict=True)]

    def of_phase(phase: tuple[_Phase, ...]) -> Array:
        part = kernel[tuple(axis.taps for axis in phase)][::-1, ::-1, ::-1]
        pads, dilation = tuple(axis.pads for axis in phase), tuple(axis.dilation for axis in phase)
        return form.convolve(g, part, Geometry(geometry.outs, part.shape[:3], (1, 1, 1), pads, dilation))

    if strides == (1, 1, 1):
        return of_phase(phases[0])
    batch, channels = g.shape[0], g.shape[-1]
    split = [size for pair in zip(groups, strides, strict=True) for size in pair]
    total = jnp.zeros((batch, *split, channels), g.dtype)
    for phase in phases:
        # Written in place, one phase after the other: on CPU this is much faster than interleaving a stack.
        start = [index for axis in phase for index in (0, axis.offset)]
        shape = [size for group in groups for size in (group, 1)]
        total = lax.dynamic_update_slice(total, of_phase(phase).reshape(batch, *shape, channels), (0, *start, 0))
    extents = [group * stride for group, stride in zip(groups, strides, strict=True)]
    total = total.reshape(batch, *extents, channels)
    return total[:, : sizes[0], : sizes[1], : sizes[2]]


class _Phase(NamedTuple):
    """Along one axis, the inputs ``offset + i * stride``, and the convolution of ``g`` that is their gradient."""

    offset: int
    taps: slice
    pads: tuple[int, int]
    dilation: int


def _phases(size: int, taps: int, stride: int, pads: tuple[int, int], dilation: int, out: int) -> Iterator[_Phase]:
    """The phases of an axis that some tap falls on."""
    common = math.gcd(stride, dilation)
    every, apart = stride // common, dilation // common
    for offset in range(min(stride, size)):
        for first in range(min(every, taps)):
            window, rest = divmod(offset + pads[0] - first * dilation, stride)
            if rest == 0:  # the input at this offset is tap `first` of this window, and later taps of earlier ones
                reach = apart * (len(range(first, taps, every)) - 1)
                after = math.ceil(size / stride) - out + window
                yield _Phase(offset, slice(first, None, every), (reach - window, after), apart)


def _shift_and_add(x: Array, kernel: Array, geometry: Geometry) -> Array:
    padded = geometry.pad_zeros(x)
    weights = kernel[..., 0, :].astype(jnp.promote_types(x.dtype, jnp.float32))
    total = jnp.zeros((), weights.dtype)
    for tap in geometry.taps:
        total = total + geometry.see(padded, tap).astype(weights.dtype) * weights[tap]
    return total.astype(x.dtype)


def _sums_over_frames(x: Array, g: Array, geometry: Geometry) -> Array:
    """Frame by frame: one sum over all frames would read the input from memory once for each tap.

    Sample by sample until the last frame, so that samples on several devices are added up once.
    """
    padded = geometry.pad_zeros(x)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    size = (1, *geometry.outs[1:])

    def add_frame(total: Array, frame: tuple[Array, Array]) -> tuple[Array, None]:
        t, of_frame = frame[0], frame[1][:, None].astype(dtype)
        products = []
        for i in range(geometry.window[0]):
            start = t * geometry.strides[0] + i * geometry.dilation[0]
            plane = lax.dynamic_slice_in_dim(padded, start, 1, axis=1)
            for j, k in itertools.product(*map(range, geometry.window[1:])):
                products.append(geometry.see(plane, (0, j, k), size).astype(dtype) * of_frame)
        firsts = range(0, len(products), SUMS_AT_ONCE)
        sums = [one for first in firsts for one in _sum_each(products[first : first + SUMS_AT_ONCE])]
        return total + jnp.stack(sums), None

    start = jnp.zeros((geometry.num_taps, x.shape[0], x.shape[-1]), dtype)
    total, _ = lax.scan(add_frame, start, (jnp.arange(geometry.outs[0]), jnp.moveaxis(g, 1, 0)))
    return jnp.sum(total, axis=1).reshape(*geometry.window, 1, -1)


def _sum_each(products: list[Array]) -> Sequence[Array]:
    """The sum over T, H, W of each array, in one reduction: XLA's CPU reads what they have in common once."""
    zeros = [jnp.zeros((), product.dtype) for product in products]
    return lax.reduce(products, zeros, lambda a, b: list(map(operator.add, a, b)), (1, 2, 3))


FORM = Form(_shift_and_add, _sums_over_frames, divisible=True)
