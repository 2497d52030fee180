"""The named 3-D ResNets: a table of what each name means, with its source, and the builder that reads it."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxvid.models.residual import PLACEMENTS
from jaxvid.models.resnet import CONVS, ResNet3D, SRTGOptions

STAGE_SIZES: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {
        # He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1; 200: "Identity Mappings", 2016.
        18: (2, 2, 2, 2),
        34: (3, 4, 6, 3),
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
        200: (3, 24, 36, 3),
    }
)
"""Blocks per stage of each depth. From 50 on the blocks are bottlenecks."""

SRTG_REPO = "Stergiou & Poppe 2021, the authors' code"
HARA_REPO = "Hara et al. 2018, the authors' code"


@dataclass(frozen=True)
class Family:
    """Networks that differ in depth only.

    Attributes:
      name: of a member, with ``{}`` for its depth.
      depths: of its members.
      source: where the definition comes from.
      fields: fields of :class:`ResNet3D` that differ from its defaults.
      bottleneck: further fields, of the depths with bottlenecks only.
    """

    name: str
    depths: tuple[int, ...]
    source: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    bottleneck: Mapping[str, Any] = field(default_factory=dict)


FAMILIES: tuple[Family, ...] = (
    # Bottlenecks with expansion 1, as in all networks of the SRTG paper: only so are the printed parameter counts met.
    Family("r3d_{}", tuple(STAGE_SIZES), SRTG_REPO),
    Family("r2plus1d_{}", tuple(STAGE_SIZES), SRTG_REPO, {"factorised": True}),
    Family("wide_r3d_{}", (50, 101), SRTG_REPO, {"base_width": 128}),
    # Expansion 4 and a 7x7x7 stem. (2+1)D middle channels of each convolution by itself, the stem's included.
    Family("resnet3d_{}_hara", tuple(STAGE_SIZES), HARA_REPO, {"stem_frames": 7}, {"expansion": 4}),
    Family(
        "r2plus1d_{}_hara",
        (18, 34, 50, 101),
        HARA_REPO,
        {"factorised": True, "stem_frames": 7, "stem_middle": None, "shared_middle": False},
        {"expansion": 4},
    ),
    # Wide ResNet with k = 2: twice the planes, the stem too, and half the expansion.
    Family("wide_resnet3d_{}_hara", (50,), HARA_REPO, {"stem_frames": 7, "widen": 2}, {"expansion": 2}),
)

SRTG_CHOICES: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "cell": ("lstm", "peephole_lstm", "gru", "rnn"),
        "num_layers": (1, 2),
        "gate": ("none", "cyclic"),
        "gate_gradient": ("hard", "straight_through"),
        "init": ("identity", "torch"),
        "placement": PLACEMENTS,
    }
)
"""The values of the options that only ``srtg_`` names take."""

DTYPES = ("float32", "bfloat16", "float16")


def builders() -> dict[str, Callable[..., ResNet3D]]:
    """Name -> builder of every network of :data:`FAMILIES`, each plain and with SRTG."""
    return {name: partial(build_resnet, name, family, depth) for name, (family, depth) in _members().items()}


def sources() -> dict[str, str]:
    """Name -> where the network's definition comes from."""
    return {name: family.source for name, (family, _) in _members().items()}


def _members() -> dict[str, tuple[Family, int]]:
    return {
        f"{prefix}{family.name.format(depth)}": (family, depth)
        for prefix in ("", "srtg_")
        for family in FAMILIES
        for depth in family.depths
    }


