"""I3D as TensorFlow Hub publishes it, in Flax: paths joined by ``|``, BatchNorm without a scale."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import flax.linen as nn

from jaxvid.models.names_piergiaj import split

_BRANCHES: Mapping[str, str] = MappingProxyType(
    {
        "branch0": "Branch_0/Conv3d_0a_1x1",
        "branch1a": "Branch_1/Conv3d_0a_1x1",
        "branch1b": "Branch_1/Conv3d_0b_3x3",
        "branch2a": "Branch_2/Conv3d_0a_1x1",
        "branch2b": "Branch_2/Conv3d_0b_3x3",
        "branch3": "Branch_3/Conv3d_0b_1x1",
    }
)
_KINDS: Mapping[str, str] = MappingProxyType({"conv": "Conv_0", "norm": "BatchNorm_0"})


def key(name: str, model: nn.Module, path: tuple[str, ...]) -> str:
    """The name of one variable of an I3D."""
    del name, model  # there is one network
    collection, *module, kind, leaf = path
    if module == ["head"]:
        return f"params|Logits/Conv3d_0c_1x1|Conv_0|{leaf}"
    layer, branch = split(module)
    unit = f"{layer}|{_BRANCHES[branch]}" if branch else layer
    return f"{collection}|{unit}|{_KINDS[kind]}|{leaf}"
