"""Class Regularization behind the stages of a network of any family."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import flax.linen as nn

from jaxvid.models import options
from jaxvid.models.block_outputs import outputs_of_blocks
from jaxvid.nn.class_regularization import ClassRegularization
from jaxvid.ops.class_regularization import CLASS_CHOICES, NORMALIZATIONS, SCOPES

if TYPE_CHECKING:
    from jaxtyping import Array, Float

T = TypeVar("T")

AFFECTION_RATES = (0.9, 0.8, 0.7, 0.6)
"""Of stages 1 to 4 (Stergiou, Poppe and Veltkamp 2020, table 1; thesis, table 6.1)."""

FAMILY_AFFECTION_RATES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"i3d": (0.8, 0.7, 0.6)}  # behind the Inception modules of stages 2 to 4 (table 1)
)
"""Of the networks that have other ones, by name."""


class ClassRegularized(nn.Module):
    """A network with :class:`jaxvid.nn.ClassRegularization` behind its last stages.

    The network's parameters keep their names and start as they would without. Those of the regularisation stand beside
    them, in ``class_regularization/stage1`` and so on. What is captured or differentiated by the name of a stage is its
    regularised output, the next stage's input. A stage whose output is several arrays (pathways, streams) is
    regularised as the head sees it, with the arrays side by side.

    Note:
      The text of Stergiou, Poppe and Veltkamp 2020 puts it at the end of each block, their table 1 behind each stage;
      so do the thesis and this.

    The stages read the classifier's kernel from the parameters that the network runs with. It is made last, so a
    network that is being initialised is not regularised: its output is the plain network's, and the parameters of the
    regularisation are made when all others are.

    Attributes:
      network: has ``stage1``, ``stage2``, … and ends with ``head/classifier``.
      affection_rates: of the last stages, in their order; one for every stage, or for fewer.
      normalization: of every regularisation, as the fields below; see :class:`jaxvid.nn.ClassRegularization`.
      normalization_scope: see there.
      class_choice: see there.
      train_affection_rate: see there.
      use_bias: see there.
    """

    network: nn.Module
    affection_rates: tuple[float, ...] = AFFECTION_RATES
    normalization: str = "recommended"
    normalization_scope: str = "selected"
    class_choice: str = "sum"
    train_affection_rate: bool = False
    use_bias: bool = False

    def setup(self) -> None:
        """Puts the network in this module's place, so that its parameters have the names that they have without."""
        nn.share_scope(self, self.network)
        make = functools.partial(
            ClassRegularization,
            normalization=self.normalization,
            normalization_scope=self.normalization_scope,
            class_choice=self.class_choice,
            train_affection_rate=self.train_affection_rate,
            use_bias=self.use_bias,
        )
        self.class_regularization = _Regularizations(make)

    def __call__(self, video: Float[Array, "N T H W 3"], train: bool = False) -> Float[Array, "N K"]:
        """Classifies clips, see the network."""
        if not self.is_initializing():
            return self.network(video, train)
        with outputs_of_blocks(self.network) as outputs:
            logits = self.network(video, train)
        for stage in self._rates():
            self.regularize(stage, outputs[stage])
        return logits

    def regularize(self, block: str, output: T) -> T:
        """The output of a block of the network; regularised, if it is one of the stages that are."""
        rates = self._rates()
        if block not in rates:
            return output
        head = self.get_variable("params", "head")
        return self.class_regularization(block, output, head["classifier"]["kernel"], rates[block])

    @property
    @nn.nowrap
    def regularized_stages(self) -> tuple[str, ...]:
        """The names of the regularised stages, in their order."""
        return tuple(self._rates())

    @nn.nowrap
    def _rates(self) -> dict[str, float]:
        last = len(cast(Any, self.network).stage_sizes)
        first = last - len(self.affection_rates) + 1
        return {f"stage{number}": rate for number, rate in enumerate(self.affection_rates, first)}


class _Regularizations(nn.Module):
    """The regularisations of all stages, by their names."""

    make: functools.partial[ClassRegularization]

    @nn.compact
    def __call__(self, stage: str, output: T, head_kernel: Float[Array, "D K"], affection_rate: float) -> T:
        return self.make(affection_rate, name=stage)(output, head_kernel)


def class_regularized_output(module: nn.Module, x: T) -> T:
    """``x``, the output of a network's block, regularised if the network is part of a :class:`ClassRegularized`."""
    owner = getattr(module.parent, "parent", None)
    return owner.regularize(str(module.name), x) if isinstance(owner, ClassRegularized) else x


def class_regularized(
    name: str,
    network: nn.Module,
    *,
    affection_rates: Sequence[float] = (),
    normalization: str = "recommended",
    scope: str = "selected",
    class_choice: str = "sum",
    train_affection_rate: bool = False,
    use_bias: bool = False,
) -> ClassRegularized:
    """A network with Class Regularization behind its stages.

    Args:
      name: the network's registered name.
      network: from :func:`jaxvid.models.build`.
      affection_rates: of the last stages, in their order; none are the papers', see :data:`AFFECTION_RATES` and
        :data:`FAMILY_AFFECTION_RATES`. At 1 a stage is left as it is.
      normalization: ``"recommended"`` or ``"literal"``, see :func:`jaxvid.ops.class_factors`.
      scope: of the normalisation, ``"selected"`` or ``"all"``.
      class_choice: ``"sum"`` or ``"elementwise"``.
      train_affection_rate: whether the rates are trained too, from the given ones on.
      use_bias: whether the maps of the classifier's weights to the stages' channels have a bias.

    Returns:
      The Linen module, for the same calls as the network.

    Raises:
      ValueError: there are more rates than stages, or an option has an impossible value.
    """
    rates = tuple(affection_rates) or FAMILY_AFFECTION_RATES.get(name, AFFECTION_RATES)
    stages = len(cast(Any, network).stage_sizes)
    if len(rates) > stages:
        raise ValueError(f"affection_rates must hold at most one rate for each of {stages} stages, received {rates}.")
    inside = "(0, 1) where they are trained" if train_affection_rate else "[0, 1]"
    for rate in rates:
        if not (0 < rate < 1 if train_affection_rate else 0 <= rate <= 1):
            raise ValueError(f"affection_rates must lie in {inside}, received {rates}.")
    options.require_choice("normalization", normalization, NORMALIZATIONS)
    options.require_choice("scope", scope, SCOPES)
    options.require_choice("class_choice", class_choice, CLASS_CHOICES)
    train_affection_rate = options.flag("train_affection_rate", train_affection_rate)
    use_bias = options.flag("use_bias", use_bias)
    return ClassRegularized(network, rates, normalization, scope, class_choice, train_affection_rate, use_bias)
