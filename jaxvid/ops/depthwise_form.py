"""What every formulation of a depthwise 3-D convolution is, and where its taps lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from jax import Array

from jaxvid.ops.pooling_windows import Windows


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
        return tuple((n + low + high - d * (k - 1) - 1) // s + 1 for n, k, s, (low, high), d in axes)


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
