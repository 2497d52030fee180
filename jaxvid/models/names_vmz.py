"""The names of the CSN authors' PyTorch code (the repository VMZ), which are those of torchvision's video ResNets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import flax.linen as nn

from jaxvid.models.csn import CSN
from jaxvid.models.schemes import TORCH_LEAVES, recurrent_key

_OTHER: Mapping[str, str] = MappingProxyType({"stem/conv": "stem.0", "stem/norm": "stem.1", "head/classifier": "fc"})
_BLOCK: Mapping[str, str] = MappingProxyType(
    {
        "conv1": "conv1.0",
        "norm1": "conv1.1",
        "interaction_conv": "conv2.0.0",
        "interaction_norm": "conv2.0.1",
        "norm2": "conv2.1",
        "conv3": "conv3.0",
        "norm3": "conv3.1",
        "shortcut_conv": "downsample.0",
        "shortcut_norm": "downsample.1",
    }
)


def key(name: str, model: nn.Module, path: tuple[str, ...]) -> str:
    """As :func:`jaxvid.models.torch_names.torch_key`.

    >>> from jaxvid import models
    >>> path = ("params", "stage1", "block0", "conv2", "kernel")
    >>> [key(name, models.build(name, 10), path) for name in ("ip_csn_50", "ir_csn_50")]
    ['layer1.0.conv2.0.2.weight', 'layer1.0.conv2.0.weight']

    Raises:
      ValueError: the variable belongs to a recurrent cell that torch does not have.
      TypeError: the network is not a CSN.
    """
    if not isinstance(model, CSN):
        raise TypeError(f"the network must be a CSN, received {name!r}.")
    block, module, leaf = path[1], path[2:-1], path[-1]
    if not block.startswith("stage"):
        return f"{_OTHER['/'.join((block, *module))]}.{TORCH_LEAVES[leaf]}"
    prefix = f"layer{block.removeprefix('stage')}.{module[0].removeprefix('block')}"
    if module[1] == "srtg":
        return f"{prefix}.sar.{recurrent_key(model.srtg, leaf)}"
    if module[1] == "conv2":
        return f"{prefix}.conv2.0{'.2' if model.preserved else ''}.{TORCH_LEAVES[leaf]}"
    return f"{prefix}.{_BLOCK[module[1]]}.{TORCH_LEAVES[leaf]}"
