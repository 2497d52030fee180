"""What blocks of a network return and what it sows, beside its logits: for measurements and explanations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from jaxvid.ops.normalize import normalize_video
from jaxvid.train.step import EvaluationApply, takes_labels
from jaxvid.types import Array, Variables

Reduce: TypeAlias = "Callable[[Mapping[str, Any]], dict[str, jax.Array]]"
"""What is made of a network's outputs within the compiled program: a module's function, not a new one each time."""


@dataclass(frozen=True)
class OpenNetwork:
    """A network that may be looked into: what explainers take (:class:`jaxvid.explain.OpenApply`)."""

    apply: EvaluationApply

    def __call__(self, variables: Variables, video: Array) -> jax.Array:
        """The logits in evaluation mode, normalisation included."""
        return self.apply(variables, video)

    def with_outputs(
        self, blocks: tuple[str, ...] = (), sown: tuple[str, ...] = (), reduce: Reduce | None = None
    ) -> OutputsApply:
        """The same network, which tells what its blocks return.

        Args:
          blocks: paths of modules, their parts joined by slashes (``stage4``, ``u2s/specific/stage4``).
          sown: collections (``masks``); each of their entries is an output too, by ``COLLECTION/PATH``.
          reduce: makes of the outputs what is wanted of them; ``None`` leaves them as they are.
        """
        return OutputsApply(self.apply, tuple(blocks), tuple(sown), reduce)


@dataclass(frozen=True)
class OutputsApply:
    """``(variables, video uint8[N T H W 3]) -> (logits, outputs)``, see :meth:`OpenNetwork.with_outputs`."""

    apply: EvaluationApply
    blocks: tuple[str, ...] = ()
    sown: tuple[str, ...] = ()
    reduce: Reduce | None = None

    @property
    def takes_labels(self) -> bool:
        """As :class:`jaxvid.train.step.SideApply` has it."""
        return takes_labels(self.apply.model)

    def __call__(self, variables: Variables, video: Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The logits in evaluation mode, normalisation included, and the outputs.

        Raises:
          ValueError: the network has no block of such a path.
        """
        return _outputs(dict(variables), video, asked=self)


@functools.partial(jax.jit, static_argnames=("asked",))
def _outputs(
    variables: dict[str, Any], video: jax.Array, *, asked: OutputsApply
) -> tuple[jax.Array, dict[str, jax.Array]]:
    apply = asked.apply

    def wanted(module: nn.Module, method: str) -> bool:
        return method == "__call__" and "/".join(module.path) in asked.blocks

    logits, kept = apply.model.apply(
        variables,
        normalize_video(video, apply.mean, apply.std, reverse=apply.color == "BGR"),
        train=False,
        capture_intermediates=wanted,
        mutable=["intermediates", *asked.sown],
    )
    captured = _flat(kept, "intermediates")
    outputs: dict[str, Any] = {name.rpartition("/")[0]: values[-1] for name, values in captured.items()}
    for block in asked.blocks:
        if block not in outputs:
            raise ValueError(f"a block must be a part of the network that is called, received {block!r}.")
    for name in asked.sown:
        outputs |= {f"{name}/{path}": value for path, value in _flat(kept, name).items()}
    return cast(jax.Array, logits).astype(jnp.float32), outputs if asked.reduce is None else asked.reduce(outputs)


def _flat(collections: Any, name: str) -> dict[str, Any]:
    return dict(flax.traverse_util.flatten_dict(dict(collections.get(name, {})), sep="/"))
