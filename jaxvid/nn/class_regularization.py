"""Class Regularization of one layer (Stergiou, Poppe and Veltkamp 2020; thesis, chapter 6)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.nn.sowing import KEEP_LAST
from jaxvid.ops.class_regularization import class_factors, scale_channels

if TYPE_CHECKING:
    from jaxtyping import Array, Float

Features = TypeVar("Features")


class ClassRegularization(nn.Module):
    """Scales a layer's channels by the classifier's weights of the class that the layer's activations speak for.

    The map ``kernel``, ``[C' C]``, takes the classifier's weights from its ``C'`` channels to the layer's ``C``
    (a point-wise convolution in the papers): ``W = relu(head_kernel^T kernel)``. Then
    :func:`jaxvid.ops.class_regularize`. The classifier's own weights get no gradient here, and they are not stored a
    second time: they are those of the running step.

    Features may be several arrays, as those of SlowFast's pathways are: together they have ``C`` channels, side by side
    in their order, as the head sees them, and one class is chosen for all.

    Outside of initialisation the chosen classes, ``int32[N]``, are sown as ``class_index`` into the collection
    ``side``, which an evaluation keeps beside the logits.

    Note:
        Whatever the size of ``kernel``, the factors fill the range that the affection rate leaves them, so there is no
        start at which the module does nothing; it starts Kaiming-normal (fan in; the thesis says "Kaiming"). About half
        of the weights are then 0 behind the ReLU, and their channels start at the low end of the range.

        Nothing in the loss asks the choice to be right, and behind the ReLU neither weights nor mean activations are
        negative, so that a class with large weights tends to win whatever a clip shows. Seen in r3d_18, from scratch on
        `motion` (`configs/motion_class_regularization.py`): every stage takes nearly all clips for one class, right in
        8 to 10 % (chance 8.3 %) where the network is right in 96.9 %. With no map in between, the classifier's weights
        behind the ReLU would choose rightly behind stage 4 in 96.2 %.

    Attributes:
        affection_rate: ``lambda`` in [0, 1], or where it starts.
        normalization: ``recommended`` or ``literal``, see :func:`jaxvid.ops.class_regularization.class_factors`.
        normalization_scope: ``selected`` or ``all``, see there. (A Linen module's ``scope`` is something else.)
        class_choice: ``sum`` or ``elementwise``, see there.
        train_affection_rate: Whether the rate is ``sigmoid(affection_logit)`` with the parameter ``affection_logit``,
            which starts at the given rate. It is trained by the network's loss: the papers mention "a separate
            objective function" and give none.
        use_bias: Whether the map has a ``bias``, ``[C]``, which starts at 0.
    """

    affection_rate: float
    normalization: str = "recommended"
    normalization_scope: str = "selected"
    class_choice: str = "sum"
    train_affection_rate: bool = False
    use_bias: bool = False

    @nn.compact
    def __call__(self, features: Features, head_kernel: Float[Array, "D K"]) -> Features:
        """Regularises activations.

        Args:
            features: ``[N T H W C]``, or a tuple of such arrays.
            head_kernel: The classifier's kernel, ``[C' K]``.

        Returns:
            What ``features`` was, scaled.

        Raises:
            ValueError: An attribute has a value that does not exist, or a trained rate does not lie inside of (0, 1).
        """
        parts, structure = jax.tree.flatten(features)
        pooled = [jnp.mean(part.astype(jnp.float32), axis=(1, 2, 3)) for part in parts]
        channels = [part.shape[-1] for part in parts]
        factors, index = class_factors(
            jnp.concatenate(pooled, axis=-1),
            self._class_weights(head_kernel, sum(channels)),
            affection_rate=self._rate(),
            normalization=self.normalization,
            scope=self.normalization_scope,
            class_choice=self.class_choice,
        )
        if not self.is_initializing():  # fresh variables are params and batch_stats, nothing else
            self.sow("side", "class_index", index, **KEEP_LAST)
        ends = [sum(channels[: i + 1]) for i in range(len(channels))]
        split = jnp.split(factors, ends[:-1], axis=-1)
        return jax.tree.unflatten(structure, map(scale_channels, parts, split))

    def _class_weights(self, head_kernel: jax.Array, channels: int) -> jax.Array:
        shape = (head_kernel.shape[0], channels)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        frozen = lax.stop_gradient(head_kernel.astype(jnp.float32))
        weights = jnp.einsum("dk,dc->kc", frozen, kernel, precision=lax.Precision.HIGHEST)
        if self.use_bias:
            weights += self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)[None]
        return nn.relu(weights)

    def _rate(self) -> Any:
        if not self.train_affection_rate:
            return self.affection_rate
        if not 0 < self.affection_rate < 1:
            raise ValueError(
                f"affection_rate must lie inside of (0, 1) where it is trained, received "
                f"affection_rate={self.affection_rate}."
            )
        start = math.log(self.affection_rate / (1 - self.affection_rate))
        return nn.sigmoid(self.param("affection_logit", nn.initializers.constant(start), (), jnp.float32))
