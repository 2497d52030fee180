"""TANet: a 2-D ResNet with a temporal adaptive module in every block (Liu et al., "TAM", ICCV 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from jaxvid.models.frame_resnet import FrameResNet, frame_resnet_fields
from jaxvid.models.interface import plain_and_srtg
from jaxvid.nn.temporal_adaptive import TAM

SOURCE = "Liu et al. 2021, the authors' code"

DEPTHS: Mapping[str, int] = MappingProxyType({f"tam_r{depth}": depth for depth in (50, 101)})
"""Networks of bottlenecks only, as in the authors' code."""


class TANet(FrameResNet):
    """A 2-D ResNet with a :class:`jaxvid.nn.TAM` behind the first convolution, BN and ReLU of every bottleneck.

    Its weights belong to one number of frames, that of the video which they were initialised with: a video of another
    length is a ``ValueError``.
    """

    @nn.nowrap
    def temporal_part(self, block: int) -> Mapping[str, Any]:
        """The module, in every block."""
        del block
        return {"behind_conv1": TAM}


def builders() -> dict[str, Callable[..., TANet]]:
    """Name -> builder of every network of :data:`DEPTHS`, each plain and with SRTG."""
    return plain_and_srtg(build_tam, DEPTHS)


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return dict.fromkeys(builders(), SOURCE)


def build_tam(name: str, depth: int, num_classes: int, **common: Any) -> TANet:
    """Builds one network of the family.

    Args:
      name: its registered name; one that begins with ``srtg_`` has SRTG in every block.
      depth: its depth.
      num_classes: outputs, at least 1.
      **common: ``width``, ``pool`` and the options of every network, see
        :func:`jaxvid.models.frame_resnet.frame_resnet_fields`. The authors train with ``dropout=0.5``.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    return TANet(**frame_resnet_fields(name, depth, num_classes, **common))
