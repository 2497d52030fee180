"""U2S: a universal network, masks of the classes that it confuses, and a category-specific network behind them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvid.models import options
from jaxvid.models.block_outputs import outputs_of_blocks
from jaxvid.nn.non_local import NonLocalBlock
from jaxvid.nn.sowing import KEEP_LAST
from jaxvid.ops.confusing_classes import masks_of_confusing_classes, weight_similarity

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Variant(NamedTuple):
    """What a row of the paper's table III leaves out or exchanges."""

    masks: bool = True  # the mask network, and with it the regularisation of its weights
    alone: bool = False  # of the masks only that of the predicted class
    soft: bool = False  # similarities themselves in place of the binary matrix
    non_local: bool = False  # a non-local block in place of the masks


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "full": Variant(),  # a)
        "simple": Variant(alone=True),  # b)
        "soft": Variant(soft=True),  # c)
        "no_mask": Variant(masks=False),  # d)
        "non_local": Variant(masks=False, non_local=True),  # e)
    }
)
"""The rows of table III by what they are. Its oracle, f), is a field of its own, since it needs no training."""

MASK_FUNCTIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = MappingProxyType(
    {"sigmoid": nn.sigmoid, "identity": lambda mask: mask}
)
"""What becomes of a mask before it multiplies features; the paper's figure shows the product only."""


class UniversalToSpecific(nn.Module):
    """A network, and a second one that looks again at what the first one confuses (Zhao et al. 2020).

    The *universal network* (UN) is the given one. The *mask network* (MN), a point-wise convolution to one mask per
    class, sees the features of UN's last stage; the means of its masks are logits of their own. The masks of the
    classes that are confused with UN's prediction, itself included, are averaged and multiply the features of the
    last stage of the *category-specific network* (CSN). CSN is a second network of the same kind that shares the
    stem and the first stages with UN; what it shares is stored and computed once.

    UN's parameters keep their names and start as they would without. The others stand beside them in ``u2s``:
    ``specific/stage3`` and so on, and ``mask``. Which classes are confused is no parameter: the matrix
    ``u2s/confusing``, ``[K K]``, is among ``batch_stats`` and starts as the identity; see
    :mod:`jaxvid.evaluation.class_similarity` and :mod:`jaxvid.train.stages`.

    The logits are the logarithm of the mean of the networks' softmax. Each network's own are sown as
    ``u2s/universal/logits``, ``u2s/specific/logits`` and ``u2s/mask/logits`` (the paper's bridge prediction) into the
    collection ``side``; the similarity of the weights that make the masks of confused classes (equation 5), times
    ``regularization``, as ``u2s/category_regularization`` into ``losses``; the masks as ``u2s/all`` ``[N T H W K]`` and
    ``u2s/selected`` ``[N T H W 1]`` into ``masks``.

    Note:
      The paper has no code and leaves open which distance the similarities are made of, how a mask is applied and how
      the specific network begins; the choices are ours (decisions 65 and 66).

    Attributes:
      network: has ``stem``, ``stage1``, ``stage2``, … and ``head/classifier``, and one array behind its last stage.
      variant: one of :data:`VARIANTS`.
      oracle: whether masks are those of the true class, not of UN's prediction: an upper bound that needs labels, in
        the collection ``given`` as ``label``, ``int32[N]``.
      shared_stages: how many stages, besides the stem, are shared; fewer than there are.
      mask_function: one of :data:`MASK_FUNCTIONS`.
      regularization: weight of the category regularisation in the loss; the paper's is 0.5.
    """

    network: nn.Module
    variant: str = "full"
    oracle: bool = False
    shared_stages: int = 2
    mask_function: str = "sigmoid"
    regularization: float = 0.5

    def setup(self) -> None:
        """Puts the network in this module's place, so that its parameters have the names that they have without."""
        nn.share_scope(self, self.network)
        specific = self.network.clone(parent=None, name=None)
        self.u2s = _Rethinking(specific, self.variant, self.mask_function)

    @property
    def stage_sizes(self) -> tuple[int, ...]:
        """Those of the universal network."""
        return cast(Any, self.network).stage_sizes

    def __call__(self, video: Float[Array, "N T H W 3"], train: bool = False) -> Float[Array, "N K"]:
        """Classifies clips, see the network."""
        last = f"stage{len(self.stage_sizes)}"
        with outputs_of_blocks(self.network) as outputs:
            universal = self.network(video, train)
        features = outputs[last]
        if not isinstance(features, jax.Array):
            raise ValueError(
                f"a network in U2S (model.u2s) must have one array behind {last}, received several (pathways)."
            )
        shared = {name: outputs[name] for name in ("stem", *(f"stage{n + 1}" for n in range(self.shared_stages)))}
        chosen = self._chosen_class(universal)
        logits = {"universal": universal} | self.u2s(video, train, features, chosen, shared, last)
        if not self.is_initializing():
            self.u2s.sow_outputs(logits, self.regularization)
        scores = jnp.stack([jax.nn.log_softmax(each) for each in logits.values()])
        return jax.nn.logsumexp(scores, axis=0) - jnp.log(len(scores))

    @nn.nowrap
    def _chosen_class(self, universal: jax.Array) -> jax.Array:
        if self.oracle and not self.is_initializing():
            if not self.has_variable("given", "label"):
                raise ValueError("an oracle must be given the collection 'given' with 'label', received none.")
            return self.get_variable("given", "label")
        return jnp.argmax(universal, axis=-1)


