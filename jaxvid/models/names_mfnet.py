"""MF-Net in its authors' code: ``conv2`` … ``conv5`` are the stages, ``B01`` … their units."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from jaxvid.models.mfnet import MFNet
from jaxvid.models.schemes import TORCH_LEAVES, recurrent_key

_LAYERS: Mapping[str, str] = MappingProxyType({"1": "i1", "2": "i2", "3": "m1", "4": "m2"})
_KINDS: Mapping[str, str] = MappingProxyType({"conv": "conv", "norm": "bn"})


def key(name: str, model: MFNet, path: tuple[str, ...]) -> str:
    """The torch name of one variable of an MF-Net; the SRTG of a unit, which the code does not have, is its ``sar``."""
    del name  # the code has one network
    block, *module, leaf = path[1:]
    if block not in ("stem", "head") and module != ["norm"]:
        unit = f"conv{int(block.removeprefix('stage')) + 1}.B{int(module[0].removeprefix('block')) + 1:02d}"
        if module[1] == "srtg":
            return f"{unit}.sar.{recurrent_key(model.srtg, leaf)}"
        return f"{unit}.conv_{_layer(module[1])}.{TORCH_LEAVES[leaf]}"
    layer = {"stem": f"conv1.{_KINDS.get(module[0])}", "head": "classifier"}.get(block, "tail.bn")
    return f"{layer}.{TORCH_LEAVES[leaf]}"


def _layer(module: str) -> str:
    """``i1.bn`` of ``norm1``, ``w1.conv`` of ``shortcut_conv``."""
    shortcut, _, kind = module.rpartition("_")
    return f"w1.{_KINDS[kind]}" if shortcut else f"{_LAYERS[module[-1]]}.{_KINDS[module[:-1]]}"
