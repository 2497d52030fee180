"""The named ResNets: a table of what each name means, with its source, and the builder that reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from jaxvid.models import options
from jaxvid.models.resnet import ResNet3D

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
TORCHVISION = "Tran et al. 2018, torchvision's code"
RESNET = "He et al. 2016, as torchvision has it"
RESNEXT = "Xie et al. 2017, as torchvision has it"
WIDE = "Zagoruyko & Komodakis 2016, as torchvision has it"
MTCONV = "experimental: Stergiou, thesis 2022, section 5.3 and table 5.2; the layout is r3d's"
FAST = "experimental: Stergiou & Poppe, FAST (arXiv:2002.02651); the layout is r3d's"


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


_IMAGE: Mapping[str, Any] = MappingProxyType({"per_frame": True, "stem_frames": 1})

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
    # ResNeXt: the 3x3x3 in 32 groups of 4 channels. Hara writes it with 128 planes and expansion 2 on a stem of 64; the
    # newest state of that code has a stem of 128, which the printed multiply-adds do not have.
    Family("resnext3d_{}", (50, 101), HARA_REPO, {"stem_frames": 7, "groups": 32, "base_width": 4}, {"expansion": 4}),
    # Wide ResNet with k = 2: twice the planes, the stem too, and half the expansion.
    Family("wide_resnet3d_{}_hara", (50,), HARA_REPO, {"stem_frames": 7, "widen": 2}, {"expansion": 2}),
    # No pooling behind the stem. mc3: 3x3x3 in the stem and stage 1, 1x3x3 from stage 2 on.
    Family("r3d_{}_torchvision", (18,), TORCHVISION, {"stem_pool": False}),
    Family("mc3_{}_torchvision", (18,), TORCHVISION, {"stem_pool": False, "frame_stages": (2, 3, 4)}),
    Family("r2plus1d_{}_torchvision", (18,), TORCHVISION, {"stem_pool": False, "factorised": True}),
    # r3d with every 3x3x3 replaced and nothing else, so that the two can be compared: the 3x7x7 stem stays.
    Family("fast_r{}", (18, 34, 50, 101), FAST),
    # "MTConv in a ResNet-50", whose layout is not printed: r3d with every 3x3x3, its BN and its ReLU replaced, nothing
    # else. No reading of the text has the printed parameters and operations, see docs/mtnet.md.
    Family("mtconv_r3d_{}", (50,), MTCONV, {"delta": 0.875}),
    # The image networks of the SoftPool paper. The stride sits on the 3x3, not on the first 1x1.
    Family("resnet2d_{}", (18, 34, 50, 101, 152), RESNET, _IMAGE, {"expansion": 4}),
    Family("resnext2d_{}_32x4d", (50, 101), RESNEXT, {**_IMAGE, "groups": 32, "base_width": 4}, {"expansion": 4}),
    Family("resnext2d_{}_32x8d", (101,), RESNEXT, {**_IMAGE, "groups": 32, "base_width": 8}, {"expansion": 4}),
    Family("wide_resnet2d_{}_2", (50,), WIDE, {**_IMAGE, "base_width": 128}, {"expansion": 4}),
)


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
    width: int | None = None,
    expansion: int | None = None,
    pool: str = "max",
    pool_window: int = 3,
    fast: str | None = None,
    delta: float | None = None,
    selection: str | None = None,
    **common: Any,
) -> ResNet3D:
    """Builds one network of the table.

    Args:
      name: its registered name; one that begins with ``srtg_`` has SRTG in every block.
      family: its row.
      depth: its depth, a key of :data:`STAGE_SIZES`.
      num_classes: outputs, at least 1.
      width: scales the stem and every stage; the stages have ``width`` times 1, 2, 4, 8 planes. ``None`` is the papers'
        64.
      expansion: output channels of a bottleneck per plane; ``None`` is the family's own.
      pool: ``"max"``, ``"avg"`` or ``"soft"``, the pooling behind the stem, where the network has one.
      pool_window: length of its window along every axis, 3, or 2: with ``pool="soft"`` the SoftPool authors' code.
      fast: ``fast_`` networks only, ``"sequential"`` (the default) or ``"parallel"``, see :class:`jaxvid.nn.FASTConv`.
      delta: ``mtconv_`` networks only, the share of the channels that the local branches have, in (0, 1]; ``None`` is
        7/8.
      selection: ``mtconv_`` networks only, how the prolonged branches reduce time: ``"lowest"`` (the default) or
        ``"none"``, see :class:`jaxvid.nn.MTConv`.
      **common: the options of every network, see :func:`jaxvid.models.options.network_fields`.

    Returns:
      The Linen module.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    bottleneck = depth >= 50
    width = options.count("width", 64 if width is None else width)
    options.require_choice("pool", pool, options.POOLS)
    own = ("width", "expansion", "pool", "pool_window", "fast", "delta", "selection")
    common = options.network_fields(name, own, num_classes, **common)
    fields = dict(family.fields) | (dict(family.bottleneck) if bottleneck else {})
    if pool != "max" and not fields.get("stem_pool", True):
        raise ValueError(f"pool may not be set for a network without pooling, received pool={pool!r} for {name!r}.")
    fields |= {"pool": pool, "pool_window": options.pool_window(pool_window)}
    fields |= {"fast": options.fast_arrangement(name, fast)} | options.mtconv_choices(name, delta, selection)
    if expansion is not None:
        expansion = options.count("expansion", expansion)
        if not bottleneck and expansion != 1:
            raise ValueError(
                f"expansion must be 1 where the blocks are simple (depths 18 and 34), received expansion={expansion} "
                f"for {name!r}."
            )
        fields["expansion"] = expansion
    return ResNet3D(stage_sizes=STAGE_SIZES[depth], bottleneck=bottleneck, width=width, **fields, **common)
