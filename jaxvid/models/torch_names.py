"""What the reference implementations call their arrays: the torch name of each of our variables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import flax.linen as nn

from jaxvid.models import names_pytorchvideo, names_vmz
from jaxvid.models.csn import CSN
from jaxvid.models.resnet import ResNet3D
from jaxvid.models.slowfast import SlowFast
from jaxvid.models.torch_leaves import LEAVES, recurrent_name
from jaxvid.models.x3d import X3D

_SHORTCUT: Mapping[str, str] = MappingProxyType({"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"})


def torch_key(name: str, model: nn.Module, path: tuple[str, ...]) -> str:
    """The torch name of one variable.

    Args:
      name: the network's name, which chooses between the codes' ways of naming.
      model: the network.
      path: of the variable, collection first: ``("params", "stage1", "block0", "conv1", "kernel")``.

    >>> from jaxvid import models
    >>> torch_key("r3d_18", models.build("r3d_18", 10), ("params", "stage1", "block0", "norm2", "scale"))
    'layer1.0.conv2.1.weight'
    >>> torch_key("x3d_s", models.build("x3d_s", 10), ("params", "stage1", "block0", "squeeze", "reduce", "bias"))
    'blocks.1.res_blocks.0.branch2.norm_b.1.block.0.bias'

    Raises:
      ValueError: the variable belongs to a recurrent cell that torch does not have.
      TypeError: nobody has published weights of this kind of network.
    """
    if isinstance(model, (X3D, SlowFast, CSN)):
        preserved = isinstance(model, CSN) and model.preserved
        return (names_vmz if preserved else names_pytorchvideo).key(name, model, path)
    if not isinstance(model, ResNet3D):
        raise TypeError(f"model must be a ResNet3D, X3D, SlowFast or CSN, received {type(model).__name__}.")
    block, module, leaf = path[1], path[2:-1], path[-1]
    if block == "head":
        return f"fc.{LEAVES[leaf]}"
    rename = _hara_name if name.endswith("_hara") else _srtg_name
    if block == "stem":
        return f"{rename('stem', module, model)}.{LEAVES[leaf]}"
    prefix = f"layer{block.removeprefix('stage')}.{module[0].removeprefix('block')}"
    if module[1] == "srtg":
        return f"{prefix}.sar.{recurrent_name(model.srtg, leaf)}"
    inner = _SHORTCUT.get(module[1]) or rename("block", module[1:], model)
    return f"{prefix}.{inner}.{LEAVES[leaf]}"


def _srtg_name(place: str, module: tuple[str, ...], model: ResNet3D) -> str:
    """The SRTG authors' names: numbered entries of nested Sequentials."""
    entry = {"spatial": 0, "norm": 1, "temporal": 3}
    if place == "stem":
        # One Sequential: conv, BN, ReLU, or spatial, BN, ReLU, temporal, BN, ReLU.
        if len(module) == 2:
            return f"stem.{entry[module[1]]}"
        return "stem.0" if module[0] == "conv" else f"stem.{4 if model.factorised else 1}"
    kind, number = module[0][:-1], module[0][-1]
    if kind == "norm":
        return f"conv{number}.1"
    if len(module) == 2:
        return f"conv{number}.0.{entry[module[1]]}"
    pointwise = model.bottleneck and number != "2"
    return f"conv{number}.0" if pointwise else f"conv{number}.0.0"


def _hara_name(place: str, module: tuple[str, ...], model: ResNet3D) -> str:
    """Hara's names: ``conv1``, ``bn1``, and ``conv1_s``, ``bn1_s``, ``conv1_t``, ``bn1_t`` where factorised."""
    kind, number = (
        ("conv" if module[0] == "conv" else "norm", "1") if place == "stem" else (module[0][:-1], module[0][-1])
    )
    torch_kind = "bn" if kind == "norm" or module[-1] == "norm" else "conv"
    if len(module) == 2:
        return f"{torch_kind}{number}{'_t' if module[1] == 'temporal' else '_s'}"
    pointwise = place == "block" and model.bottleneck and number != "2"
    return f"{torch_kind}{number}{'_t' if model.factorised and not pointwise else ''}"
