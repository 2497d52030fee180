"""I3D in piergiaj's code: the names of the TensorFlow original, ``b0`` … ``b3b`` inside of the Inception modules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import flax.linen as nn

from jaxvid.models.schemes import TORCH_LEAVES

LAYERS: Mapping[str, str] = MappingProxyType(
    {
        "stem": "Conv3d_1a_7x7",
        "stage1/block0": "Conv3d_2b_1x1",
        "stage1/block1": "Conv3d_2c_3x3",
        **{f"stage2/block{i}": f"Mixed_3{letter}" for i, letter in enumerate("bc")},
        **{f"stage3/block{i}": f"Mixed_4{letter}" for i, letter in enumerate("bcdef")},
        **{f"stage4/block{i}": f"Mixed_5{letter}" for i, letter in enumerate("bc")},
    }
)
"""Our blocks -> the paper's layers."""

_BRANCHES: Mapping[str, str] = MappingProxyType(
    {"branch0": "b0", "branch1a": "b1a", "branch1b": "b1b", "branch2a": "b2a", "branch2b": "b2b", "branch3": "b3b"}
)
_KINDS: Mapping[str, str] = MappingProxyType({"conv": "conv3d", "norm": "bn"})


def key(name: str, model: nn.Module, path: tuple[str, ...]) -> str:
    """The torch name of one variable of an I3D."""
    del name, model  # the code has one network
    *module, kind, leaf = path[1:]
    if module == ["head"]:
        return f"logits.conv3d.{TORCH_LEAVES[leaf]}"
    layer, branch = split(module)
    unit = f"{layer}.{_BRANCHES[branch]}" if branch else layer
    return f"{unit}.{_KINDS[kind]}.{TORCH_LEAVES[leaf]}"


def split(module: list[str]) -> tuple[str, str | None]:
    """The paper's layer of a module of ours, and our name of the branch in it, or ``None``.

    >>> split(["stage2", "block0", "branch1a"]), split(["stem"])
    (('Mixed_3b', 'branch1a'), ('Conv3d_1a_7x7', None))
    """
    branch = module[-1] if module[-1] in _BRANCHES else None
    return LAYERS["/".join(module[:-1] if branch else module)], branch
