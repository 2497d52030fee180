"""What every network shares: the check of its input, the names of its outputs, and what makes its layers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxvid.models.class_regularized import class_regularized_output
from jaxvid.models.options import SRTGOptions
from jaxvid.models.residual import MakeModule
from jaxvid.nn.convolution import Conv3D
from jaxvid.nn.normalization import BatchNorm
from jaxvid.nn.srtg import SRTG
from jaxvid.ops.pooling import avg_pool3d, max_pool3d
from jaxvid.ops.soft_pooling import softpool

if TYPE_CHECKING:
    from jaxvid.types import Size3

T = TypeVar("T")
Module = TypeVar("Module", bound=nn.Module)
Row = TypeVar("Row")


def named_output(module: nn.Module, x: T) -> T:
    """Makes ``x``, an array or several, differentiable by the module's name; behind Class Regularization, if any.

    It leaves no trace in freshly initialised variables.
    """
    if module.is_initializing():
        return x
    return module.perturb("output", class_regularized_output(module, x))


def check_video(video: Array, stride: Size3, train: bool) -> None:
    """Raises ``ValueError`` unless ``video`` is what a network takes.

    Args:
      video: should be normalised RGB, ``[N T H W 3]``.
      stride: of the network from the video to its last stage.
      train: whether BatchNorm will need more than one value per channel there.
    """
    if video.ndim != 5 or video.shape[-1] != 3 or min(video.shape) < 1:
        raise ValueError(f"video must have the axes N T H W 3, each at least 1, received shape {video.shape}.")
    if not jnp.issubdtype(video.dtype, jnp.floating):
        raise ValueError(f"video must be normalised floating-point RGB, received dtype {video.dtype}.")
    clips, *size, _ = video.shape
    if train and clips * math.prod(-(-length // step) for length, step in zip(size, stride, strict=True)) == 1:
        raise ValueError(
            "video must leave more than one value per channel to BatchNorm in training "
            f"(several clips, or more than {stride[0]} frames or {stride[1]} pixels), received shape {video.shape}."
        )


def make_conv(conv: str, dtype: jax.typing.DTypeLike) -> functools.partial[Conv3D]:
    """What makes a 3-D convolution without bias, in the formulation ``conv``."""
    return functools.partial(Conv3D, implementation=None if conv == "auto" else conv, dtype=dtype)


def make_norm(dtype: jax.typing.DTypeLike, **fields: Any) -> functools.partial[BatchNorm]:
    """What makes a BatchNorm."""
    return functools.partial(BatchNorm, dtype=dtype, **fields)


POOLS: Mapping[str, Callable[..., Array]] = MappingProxyType({"max": max_pool3d, "avg": avg_pool3d, "soft": softpool})
"""``(x, window, strides, padding) -> x`` of every kind of pooling that a network can have between its stages."""


def plain_and_srtg(build: Callable[..., Module], rows: Mapping[str, Row]) -> dict[str, Callable[..., Module]]:
    """The builders of a family's networks, each plain and with SRTG.

    Args:
      build: ``(name, row, num_classes, **options) -> module``.
      rows: name -> what the network of that name is.
    """
    return {
        f"{prefix}{name}": functools.partial(build, f"{prefix}{name}", row)
        for prefix in ("", "srtg_")
        for name, row in rows.items()
    }


def halve(x: Array, pool: str, window: int = 3, per_frame: bool = False) -> Array:
    """Pools with stride 2; a window of 3 is padded by 1, one of 2 drops the last position of an odd axis.

    Args:
      x: ``[N T H W C]``; an axis of one position keeps it.
      pool: a key of :data:`POOLS`.
      window: 2 or 3, along every axis.
      per_frame: whether time is left as it is.
    """
    padding = (window - 1) // 2
    t, h, w = (min(window, length + 2 * padding) for length in x.shape[1:4])
    if per_frame:
        return POOLS[pool](x, (1, h, w), (1, 2, 2), (0, padding, padding))
    return POOLS[pool](x, (t, h, w), (2, 2, 2), (padding,) * 3)


def make_srtg(srtg: SRTGOptions | None, dtype: jax.typing.DTypeLike) -> tuple[MakeModule | None, str]:
    """What makes the SRTG of a block, or ``None``, and where in the block it sits."""
    if srtg is None:
        return None, "final"
    fields = asdict(srtg)
    placement = fields.pop("placement")
    # Linen modules have a method `init`, so SRTG's field has a longer name.
    return functools.partial(SRTG, dtype=dtype, initialization=fields.pop("init"), **fields), placement
