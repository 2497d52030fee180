"""TSM: a 2-D ResNet whose blocks see a part of the next and of the previous frame (Lin, Gan and Han, ICCV 2019)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import flax.linen as nn

from jaxvid.models import options
from jaxvid.models.frame_resnet import FrameResNet, frame_resnet_fields
from jaxvid.models.interface import plain_and_srtg
from jaxvid.ops.shift import temporal_shift

if TYPE_CHECKING:
    from jaxtyping import Array

SOURCE = "Lin, Gan & Han 2019, the authors' code"

DEPTHS: Mapping[str, int] = MappingProxyType({f"tsm_r{depth}": depth for depth in (18, 34, 50, 101)})

_DEEP = 23  # blocks of stage 3 from which on only every second block shifts, as in the authors' code


class TSM(FrameResNet):
    """A 2-D ResNet with a temporal shift of the input of every block's first convolution (the paper's residual shift).

    The shortcut is not shifted. In networks of 23 blocks or more in stage 3 (depth 101 and beyond) the blocks 0, 2, 4,
    … of each stage shift, the others do not. Where a block has fewer channels than ``fold_div``, none is shifted, as in
    the authors' code.

    Attributes:
      fold_div: see :func:`jaxvid.ops.temporal_shift`; 8 is the paper's.
    """

    fold_div: int = 8

    @nn.nowrap
    def shifts(self, block: int) -> bool:
        """Whether block number ``block`` of a stage shifts."""
        return block % 2 == 0 or self.stage_sizes[2] < _DEEP

    @nn.nowrap
    def temporal_part(self, block: int) -> Mapping[str, Any]:
        """The shift, where this block has one."""
        return {"before_conv1": functools.partial(_shift, fold_div=self.fold_div)} if self.shifts(block) else {}


def _shift(x: Array, fold_div: int) -> Array:
    return temporal_shift(x, fold_div) if x.shape[-1] >= fold_div else x


def builders() -> dict[str, Callable[..., TSM]]:
    """Name -> builder of every network of :data:`DEPTHS`, each plain and with SRTG."""
    return plain_and_srtg(build_tsm, DEPTHS)


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(builders(), SOURCE)


def build_tsm(name: str, depth: int, num_classes: int, *, fold_div: int = 8, **common: Any) -> TSM:
    """Builds one network of the family.

    Args:
      name: its registered name; one that begins with ``srtg_`` has SRTG in every block.
      depth: its depth.
      num_classes: outputs, at least 1.
      fold_div: one part in so many of a block's channels comes from the next frame and one from the previous one, at
        least 2.
      **common: ``width``, ``pool`` and the options of every network, see
        :func:`jaxvid.models.frame_resnet.frame_resnet_fields`. The authors train with ``dropout=0.5``.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    fields = frame_resnet_fields(name, depth, num_classes, ("fold_div",), **common)
    if options.count("fold_div", fold_div) < 2:
        raise ValueError(f"fold_div must be a whole number >= 2, received fold_div={fold_div!r}.")
    return TSM(fold_div=options.count("fold_div", fold_div), **fields)
