"""3-D convolution in two formulations that compute the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.ops.choices import require_choice

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3

IMPLEMENTATIONS = ("direct", "folded")


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
        implementation: ``direct`` is XLA's 3-D convolution; ``folded`` is a sum over the kernel's frames of 2-D
            convolutions with time folded into the batch; ``None`` takes the faster one for this backend and shape.

    Returns:
        The result in the dtype of ``x``.

    Raises:
        ValueError: Unknown implementation, wrong ranks, or channels that do not fit.
    """
    pads = _check(x, kernel, strides, padding, dilation, groups, implementation)
    kernel = kernel.astype(x.dtype)
    name = implementation or _choose(kernel)
    function = _conv3d_direct if name == "direct" else _conv3d_folded
    return function(x, kernel, tuple(strides), pads, tuple(dilation), groups)


def _choose(kernel: Array) -> str:
    return "folded" if jax.default_backend() == "cpu" and max(kernel.shape[:3]) > 1 else "direct"


def _conv3d_direct(x: Array, kernel: Array, strides: Size3, pads: tuple, dilation: Size3, groups: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=groups,
    )


def _conv3d_folded(x: Array, kernel: Array, strides: Size3, pads: tuple, dilation: Size3, groups: int) -> Array:
    x = jnp.pad(x, ((0, 0), pads[0], (0, 0), (0, 0), (0, 0)))
    n, frames, height, width, channels = x.shape
    taps = kernel.shape[0]
    out_frames = (frames - dilation[0] * (taps - 1) - 1) // strides[0] + 1
    total = None
    for k in range(taps):
        start = k * dilation[0]
        seen = x[:, start : start + (out_frames - 1) * strides[0] + 1 : strides[0]]
        part = lax.conv_general_dilated(
            seen.reshape(n * out_frames, height, width, channels),
            kernel[k],
            strides[1:],
            pads[1:],
            rhs_dilation=dilation[1:],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        total = part if total is None else total + part
    return total.reshape(n, out_frames, *total.shape[1:])


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
        pads = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    for axis, size, (low, high), need in zip("THW", sizes, pads, extent, strict=True):
        if size + low + high < need:
            raise ValueError(
                f"the kernel must fit into the padded input, received {size} + {low} + {high} along {axis} "
                f"for a kernel that spans {need}."
            )
    return tuple(pads)
