"""3-D convolution in four formulations that compute the same numbers.

``implementation=None`` is ``direct`` everywhere but on CPU: there it is ``folded``, or ``shifted`` where the kernel is
depthwise. Milliseconds, forward / forward with both gradients, float32; batch 16 at the shapes of an r3d_18 of width 16
on 16x64x64, then batch 2 at width 64 (``docs/operators_cpu.md`` has all, made by ``jaxvid bench ops``):

=============================  =============  =============
layer                          direct         folded
=============================  =============  =============
3x7x7, 3 -> 16, stride 1 2 2   584 / 1789     88 / 148
3x3x3, 16 -> 16, 8x16x16       33 / 71        6.0 / 16
3x3x3, 16 -> 32, stride 2      3.3 / 217      1.5 / 5.7
3x3x3, 32 -> 32, 4x8x8         6.8 / 19       1.8 / 4.6
3x3x3, 64 -> 64, 2x4x4         1.9 / 5.7      0.8 / 2.4
3x3x3, 128 -> 128, 1x2x2       1.4 / 4.2      0.3 / 0.7
1x1x1, 16 -> 32, stride 2      0.2 / 11       0.1 / 0.4
3x1x1, 32 -> 16, 8x16x16       7.6 / 16       1.2 / 6.3
3x3x3, 64 -> 64, 8x56x56       175 / 605      92 / 214
1x3x3, 64 -> 64, 8x56x56       62 / 248       39 / 78
3x1x1, 64 -> 64, 8x56x56       21 / 82        7.0 / 32
=============================  =============  =============

Depthwise, batch 2, ``folded`` and ``shifted``: 3x3x3, 108 channels, 16x28x28: 70 / 147 and 5.1 / 23. Grouped 3x3x3,
batch 2, ``direct`` and ``folded``, in processor time: 32 groups of 4 channels, 8x28x28: 516 / 1647 and 29 / 123; 32
groups of 16, 8x14x14: 249 / 3952 and 83 / 238. (Folded, but with XLA's own groups: 179 / 21716 and 146 / 21865.)

Medians of 3 runs; jax 0.10.2, two shared cores of an AMD EPYC with AVX-512. A 2-D convolution without any padding is
far slower there than one with some (3x3, 32 -> 32, 16x56x56: 39 / 91 ms; with a column more, whose output is cut off,
9 / 30), so ``folded`` pads where the caller does not. No GPU or TPU was measured: there ``direct`` is the form that
their libraries are written for, and the depthwise kernels of ``pallas`` are tested to lower and to be right, but are
nobody's default.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
from jax import lax

from jaxvid.ops.choices import require_choice
from jaxvid.ops.depthwise import depthwise_conv3d
from jaxvid.ops.depthwise_form import Geometry
from jaxvid.ops.folded import conv3d_folded
from jaxvid.ops.grouped import convolve_in_place

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

IMPLEMENTATIONS = ("direct", "folded", "shifted", "pallas")


def conv3d(
    x: Float[Array, "N T H W I"],
    kernel: Float[Array, "kT kH kW J O"],
    strides: Size3 = (1, 1, 1),
    padding: str | Sequence[int | tuple[int, int]] = "SAME",
    *,
    dilation: Size3 = (1, 1, 1),
    groups: int = 1,
    implementation: str | None = None,
) -> Float[Array, "N To Ho Wo O"]:
    """Convolves a video with a 3-D kernel (cross-correlation, as everywhere in deep learning).

    Args:
        x: Activations.
        kernel: ``J = I / groups`` input channels per group; cast to the dtype of ``x``.
        strides: Steps in frames, rows, columns.
        padding: ``"SAME"``, ``"VALID"`` (both as in XLA), or per axis one number for both sides or a pair.
        dilation: Distance of the kernel's taps.
        groups: Number of channel groups that do not see each other.
        implementation: ``direct`` is XLA's 3-D convolution; ``folded`` is made of 2-D convolutions and matrix products,
            with time folded into the batch, of several groups at a time; ``shifted`` is a sum of the shifted input
            times each tap, for depthwise kernels only (``groups`` equal to ``I`` and ``O``; no
            forward-mode derivatives); ``pallas`` is the same in hand-written kernels for the TPU or GPU that is the
            default backend (up to 64 taps, dilation 1); ``None`` takes the fastest one for this backend and shape, and
            never ``pallas``: it was not timed on a device.

    Returns:
        The result in the dtype of ``x``. Under data sharding every sample stays on its device, in the gradients too.
        ``direct`` with groups has derivatives in reverse mode only.

    Raises:
        ValueError: Unknown implementation, wrong ranks, channels that do not fit, or ``shifted`` or ``pallas`` where
            it has no kernel.
    """
    pads = _check(x, kernel, strides, padding, dilation, groups, implementation)
    kernel = kernel.astype(x.dtype)
    depthwise = groups == x.shape[-1] == kernel.shape[-1]
    implementation = implementation or _choose(depthwise)
    if implementation in ("shifted", "pallas"):
        if not depthwise:
            raise ValueError(
                f"implementation={implementation!r} must have a depthwise kernel (groups equal to I and O), received "
                f"groups={groups}, I={x.shape[-1]}, O={kernel.shape[-1]}."
            )
        geometry = Geometry(x.shape[1:4], kernel.shape[:3], tuple(strides), pads, tuple(dilation))
        return depthwise_conv3d(x, kernel, geometry, implementation)
    function = _conv3d_direct if implementation == "direct" else conv3d_folded
    return function(x, kernel, tuple(strides), pads, tuple(dilation), groups)


def _choose(depthwise: bool) -> str:
    if jax.default_backend() != "cpu":
        return "direct"
    return "shifted" if depthwise else "folded"


def _conv3d_direct(x: Array, kernel: Array, strides: tuple, pads: tuple, dilation: tuple, groups: int) -> Array:
    convolve = functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=pads,
        rhs_dilation=dilation,
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=groups,
    )
    return convolve(x, kernel) if groups == 1 else convolve_in_place(convolve, x, kernel)


def _check(
    x: Array,
    kernel: Array,
    strides: Size3,
    padding: str | Sequence[int | tuple[int, int]],
    dilation: Size3,
    groups: int,
    implementation: str | None,
) -> tuple[tuple[int, int], ...]:
    """Raises on what cannot be meant, and returns the padding as three pairs."""
    if implementation is not None:
        require_choice("implementation", implementation, IMPLEMENTATIONS)
    if x.ndim != 5 or kernel.ndim != 5:
        raise ValueError(
            f"x must have the axes N T H W I and kernel kT kH kW I O, received shapes {x.shape} and {kernel.shape}."
        )
    if x.shape[-1] != kernel.shape[3] * groups or kernel.shape[4] % groups:
        raise ValueError(
            f"kernel must have I / groups input channels and a multiple of groups output channels, "
            f"received I={x.shape[-1]}, groups={groups}, kernel shape {kernel.shape}."
        )
    for name, values in (("strides", strides), ("dilation", dilation)):
        if len(values) != 3 or min(values) < 1:
            raise ValueError(f"{name} must be three numbers >= 1 (T, H, W), received {name}={tuple(values)}.")
    sizes = x.shape[1:4]
    extent = [d * (k - 1) + 1 for k, d in zip(kernel.shape[:3], dilation, strict=True)]
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(
                f"padding must be 'SAME', 'VALID' or three numbers or pairs, received padding={padding!r}."
            )
        pads = lax.padtype_to_pads(sizes, extent, strides, padding)
    else:
        if len(padding) != 3:
            raise ValueError(f"padding must have three entries (T, H, W), received padding={tuple(padding)}.")
        pads = [(low, high) for low, high in ((p, p) if isinstance(p, int) else p for p in padding)]
    for axis, size, (low, high), need in zip("THW", sizes, pads, extent, strict=True):
        if size + low + high < need:
            raise ValueError(
                f"the kernel must fit into the padded input, received {size} + {low} + {high} along {axis} "
                f"for a kernel that spans {need}."
            )
    return tuple(pads)
