"""SoftPool (Stergiou, Poppe & Kalliatakis, ICCV 2021): the values of a window, weighted by their own softmax."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.ops import soft_pooling_xla
from jaxvid.ops.choices import pallas_form, require_choice
from jaxvid.ops.pooling_windows import Windows
from jaxvid.ops.soft_pooling_form import FLOOR, MAX_TAPS, Form, finite

if TYPE_CHECKING:
    from jaxtyping import Array, Float

IMPLEMENTATIONS = ("xla", "pallas")
GRADIENTS = ("true", "reference")


def softpool(
    x: Float[Array, "N *spatial C"],
    window: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[int | tuple[int, int]] = "VALID",
    *,
    implementation: str | None = None,
    gradient: str = "true",
) -> Float[Array, "N *out C"]:
    r"""Pools every window to the mean of its values under their softmax, channel by channel (eq. 1 and 2).

    .. math:: y = \sum_i w_i x_i, \qquad w_i = \frac{e^{x_i}}{\sum_j e^{x_j}}, \qquad
        \frac{\partial y}{\partial x_i} = w_i (1 + x_i - y)

    Arithmetic is float32 (float64 for a float64 input) relative to the window's maximum, so that huge values and minus
    infinity stay exact; an infinite maximum is its window's result, and a NaN its window's and its gradients'.

    Args:
        x: Activations, one to three spatial axes, any float dtype.
        window: Size along each spatial axis.
        strides: Steps; ``None`` means the window's size.
        padding: ``"VALID"``, ``"SAME"`` (as in XLA), or per axis one number for both sides or a pair, each smaller than
            the window. Padded places have weight zero.
        implementation: ``xla`` is plain XLA. ``pallas`` is a hand-written kernel for the TPU or GPU that is the default
            backend (windows of up to 64 taps, first derivatives only). ``None`` is ``xla`` everywhere: the kernels
            are tested to lower and, interpreted, to be right, but were not timed on a device.
        gradient: ``true``, or ``reference``: the weight alone, ``w_i``, which is what the authors' CUDA code computes.

    Returns:
        One value per window, in the dtype of ``x``: ``floor((size + padding - window) / stride) + 1`` along each axis.

    Raises:
        ValueError: Wrong ranks, an integer dtype, padding as large as the window, no window that fits, an unknown
            choice, or ``pallas`` where it has no kernel or the kernel's blocks do not fit.

    Note:
        Differentiable in reverse mode, with ``xla`` any number of times; :func:`softpool_reference` in any mode.
        The backward pass is a sum of slices, without a scatter: it knows which windows an entry went into.
        The authors' CPU code sums the weights over the channels, and their 3-D CUDA code reads wrong places; both
        differ from the paper, which this follows.

    >>> import jax.numpy as jnp
    >>> y = softpool(jnp.array([0.0, jnp.log(3.0), 7.0, 7.0]).reshape(1, 4, 1), (2,))  # weights 1/4 and 3/4
    >>> [f"{value:.3f}" for value in y.ravel()]
    ['0.824', '7.000']
    """
    windows = _check(x, window, strides, padding)
    require_choice("gradient", gradient, GRADIENTS)
    form = _choose(windows, implementation)
    return _softpool(x, windows, form, gradient)


def softpool_reference(
    x: Float[Array, "N *spatial C"],
    window: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[int | tuple[int, int]] = "VALID",
) -> Float[Array, "N *out C"]:
    """Specification of :func:`softpool`: all taps side by side, and the formula; any mode of differentiation."""
    windows = _check(x, window, strides, padding)
    phases = windows.split(windows.pad(x.astype(jnp.promote_types(x.dtype, jnp.float32))))
    taps = jnp.stack([soft_pooling_xla.tap(phases, k, windows) for k in windows.taps])
    top = lax.stop_gradient(taps.max(0))  # any constant would do: the result does not depend on it
    d = jnp.maximum(finite(taps) - finite(top), FLOOR)
    return (top + (jax.nn.softmax(d, axis=0) * d).sum(0)).astype(x.dtype)


def _check(
    x: Array, window: Sequence[int], strides: Sequence[int] | None, padding: str | Sequence[int | tuple[int, int]]
) -> Windows:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must have a float dtype, received {x.dtype}.")
    return Windows.of(x.shape, window, strides, padding)


def _choose(windows: Windows, implementation: str | None) -> Form:
    if implementation is not None:
        require_choice("implementation", implementation, IMPLEMENTATIONS)
    if implementation != "pallas":
        return soft_pooling_xla.FORM
    if windows.num_taps > MAX_TAPS:
        raise ValueError(
            f"window must have at most {MAX_TAPS} taps for implementation='pallas', received window={windows.window}."
        )
    return pallas_form("soft_pooling")


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _softpool(x: Array, windows: Windows, form: Form, gradient: str) -> Array:
    return form.pool(x, windows)


def _softpool_forward(x: Array, windows: Windows, form: Form, gradient: str) -> tuple[Array, tuple[Array, ...]]:
    y, top, total, mean = form.statistics(x, windows)
    return y, (x, top, total, mean)


def _softpool_backward(
    windows: Windows, form: Form, gradient: str, residuals: tuple[Array, ...], cotangent: Array
) -> tuple[Array]:
    x, top, total, mean = residuals
    # An entry at distance d from its window's maximum gets exp(d) (a + b d); with y - maximum = mean this is
    # w (1 + x - y) without the difference of two large numbers.
    q = cotangent.astype(total.dtype) / total
    a, b = (q * (1 - mean), q) if gradient == "true" else (q, jnp.zeros_like(q))
    return (form.gather(x, top, a, b, windows),)


_softpool.defvjp(_softpool_forward, _softpool_backward)
