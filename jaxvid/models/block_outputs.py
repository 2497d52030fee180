"""What the blocks of a network return, heard from outside of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn


@contextlib.contextmanager
def outputs_of_blocks(network: nn.Module) -> Iterator[dict[str, Any]]:
    """Within it, what the blocks of a bound network return when it is called, by their names."""
    outputs: dict[str, Any] = {}

    def remember(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.parent is network:
            outputs[context.module.name] = output
        return output

    with nn.intercept_methods(remember):
        yield outputs
