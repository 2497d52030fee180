"""What an explanation takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jax

from jaxvid.types import Array, Variables

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class OpenApply(Protocol):
    """An apply function of a network that may be looked into, such as :class:`jaxvid.train.captured.OpenNetwork`."""

    def __call__(self, variables: Variables, video: Array, /) -> jax.Array:
        """``(variables, video uint8[N T H W 3]) -> logits float32[N K]``, normalisation included."""
        ...

    def with_outputs(
        self, blocks: tuple[str, ...] = (), sown: tuple[str, ...] = ()
    ) -> Callable[[Variables, Array], tuple[jax.Array, Mapping[str, Any]]]:
        """The same network, which returns what some blocks return, and what it sows, beside the logits.

        Args:
          blocks: paths of blocks, such as ``stage4``, by which the outputs are named.
          sown: collections; their entries are outputs named ``COLLECTION/PATH``.
        """
        ...


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture about a whole evaluation.

    Attributes:
      figure: it belongs to no window; ``figure.savefig(path)`` writes it.
      numbers: what is drawn, as JSON has it.
      lines: what there is to say of it in words.
    """

    figure: Figure
    numbers: dict[str, Any]
    lines: tuple[str, ...] = ()
