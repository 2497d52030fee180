"""The parts that networks of every family are put together from: stages of blocks, and the head."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models.interface import named_output
from jaxvid.ops.pooling import avg_pool3d

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from jaxvid.types import Size3


class Stage(nn.Module):
    """Blocks at one resolution, named ``block0``, ``block1``, ….

    Attributes:
      blocks: each a ``functools.partial`` of a module class that makes a block from a ``name``, in their order; the
        block is called with ``(x, train)``.
      remat: whether the backward pass computes the activations inside of a block again instead of keeping them.
      norm: makes the normalisation ``norm`` that, with a ReLU, closes the last stage of a pre-activated network.
    """

    blocks: tuple[functools.partial[Any], ...]
    remat: bool = False
    norm: functools.partial[Any] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N t h w F"]:
        """Applies the blocks in their order."""
        for index, block in enumerate(self.blocks):
            make = rematerialise(block) if self.remat else block
            x = make(name=f"block{index}")(x, train)
        if self.norm is not None:
            x = nn.relu(self.norm(name="norm")(x, not train))
        return named_output(self, x)


def rematerialise(block: functools.partial[Any]) -> functools.partial[Any]:
    """What makes the same block, which keeps only its input for the backward pass."""
    return functools.partial(nn.remat(block.func, static_argnums=(2,)), *block.args, **block.keywords)


class Head(nn.Module):
    """Mean over time and space, dropout, linear classifier ``classifier``; everything in float32.

    Attributes:
      num_classes: outputs.
      dropout: share of the features that a training step drops.
      window: for fully-convolutional evaluation, the positions ``(T, H, W)`` that one mean is taken over, those of a
        training clip: every window of a larger map is classified, and the logarithm of the mean of their softmax is
        returned (Simonyan and Zisserman 2015, section 3.2, as SlowFast's code has it). ``None`` is one mean over all.
      kernel_init: how the classifier's matrix starts.
    """

    num_classes: int
    dropout: float
    window: Size3 | None = None
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.01)

    @nn.compact
    def __call__(self, x: Float[Array, "N T H W C"], train: bool) -> Float[Array, "N K"]:
        """Returns logits; of several windows the logarithms of probabilities, which softmax leaves as they are."""
        x = mean_of_windows(x, None if train else self.window)
        x = nn.Dropout(self.dropout, name="dropout")(x, deterministic=not train)
        classifier = nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="classifier")
        return named_output(self, mean_of_probabilities(classifier(x)))


def mean_of_windows(x: Float[Array, "N T H W C"], window: Size3 | None) -> Float[Array, "N t h w C"]:
    """The mean of every ``(T, H, W)`` window with stride 1, in float32; of ``None``, or a smaller map, the one mean."""
    x = x.astype(jnp.float32)
    if window is None or all(length <= wide for length, wide in zip(x.shape[1:4], window, strict=True)):
        return jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    t, h, w = map(min, window, x.shape[1:4])
    for along in ((t, 1, 1), (1, h, 1), (1, 1, w)):  # a mean is separable
        x = avg_pool3d(x, along, (1, 1, 1))
    return x


def mean_of_probabilities(logits: Float[Array, "N t h w K"]) -> Float[Array, "N K"]:
    """The logits of a single position; of several, the logarithm of the mean of their softmax."""
    positions = logits.shape[1] * logits.shape[2] * logits.shape[3]
    if positions == 1:
        return logits[:, 0, 0, 0]
    log_probabilities = jax.nn.log_softmax(logits).reshape(len(logits), positions, -1)
    return jax.nn.logsumexp(log_probabilities, axis=1) - jnp.log(positions)
