"""The picture of :mod:`jaxvid.models.delta_law`: what MTNet costs at each share of local channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxvid.models.delta_law import Cost


def draw_delta(curves: Mapping[str, Mapping[float, Cost]]) -> Figure:
    """Draws parameters and multiply-adds over ``delta``, each curve relative to its value at 7/8.

    Args:
      curves: name -> ``delta`` -> cost, each with an entry for 7/8, the papers' choice.

    Returns:
      A figure that belongs to no window, multiply-adds on the left and parameters on the right.

    Raises:
      ValueError: there is no curve, or one has no entry for 7/8.
    """
    if not curves or any(7 / 8 not in curve for curve in curves.values()):
        raise ValueError(f"curves must each have an entry for delta=7/8, received {dict(curves)}.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, field, title in zip(axes, ("gmacs", "params"), ("multiply-adds", "parameters"), strict=True):
        for name, curve in curves.items():
            deltas = sorted(curve)
            one = getattr(curve[7 / 8], field)
            axis.plot(deltas, [getattr(curve[delta], field) / one for delta in deltas], marker="o", label=name)
        axis.set(xlabel="delta (share of local channels)", ylabel=f"{title}, relative to delta = 7/8", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper left")
    return figure