class _Rethinking(nn.Module):
    """The mask network and the category-specific network."""

    specific: nn.Module
    variant: str
    mask_function: str

    def setup(self) -> None:
        row = VARIANTS[self.variant]
        num_classes = cast(Any, self.specific).num_classes
        if row.masks:
            self.mask = nn.Dense(num_classes, kernel_init=nn.initializers.normal(0.01))
        if row.non_local:
            self.non_local = NonLocalBlock(dtype=cast(Any, self.specific).dtype)
        if row.masks:
            self.confusing = self.variable("batch_stats", "confusing", jnp.eye, num_classes)

    def __call__(
        self,
        video: jax.Array,
        train: bool,
        features: jax.Array,
        chosen: jax.Array,
        shared: Mapping[str, Any],
        last: str,
    ) -> dict[str, jax.Array]:
        """The logits of the category-specific network and, if there are masks, of theirs."""
        row, logits = VARIANTS[self.variant], {}

        def rethink(output: jax.Array) -> jax.Array:
            return output

        if row.masks:
            masks = self.mask(features.astype(jnp.float32))
            confusing = self.confusing.value
            mask = masks_of_confusing_classes(masks, jnp.eye(len(confusing)) if row.alone else confusing, chosen)
            if not self.is_initializing():
                self.sow("masks", "all", masks, **KEEP_LAST)
                self.sow("masks", "selected", mask, **KEEP_LAST)
            logits["mask"] = jnp.mean(masks, axis=(1, 2, 3))
            factor = MASK_FUNCTIONS[self.mask_function](mask)

            def rethink(output: jax.Array) -> jax.Array:
                return (output * factor).astype(output.dtype)

        elif row.non_local:

            def rethink(output: jax.Array) -> jax.Array:
                return self.non_local(output, train)

        with _given(self.specific, shared, last, rethink):
            logits["specific"] = self.specific(video, train)
        return dict(sorted(logits.items(), reverse=True))

    def sow_outputs(self, logits: Mapping[str, jax.Array], regularization: float) -> None:
        """Keeps every network's logits, and the similarity of what should differ."""
        for name, values in logits.items():
            self.sow("side", f"{name}/logits", values, **KEEP_LAST)
        if VARIANTS[self.variant].masks:
            kernel = self.mask.get_variable("params", "kernel")
            similarity = weight_similarity(kernel, self.confusing.value)
            self.sow("losses", "category_regularization", regularization * similarity, **KEEP_LAST)


@contextlib.contextmanager
def _given(
    network: nn.Module, outputs: Mapping[str, Any], last: str, change: Callable[[jax.Array], jax.Array]
) -> Iterator[None]:
    """Within it some blocks of a network return what is known already, and what the last stage returns is changed."""

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__" or context.module.parent is not network:
            return call(*args, **kwargs)
        if context.module.name in outputs:
            return outputs[context.module.name]
        output = call(*args, **kwargs)
        return change(output) if context.module.name == last else output

    with nn.intercept_methods(intercept):
        yield


def universal_to_specific(
    network: nn.Module,
    *,
    variant: str = "full",
    oracle: bool = False,
    shared_stages: int = 2,
    mask_function: str = "sigmoid",
    regularization: float = 0.5,
) -> UniversalToSpecific:
    """U2S around a network.

    Args:
      network: from :func:`jaxvid.models.build`.
      variant: one of :data:`VARIANTS`.
      oracle: see :class:`UniversalToSpecific`.
      shared_stages: at least 0 and fewer than the network has; the paper shares its groups 0 and 1, two stages.
      mask_function: one of :data:`MASK_FUNCTIONS`.
      regularization: weight of the category regularisation, at least 0.

    Returns:
      The Linen module, for the same calls as the network.

    Raises:
      ValueError: an option has an impossible value.
    """
    options.require_choice("variant", variant, tuple(VARIANTS))
    options.require_choice("mask_function", mask_function, tuple(MASK_FUNCTIONS))
    stages = len(cast(Any, network).stage_sizes)
    if not 0 <= shared_stages < stages:
        raise ValueError(f"shared_stages must be in [0, {stages}), received shared_stages={shared_stages}.")
    if regularization < 0:
        raise ValueError(f"regularization must be >= 0, received regularization={regularization}.")
    return UniversalToSpecific(
        network, variant, options.flag("oracle", oracle), shared_stages, mask_function, regularization
    )
