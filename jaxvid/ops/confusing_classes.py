"""What U2S computes of the classes that are confused with each other (Zhao et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


def masks_of_confusing_classes(
    masks: Float[Array, "N T H W K"], confusing: Float[Array, "K K"], chosen: Int[Array, " N"]
) -> Float[Array, "N T H W 1"]:
    r"""The mean of the masks of the classes that are confused with the chosen one.

    .. math:: m = \sum_j C_{ji} M_j / \sum_j C_{ji}, \quad i = chosen

    Args:
      masks: one of each class.
      confusing: ``C``, binary or a weight of at least 0; column ``i`` has the classes that are confused with ``i``, and
        ``C[i, i]`` is 1: a class belongs to those that it is confused with.
      chosen: ``i`` of each clip.

    Returns:
      One mask for each clip, in float32.
    """
    columns = confusing.astype(jnp.float32)[:, chosen].T
    weights = columns / jnp.sum(columns, axis=-1, keepdims=True)
    return jnp.einsum("nthwk,nk->nthw", masks.astype(jnp.float32), weights, precision=jax.lax.Precision.HIGHEST)[
        ..., None
    ]


def weight_similarity(kernel: Float[Array, "C K"], confusing: Float[Array, "K K"]) -> Float[Array, ""]:
    r"""The mean similarity of the weights that make the masks of two different classes that are confused.

    .. math:: \frac{1}{N_{pos}} \sum_{i \neq j} C_{ij} s(w_i, w_j), \quad s(a, b) = (1 + \cos(a, b)) / 2

    with ``N_pos`` the sum of ``C`` off its diagonal: the category regularisation (equations 4 to 6) without its weight.
    The cosine is mapped to [0, 1] as the paper's similarities are.

    Args:
      kernel: of the mask network's point-wise convolution, a column for each class.
      confusing: ``C``, see :func:`masks_of_confusing_classes`.

    Returns:
      A scalar in [0, 1]; 0 where no two classes are confused. A class whose weights are 0 has the cosine 0 to others.
    """
    kernel = kernel.astype(jnp.float32)
    squares = jnp.sum(kernel**2, axis=0, keepdims=True)
    # Of zeros the gradient of a norm is not finite: they are divided by 1 instead.
    unit = kernel / jnp.sqrt(jnp.where(squares > 0, squares, 1.0))
    cosine = jnp.einsum("ci,cj->ij", unit, unit, precision=jax.lax.Precision.HIGHEST)
    pairs = confusing.astype(jnp.float32) * (1 - jnp.eye(len(confusing)))
    count = jnp.sum(pairs)
    return jnp.sum(pairs * (1 + cosine) / 2) / jnp.where(count > 0, count, 1.0)
