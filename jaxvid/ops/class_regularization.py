"""Class Regularization: activations scaled by what a class's weights say about their channels.

Stergiou, Poppe and Veltkamp, "Learning Class-Specific Features with Class Regularization for Videos" (2020),
algorithm 1; thesis, chapter 6. There is no public code.
"""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.ops.choices import require_choice

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

NORMALIZATIONS = ("recommended", "literal")
SCOPES = ("selected", "all")
CLASS_CHOICES = ("sum", "elementwise")


def class_regularize(
    features: Float[Array, "N T H W C"],
    class_weights: Float[Array, "K C"],
    *,
    affection_rate: Any,
    normalization: str = "recommended",
    scope: str = "selected",
    class_choice: str = "sum",
) -> tuple[Float[Array, "N T H W C"], Int[Array, " N"]]:
    """Multiplies the channels of every sample by the weights of the class that its mean activations speak for.

    ``a' = a * factor(W_c)`` with ``c = argmax_n sum_i W_n,i mean(a)_i`` (the paper, equation 1 and algorithm 1); see
    :func:`class_factors`. The gradient reaches ``features`` through the product and ``class_weights`` through the
    chosen row; the choice has none. Everything is float32 inside.

    Args:
        features: Activations ``a``.
        class_weights: ``W``, one row per class, already mapped to the layer's channels and behind the ReLU:
            :class:`jaxvid.nn.ClassRegularization` does both.
        affection_rate: ``lambda`` in [0, 1]: how far from 1 the factors may be is ``1 - lambda``.
        normalization: See :func:`class_factors`.
        scope: See :func:`class_factors`.
        class_choice: See :func:`class_factors`.

    Returns:
        ``(regularised, class_index)``: an array like ``features``, and the chosen class of every sample, int32.

    Raises:
        ValueError: The shapes do not belong together, or an option has a value that does not exist.

    >>> import jax.numpy as jnp
    >>> regularised, chosen = class_regularize(
    ...     jnp.ones((1, 1, 1, 1, 3)), jnp.array([[0.0, 1.0, 2.0], [0.0, 0.0, 1.0]]), affection_rate=0.75
    ... )
    >>> regularised[0, 0, 0, 0].tolist(), chosen.tolist()
    ([0.75, 1.0, 1.25], [0])
    """
    if features.ndim != 5:
        raise ValueError(f"features must have the axes N T H W C, received shape {features.shape}.")
    factors, index = class_factors(
        jnp.mean(features.astype(jnp.float32), axis=(1, 2, 3)),
        class_weights,
        affection_rate=affection_rate,
        normalization=normalization,
        scope=scope,
        class_choice=class_choice,
    )
    return scale_channels(features, factors), index


def class_factors(
    pooled: Float[Array, "N C"],
    class_weights: Float[Array, "K C"],
    *,
    affection_rate: Any,
    normalization: str = "recommended",
    scope: str = "selected",
    class_choice: str = "sum",
) -> tuple[Float[Array, "N C"], Int[Array, " N"]]:
    """The factor of every channel and the class that it comes from.

    With ``w`` the chosen class's row and ``min``, ``max`` over its channels, the ``recommended`` factor is
    ``lambda + 2 (1 - lambda) (w - min) / (max - min)``, which fills ``[lambda, 2 - lambda]``; the ``literal`` one is
    ``lambda (1 - lambda) (w - min) / (max - min)``. Where all are equal the factors are 1. Both are the same for ``W``
    and any positive multiple of it, and so is the choice, for any positive multiple of ``pooled`` too.

    Args:
        pooled: Mean activations.
        class_weights: One row per class, over the same channels.
        affection_rate: ``lambda`` in [0, 1]; a traced value is not checked.
        normalization: ``recommended`` or ``literal``.
        scope: Of minimum and maximum: the ``selected`` class's row (thesis), or ``all`` rows (the paper, step 6), where
            a row fills only a part of the range.
        class_choice: ``sum`` chooses the row with the largest product with ``pooled`` (the paper; as the prediction
            layer does); ``elementwise`` that with the largest single term of it (the thesis' algorithm).

    Returns:
        ``(factors, class_index)``, float32 and int32; of equal classes the first.

    Raises:
        ValueError: The shapes do not belong together, or an option has a value that does not exist.

    Note:
        The printed formula is ``literal``: its factors lie in ``[0, lambda (1 - lambda)]``, at most 0.25, and are 0 at
        ``lambda = 1``. The texts say otherwise: a mean of 1, a width of ``2 (1 - lambda)``, and no effect at
        ``lambda = 1``. That is ``recommended``. No small number is added to the denominator: classifiers start with
        kernels so small that it would count.
    """
    require_choice("normalization", normalization, NORMALIZATIONS)
    require_choice("scope", scope, SCOPES)
    require_choice("class_choice", class_choice, CLASS_CHOICES)
    if isinstance(affection_rate, numbers.Real) and not 0 <= float(affection_rate) <= 1:
        raise ValueError(f"affection_rate must be in [0, 1], received affection_rate={affection_rate}.")
    if class_weights.ndim != 2 or class_weights.shape[-1] != pooled.shape[-1]:
        raise ValueError(
            f"class_weights must have the axes K C with the {pooled.shape[-1]} channels of the features, "
            f"received shape {class_weights.shape}."
        )
    weights = class_weights.astype(jnp.float32)
    index = _choose(lax.stop_gradient(pooled.astype(jnp.float32)), lax.stop_gradient(weights), class_choice)
    # A product, not weights[index]: the gradient of that is a scatter, which a GPU adds up in any order.
    one_hot = jax.nn.one_hot(index, len(weights), dtype=jnp.float32)
    chosen = jnp.einsum("nk,kc->nc", one_hot, weights, precision=lax.Precision.HIGHEST)
    across = chosen if scope == "selected" else weights
    axes = -1 if scope == "selected" else None
    least = jnp.min(across, axes, keepdims=True)
    span = jnp.max(across, axes, keepdims=True) - least
    differ = span > jnp.finfo(jnp.float32).tiny
    relative = (chosen - least) / jnp.where(differ, span, 1.0)
    rate = jnp.asarray(affection_rate, jnp.float32)
    low, width = (0.0, rate * (1.0 - rate)) if normalization == "literal" else (rate, 2.0 * (1.0 - rate))
    return jnp.where(differ, low + width * relative, 1.0), index


def scale_channels(features: Float[Array, "N T H W C"], factors: Float[Array, "N C"]) -> Float[Array, "N T H W C"]:
    """``features * factors`` in float32, rounded once to the dtype of ``features``."""
    return (features.astype(jnp.float32) * factors[:, None, None, None, :]).astype(features.dtype)


def _choose(pooled: jax.Array, weights: jax.Array, class_choice: str) -> jax.Array:
    if class_choice == "sum":
        scores = jnp.einsum("nc,kc->nk", pooled, weights, precision=lax.Precision.HIGHEST)
    else:
        scores = jnp.max(pooled[:, None, :] * weights[None], axis=-1)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)
