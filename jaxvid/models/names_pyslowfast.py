"""The names of PySlowFast (the repository SlowFast) for X3D, SlowFast, Slow-only and CSN: ``s1`` is the stem."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import flax.linen as nn

from jaxvid.models import names_pytorchvideo
from jaxvid.models.csn import CSN
from jaxvid.models.schemes import TORCH_LEAVES, recurrent_key
from jaxvid.models.slow import SlowOnly
from jaxvid.models.slowfast import SlowFast
from jaxvid.models.x3d import X3D

_BLOCK: Mapping[str, str] = MappingProxyType(
    {
        "conv1": "branch2.a",
        "norm1": "branch2.a_bn",
        "conv2": "branch2.b",
        "norm2": "branch2.b_bn",
        "squeeze/reduce": "branch2.se.fc1",
        "squeeze/expand": "branch2.se.fc2",
        "conv3": "branch2.c",
        "norm3": "branch2.c_bn",
        "shortcut_conv": "branch1",
        "shortcut_norm": "branch1_bn",
    }
)
_STEM: Mapping[str, str] = MappingProxyType({"spatial": "conv_xy", "temporal": "conv", "conv": "conv", "norm": "bn"})
_HEAD: Mapping[str, str] = MappingProxyType(
    {"conv1": "conv_5", "norm1": "conv_5_bn", "conv2": "lin_5", "classifier": "projection"}
)
_FUSION: Mapping[str, str] = MappingProxyType({"conv": "conv_f2s", "norm": "bn"})
_PATHWAYS: Mapping[str, int] = MappingProxyType({"slow": 0, "fast": 1})


def key(name: str, model: nn.Module, path: tuple[str, ...]) -> str:
    """As :func:`jaxvid.models.torch_names.torch_key`.

    PySlowFast has its CSN from pytorchvideo and keeps it in a module ``model``. The networks that it builds itself have
    a BN behind every shortcut's convolution, also in stage 1 of X3D (see ``shortcut_norm`` of
    :func:`jaxvid.models.x3d.build_x3d`).

    >>> from jaxvid import models
    >>> key("x3d_s", models.build("x3d_s", 10), ("params", "stage1", "block0", "squeeze", "reduce", "bias"))
    's2.pathway0_res0.branch2.se.fc1.bias'
    >>> path = ("params", "stage2", "fusion", "norm", "scale")
    >>> key("slowfast_r50_8x8", models.build("slowfast_r50_8x8", 10), path)
    's2_fuse.bn.weight'

    Raises:
      ValueError: the variable belongs to a recurrent cell that torch does not have.
      TypeError: PySlowFast has no network of this kind.
    """
    if isinstance(model, CSN):
        return f"model.{names_pytorchvideo.key(name, model, path)}"
    if not isinstance(model, (X3D, SlowFast, SlowOnly)):
        raise TypeError(
            f"PySlowFast must have the network, an X3D, a SlowFast, a Slow-only one or an ir-CSN, received {name!r}."
        )
    block, module, leaf = path[1], path[2:-1], path[-1]
    if block == "head":
        return f"head.{_HEAD[module[0]]}.{TORCH_LEAVES[leaf]}"
    number = int(block.removeprefix("stage")) + 1 if block != "stem" else 1
    if module[0] == "fusion":  # theirs is named after the stage before
        return f"s{number - 1}_fuse.{_FUSION[module[1]]}.{TORCH_LEAVES[leaf]}"
    pathway = 0
    if isinstance(model, SlowFast):
        pathway, module = _PATHWAYS[module[0]], module[1:]
    if block == "stem":
        return f"s1.pathway{pathway}_stem.{_STEM[module[0]]}.{TORCH_LEAVES[leaf]}"
    prefix = f"s{number}.pathway{pathway}_res{module[0].removeprefix('block')}"
    if module[1] == "srtg":
        return f"{prefix}.sar.{recurrent_key(model.srtg, leaf)}"
    return f"{prefix}.{_BLOCK['/'.join(module[1:])]}.{TORCH_LEAVES[leaf]}"
