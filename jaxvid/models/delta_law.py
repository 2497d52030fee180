"""What MTNet costs at each share ``delta`` of local channels: the thesis' table 5.6, and ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxvid import models
from jaxvid.models.cost import count_macs, count_parameters
from jaxvid.types import Size3


class Cost(NamedTuple):
    """What a network costs.

    Attributes:
      params: trainable parameters, in millions.
      gmacs: multiply-adds of one clip, in 10^9.
    """

    params: float
    gmacs: float


DELTAS = (1.0, 7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4)

# Stergiou, thesis 2022, table 5.6, MTNet_M.
PRINTED: Mapping[float, Cost] = MappingProxyType(
    dict(
        zip(
            DELTAS,
            (
                Cost(29.7, 10.8),
                Cost(25.8, 8.8),
                Cost(21.8, 6.7),
                Cost(19.3, 4.8),
                Cost(18.6, 3.6),
                Cost(19.2, 2.6),
                Cost(21.0, 2.1),
            ),
            strict=True,
        )
    )
)
"""``delta`` -> what the thesis prints for MTNet_M."""


def delta_costs(
    name: str = "mtnet_m", deltas: Iterable[float] = DELTAS, clip: Size3 = (16, 256, 256), **fields: Any
) -> dict[float, Cost]:
    """Counts a network of 400 classes at each ``delta``; ten seconds or more each, nothing is computed.

    A convolution of ``I -> O`` channels with ``n`` taps at ``V`` positions has, of its parameters and of its
    multiply-adds,

    * local: ``n d^2 I O`` and ``V`` times as many;
    * prolonged: ``n (1-d)^2 I O`` and ``V / 8`` times as many;
    * lateral: ``d (1-d) O^2`` and ``V / 8`` times as many,

    or ``n d O`` and ``n (1-d) O`` where it has one group per channel. So with dense kernels of 3x3x3 both are parabolas
    in ``delta``, the parameters with their least value at 1/2. With depthwise ones the multiply-adds still are, but of
    the parameters the lateral products, which are most at 1/2, take back what the 1x1x1 convolutions save there.

    Args:
      name: of an MTNet; those of the public code have no ``delta=1``.
      deltas: shares of local channels.
      clip: ``(T, H, W)``.
      **fields: further fields of :class:`jaxvid.models.mtnet.MTNet` to replace, such as ``groups=1``.

    Returns:
      ``delta`` -> cost.
    """
    costs = {}
    for delta in deltas:
        model = models.build(name, 400, delta=delta).clone(**fields)
        costs[delta] = Cost(count_parameters(model) / 1e6, count_macs(model, clip) / 1e9)
    return costs
