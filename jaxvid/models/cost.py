"""What a network costs: exact numbers of parameters and of multiply-adds, without running it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

if TYPE_CHECKING:
    from jaxvid.types import Size3


def variable_shapes(model: nn.Module, clip: Size3 = (16, 32, 32)) -> Any:
    """The shapes and dtypes of a network's variables, ``{"params": ..., "batch_stats": ...}``; nothing is computed.

    A network is traced once per clip and process: a second, or several, are saved where it is asked for again.
    """
    return jax.tree.map(lambda leaf: leaf, _traced_shapes(model, tuple(clip)))  # containers of the caller's own


@functools.lru_cache(maxsize=128)
def _traced_shapes(model: nn.Module, clip: Size3) -> Any:
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), _video(clip))


def count_parameters(model: nn.Module, clip: Size3 = (16, 32, 32)) -> int:
    """The number of trainable parameters (running statistics are not among them).

    Args:
      model: a network of :data:`jaxvid.models.MODELS`.
      clip: ``(T, H, W)`` of the input; all networks but TAM, which has layers over time, have the same parameters at
        every size.

    >>> from jaxvid import models
    >>> count_parameters(models.build("r3d_18", num_classes=400))
    33371472
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variable_shapes(model, clip)["params"]))


def count_macs(model: nn.Module, clip: Size3) -> int:
    """The multiply-adds of one clip's forward pass in evaluation mode.

    Counted are convolutions and matrix products, those of a scan once per iteration, as in the tables of the papers;
    not counted are normalisation, activations, pooling and other elementwise work. A tap that falls into the padding
    counts as any other. The count does not depend on the formulation of the convolutions: the direct one is counted.

    Args:
      model: a network of :data:`jaxvid.models.MODELS`.
      clip: ``(T, H, W)``.

    >>> from jaxvid import models
    >>> round(count_macs(models.build("r3d_18", num_classes=400), (16, 224, 224)) / 1e9, 3)
    25.305
    """
    shapes = variable_shapes(model, clip)  # those of every formulation
    jaxpr = jax.make_jaxpr(functools.partial(_direct(model).apply, train=False))(shapes, _video(clip))
    return macs_of_jaxpr(jaxpr.jaxpr)


def _direct(model: nn.Module) -> nn.Module:
    """The network with direct convolutions, also where it is inside another one (Class Regularization, U2S)."""
    if hasattr(model, "network"):
        return model.clone(network=_direct(cast(Any, model).network))
    return model.clone(conv="direct") if hasattr(model, "conv") else model


def macs_of_jaxpr(jaxpr: Jaxpr) -> int:
    """The multiply-adds of a program: its convolutions and matrix products, everywhere inside it.

    A scan's body counts once per iteration, and of a branch's alternatives the costliest one counts.

    Raises:
      ValueError: a ``while`` loop holds multiply-adds; its number of iterations is unknown.
    """
    return sum(_macs_of_equation(equation) for equation in jaxpr.eqns)


def _macs_of_equation(equation: Any) -> int:
    name = equation.primitive.name
    if name == "conv_general_dilated":
        return _macs_of_convolution(equation)
    if name == "dot_general":
        return _macs_of_product(equation)
    inner = [macs_of_jaxpr(jaxpr) for jaxpr in _inner_jaxprs(equation.params)]
    if name == "scan":
        return equation.params["length"] * sum(inner)
    if name == "cond":
        return max(inner)
    if name == "while" and sum(inner):
        raise ValueError("multiply-adds inside a while loop cannot be counted: its number of iterations is unknown.")
    return sum(inner)


def _macs_of_convolution(equation: Any) -> int:
    kernel, (output,) = equation.invars[1].aval.shape, equation.outvars
    out_channels, in_channels_per_group, *taps = (kernel[i] for i in equation.params["dimension_numbers"].rhs_spec)
    del out_channels  # the output's shape holds it
    return math.prod(output.aval.shape) * in_channels_per_group * math.prod(taps)


def _macs_of_product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, (output,) = equation.invars[0].aval.shape, equation.outvars
    return math.prod(output.aval.shape) * math.prod(left[axis] for axis in contracted)


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """The programs inside an equation: of jit, remat, a custom derivative, scan, cond, while, shard_map."""
    for value in params.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(entry, ClosedJaxpr):
                yield entry.jaxpr
            elif isinstance(entry, Jaxpr):
                yield entry


def _video(clip: Size3) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *clip, 3), jnp.float32)
