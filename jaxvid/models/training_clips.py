"""The clip that a network is usually trained on, where it is not the one of its card."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxvid.models.cards import clip_of
from jaxvid.types import Size3


class TrainingClip(NamedTuple):
    """A clip and who trained on it.

    Attributes:
      clip: ``(T, H, W)``, frames of the video before any pathway takes its share.
      source: where it is written.
    """

    clip: Size3
    source: str


_HARA = TrainingClip((16, 112, 112), "Hara et al. 2018, the authors' code")
_TAM = TrainingClip((16, 224, 224), "the TAM authors' code; the card's crop is that of its test")

TRAINING_CLIPS: Mapping[str, TrainingClip] = MappingProxyType(
    {
        "i3d": TrainingClip((64, 224, 224), "Carreira & Zisserman 2017, table 1"),
        "tam_r50": _TAM,
        "tam_r101": _TAM,
        "resnext3d_50": _HARA,
        "resnext3d_101": _HARA,
        "wide_resnet3d_50_hara": _HARA,
    }
    | {f"resnet3d_{depth}_hara": _HARA for depth in (18, 34, 50, 101, 152, 200)}
    | {f"r2plus1d_{depth}_hara": _HARA for depth in (18, 34, 50, 101)}
)
"""Name without ``srtg_`` -> its training clip; that of the others is their card's."""


def training_clip_of(name: str) -> Size3:
    """``(T, H, W)`` of a network's usual training clip; one with SRTG has that of the plain network.

    >>> training_clip_of("i3d"), training_clip_of("srtg_resnet3d_34_hara"), training_clip_of("x3d_s")
    ((64, 224, 224), (16, 112, 112), (13, 160, 160))
    """
    known = TRAINING_CLIPS.get(name.removeprefix("srtg_"))
    return known.clip if known else clip_of(name)
