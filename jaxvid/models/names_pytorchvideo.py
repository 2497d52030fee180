"""The names of pytorchvideo for X3D, SlowFast, Slow-only and CSN: ``blocks.0`` is the stem, 1 to 4 are the stages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import flax.linen as nn

from jaxvid.models.csn import CSN
from jaxvid.models.schemes import TORCH_LEAVES, recurrent_key
from jaxvid.models.slow import SlowOnly
from jaxvid.models.slowfast import SlowFast
from jaxvid.models.x3d import X3D

_BLOCK: Mapping[str, str] = MappingProxyType(
    {
        "conv1": "branch2.conv_a",
        "norm1": "branch2.norm_a",
        "conv2": "branch2.conv_b",
        "norm2": "branch2.norm_b",
        "conv3": "branch2.conv_c",
        "norm3": "branch2.norm_c",
        "shortcut_conv": "branch1_conv",
        "shortcut_norm": "branch1_norm",
    }
)
_X3D_BLOCK: Mapping[str, str] = MappingProxyType(
    {
        **_BLOCK,
        "norm2": "branch2.norm_b.0",
        "squeeze/reduce": "branch2.norm_b.1.block.0",
        "squeeze/expand": "branch2.norm_b.1.block.2",
    }
)
_X3D_OTHER: Mapping[str, str] = MappingProxyType(
    {
        # The names say the opposite of what the two kernels are: `conv_t` is 1x3x3 and `conv_xy` is 5x1x1.
        "stem/spatial": "0.conv.conv_t",
        "stem/temporal": "0.conv.conv_xy",
        "stem/norm": "0.norm",
        "head/conv1": "5.pool.pre_conv",
        "head/norm1": "5.pool.pre_norm",
        "head/conv2": "5.pool.post_conv",
        "head/classifier": "5.proj",
    }
)
_PLAIN_OTHER: Mapping[str, str] = MappingProxyType(
    {"stem/conv": "0.conv", "stem/norm": "0.norm", "head/classifier": "5.proj"}
)
_PATHWAYS: Mapping[str, str] = MappingProxyType({"slow": "multipathway_blocks.0", "fast": "multipathway_blocks.1"})
_FUSION: Mapping[str, str] = MappingProxyType({"conv": "conv_fast_to_slow", "norm": "norm"})


def key(name: str, model: nn.Module, path: tuple[str, ...]) -> str:
    """As :func:`jaxvid.models.torch_names.torch_key`.

    >>> from jaxvid import models
    >>> key("x3d_s", models.build("x3d_s", 10), ("params", "stage1", "block0", "squeeze", "reduce", "bias"))
    'blocks.1.res_blocks.0.branch2.norm_b.1.block.0.bias'
    >>> path = ("params", "stage2", "fusion", "norm", "scale")
    >>> key("slowfast_r50_8x8", models.build("slowfast_r50_8x8", 10), path)
    'blocks.1.multipathway_fusion.norm.weight'

    Raises:
      ValueError: the variable belongs to a recurrent cell that torch does not have.
      TypeError: pytorchvideo has no network of this kind.
    """
    block, module, leaf = path[1], path[2:-1], path[-1]
    if isinstance(model, SlowFast):
        return _slowfast(model, block, module, leaf)
    if isinstance(model, X3D):
        inside, outside = _X3D_BLOCK, _X3D_OTHER
    elif isinstance(model, SlowOnly) or (isinstance(model, CSN) and not model.preserved):
        inside, outside = _BLOCK, _PLAIN_OTHER
    else:
        raise TypeError(
            f"pytorchvideo must have the network, an X3D, a SlowFast, a Slow-only one or an ir-CSN, received {name!r}."
        )
    if not block.startswith("stage"):
        return f"blocks.{outside['/'.join((block, *module))]}.{TORCH_LEAVES[leaf]}"
    return f"blocks.{block.removeprefix('stage')}.{_in_block(model, inside, module, leaf)}"


def _slowfast(model: SlowFast, block: str, module: tuple[str, ...], leaf: str) -> str:
    if block == "head":
        return f"blocks.6.proj.{TORCH_LEAVES[leaf]}"
    number = int(block.removeprefix("stage")) if block != "stem" else 0
    part, *inner = module
    if part == "fusion":  # theirs belongs to the block before
        return f"blocks.{number - 1}.multipathway_fusion.{_FUSION[inner[0]]}.{TORCH_LEAVES[leaf]}"
    prefix = f"blocks.{number}.{_PATHWAYS[part]}"
    if block == "stem":
        return f"{prefix}.{inner[0]}.{TORCH_LEAVES[leaf]}"
    return f"{prefix}.{_in_block(model, _BLOCK, tuple(inner), leaf)}"


def _in_block(
    model: X3D | SlowFast | SlowOnly | CSN, names: Mapping[str, str], module: tuple[str, ...], leaf: str
) -> str:
    prefix = f"res_blocks.{module[0].removeprefix('block')}"
    if module[1] == "srtg":
        return f"{prefix}.sar.{recurrent_key(model.srtg, leaf)}"
    return f"{prefix}.{names['/'.join(module[1:])]}.{TORCH_LEAVES[leaf]}"
