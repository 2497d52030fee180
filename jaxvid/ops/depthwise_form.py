"""What every formulation of a depthwise 3-D convolution is, and where the taps of a convolution lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxvid.ops.pooling_windows import Tap, Windows


def out_size(size: int, taps: int, stride: int, pads: tuple[int, int], dilation: int) -> int:
    """How many windows of taps ``dilation`` apart lie along one padded axis."""
    return (size + sum(pads) - dilation * (taps - 1) - 1) // stride + 1


@dataclasses.dataclass(frozen=True)
class Geometry(Windows):
    """Windows whose taps are ``dilation`` apart; the polyphase view of :class:`Windows` is that of dilation 1.

    Attributes:
        dilation: Distance of the taps along each axis.
    """

    dilation: tuple[int, ...] = (1, 1, 1)

    @property
    def outs(self) -> tuple[int, ...]:
        """Number of windows along each axis."""
        axes = zip(self.sizes, self.window, self.strides, self.pads, self.dilation, strict=True)
        return tuple(out_size(*axis) for axis in axes)

    def pad_zeros(self, x: Array) -> Array:
        """Pads ``[N T H W C]`` as :meth:`see` takes it, and crops nothing."""
        sides = [(low, high, 0) for low, high in self.pads]
        return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *sides, (0, 0, 0)])

    def see(self, x: Array, tap: Tap, outs: tuple[int, ...] | None = None) -> Array:
        """What one tap sees of the padded ``[N T H W C]``, of all windows or of the first ``outs``."""
        starts = [entry * step for entry, step in zip(tap, self.dilation, strict=True)]
        axes = zip(starts, self.outs if outs is None else outs, self.strides, strict=True)
        limits = [start + (count - 1) * stride + 1 for start, count, stride in axes]
        return lax.slice(x, (0, *starts, 0), (x.shape[0], *limits, x.shape[4]), (1, *self.strides, 1))


class Form(NamedTuple):
    """One formulation; the gradient of the input is made of ``convolve``.

    Attributes:
        convolve: ``(x [N T H W C], kernel [kT kH kW 1 C], geometry) -> [N To Ho Wo C]`` in the dtype of ``x``, with
            padding of zeros.
        of_kernel: ``(x, g [N To Ho Wo C], geometry) -> [kT kH kW 1 C]``, the sums of ``x`` at a tap times ``g``, in
            float32 (float64 for float64).
        divisible: Whether XLA knows by itself that the batch may be divided among devices.
    """

    convolve: Callable[[Array, Array, Geometry], Array]
    of_kernel: Callable[[Array, Array, Geometry], Array]
    divisible: bool
