"""torchvision's names of the arrays of its image networks."""

from __future__ import annotations

import re

import flax.linen as nn

from jaxvid.models.densenet import DenseNet
from jaxvid.models.schemes import TORCH_LEAVES, recurrent_key

_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
_SHORTCUT = {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}


def key(name: str, model: nn.Module, path: tuple[str, ...]) -> str:
    """The torchvision name of one variable of an image ResNet or DenseNet; SRTG is named as by its authors.

    Args:
      name: the network's name.
      model: the network.
      path: of the variable, collection first.

    >>> from jaxvid import models
    >>> path = ("params", "stage2", "transition", "conv", "kernel")
    >>> key("densenet2d_121", models.build("densenet2d_121", 10), path)
    'features.transition1.conv.weight'

    Raises:
      TypeError: the network is none of torchvision's.
    """
    block, module, leaf = path[1], path[2:-1], path[-1]
    if isinstance(model, DenseNet):
        if not model.per_frame:
            raise TypeError(f"model must be an image network, received {name!r}, of which no weights are published.")
        return f"{_densenet(block, module)}.{TORCH_LEAVES[leaf]}"
    if "srtg" in module:
        prefix = f"layer{block.removeprefix('stage')}.{module[0].removeprefix('block')}"
        return f"{prefix}.sar.{recurrent_key(model.srtg, leaf)}"  # type: ignore[attr-defined]  # of a ResNet3D
    return f"{_resnet(block, module)}.{TORCH_LEAVES[leaf]}"


def modern(key: str) -> str:
    """A key of torchvision's as its code has it today; its published DenseNet files are older.

    >>> modern("features.denseblock1.denselayer16.norm.2.weight")
    'features.denseblock1.denselayer16.norm2.weight'
    """
    return _OLD_DENSE_LAYER.sub(r"\1\2", key)


def _resnet(block: str, module: tuple[str, ...]) -> str:
    if block == "head":
        return "fc"
    if block == "stem":
        return {"conv": "conv1", "norm": "bn1"}[module[0]]
    inner = _SHORTCUT.get(module[1]) or module[1].replace("norm", "bn")
    return f"layer{block.removeprefix('stage')}.{module[0].removeprefix('block')}.{inner}"


def _densenet(block: str, module: tuple[str, ...]) -> str:
    if block == "head":
        return "classifier"
    if block == "stem":
        return f"features.{module[0]}0"
    stage = int(block.removeprefix("stage"))
    if module[0] == "transition":
        return f"features.transition{stage - 1}.{module[1]}"
    if module[0] == "norm":
        return "features.norm5"
    return f"features.denseblock{stage}.denselayer{int(module[0].removeprefix('block')) + 1}.{module[1]}"