def build_resnet(
    name: str,
    family: Family,
    depth: int,
    num_classes: int,
    *,
    width: int = 64,
    dropout: float = 0.0,
    dtype: Any = "float32",
    conv: str = "auto",
    expansion: int | None = None,
    **srtg: Any,
) -> ResNet3D:
    """Builds one network of the table.

    Args:
      name: its registered name; one that begins with ``srtg_`` has SRTG in every block.
      family: its row.
      depth: its depth, a key of :data:`STAGE_SIZES`.
      num_classes: outputs, at least 1.
      width: scales the stem and every stage; the stages have ``width`` times 1, 2, 4, 8 planes.
      dropout: share of the features dropped before the classifier, in [0, 1).
      dtype: of the activations: float32, bfloat16 or float16.
      conv: ``"auto"``, ``"direct"`` or ``"folded"``.
      expansion: output channels of a bottleneck per plane; ``None`` is the family's own.
      **srtg: fields of :class:`SRTGOptions`, for ``srtg_`` names only.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    bottleneck = depth >= 50
    _check_options(name, srtg)
    num_classes, width = _count("num_classes", num_classes), _count("width", width)
    dropout = _share("dropout", dropout)
    _require_choice("conv", conv, CONVS)
    dtype_name = _dtype_name(dtype)
    _require_choice("dtype", dtype_name, DTYPES)
    fields = dict(family.fields) | (dict(family.bottleneck) if bottleneck else {})
    if expansion is not None:
        expansion = _count("expansion", expansion)
        if not bottleneck and expansion != 1:
            raise ValueError(
                f"expansion must be 1 where the blocks are simple (depths 18 and 34), received expansion={expansion} "
                f"for {name!r}."
            )
        fields["expansion"] = expansion
    return ResNet3D(
        num_classes=num_classes,
        stage_sizes=STAGE_SIZES[depth],
        bottleneck=bottleneck,
        width=width,
        dropout=dropout,
        dtype=jnp.dtype(dtype_name),
        conv=conv,
        srtg=SRTGOptions(**srtg) if name.startswith("srtg_") else None,
        **fields,
    )


def _check_options(name: str, srtg: Mapping[str, Any]) -> None:
    known = ["width", "dropout", "dtype", "conv", "expansion"]
    recurrent = [f.name for f in dataclasses.fields(SRTGOptions)]
    for option, value in srtg.items():
        if option not in recurrent:
            raise ValueError(
                f"the options of {name!r} must be among {', '.join(known + recurrent)}, received {option!r}"
                f"{closest(option, known + recurrent)}."
            )
        if not name.startswith("srtg_"):
            raise ValueError(
                f"{option} may only be set for a model whose name starts with srtg_, received {option}={value!r} "
                f"for {name!r} (the one with SRTG is 'srtg_{name}')."
            )
        _require_choice(option, value, SRTG_CHOICES[option])
    if srtg.get("gate_gradient", "hard") != "hard" and srtg.get("gate", "none") != "cyclic":
        raise ValueError(
            f"gate_gradient may only be set with gate='cyclic', received gate_gradient={srtg['gate_gradient']!r} "
            f"with gate={srtg.get('gate', 'none')!r}."
        )


def closest(word: Any, choices: Collection[Any]) -> str:
    """The end of an error message that names the nearest valid words, or nothing where none is near.

    >>> closest("r3d18", ["r3d_18", "i3d", "slowfast"])
    "; did you mean 'r3d_18' or 'i3d'"
    """
    near = difflib.get_close_matches(str(word), [str(choice) for choice in choices], n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}" if near else ""


def _count(option: str, value: Any) -> int:
    """A whole number of any type, NumPy's too, as Python's own: fields of modules are hashed and compared."""
    try:
        number = 0 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{option} must be a whole number >= 1, received {option}={value!r}.")
    return number


def _share(option: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
        raise ValueError(f"{option} must be in [0, 1), received {option}={value!r}.")
    return float(value)


def _require_choice(option: str, value: Any, choices: tuple[Any, ...]) -> None:
    # `in` alone would take True for 1.
    if value not in choices or isinstance(value, bool):
        raise ValueError(
            f"{option} must be one of {', '.join(map(str, choices))}, "
            f"received {option}={value!r}{closest(value, choices)}."
        )


def _dtype_name(dtype: Any) -> str:
    try:
        return jnp.dtype(dtype).name
    except TypeError:
        return str(dtype)
