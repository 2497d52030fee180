"""What the reference implementations call their arrays: the torch name of each of our variables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import flax.linen as nn

from jaxvid.models import names_mtnet
from jaxvid.models.mtnet_reference import MTNetReference
from jaxvid.models.options import SRTGOptions
from jaxvid.models.resnet import ResNet3D
from jaxvid.models.x3d import X3D

_LEAVES: Mapping[str, str] = MappingProxyType(
    {
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    }
)
_RECURRENT_LEAVES: Mapping[str, str] = MappingProxyType(
    {
        "input_kernel": "weight_ih",
        "recurrent_kernel": "weight_hh",
        "input_bias": "bias_ih",
        "recurrent_bias": "bias_hh",
    }
)
_SHORTCUT: Mapping[str, str] = MappingProxyType({"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"})
_X3D_BLOCK: Mapping[str, str] = MappingProxyType(
    {
        "conv1": "branch2.conv_a",
        "norm1": "branch2.norm_a",
        "conv2": "branch2.conv_b",
        "norm2": "branch2.norm_b.0",
        "squeeze/reduce": "branch2.norm_b.1.block.0",
        "squeeze/expand": "branch2.norm_b.1.block.2",
        "conv3": "branch2.conv_c",
        "norm3": "branch2.norm_c",
        "shortcut_conv": "branch1_conv",
        "shortcut_norm": "branch1_norm",
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
    if isinstance(model, X3D):
        return _x3d_key(model, path)
    if isinstance(model, MTNetReference):
        return names_mtnet.key(name, model, path)
    if not isinstance(model, ResNet3D):
        raise TypeError(f"model must be a ResNet3D, an X3D or an MTNetReference, received {type(model).__name__}.")
    block, module, leaf = path[1], path[2:-1], path[-1]
    if block == "head":
        return f"fc.{_LEAVES[leaf]}"
    rename = _hara_name if name.endswith("_hara") else _srtg_name
    if block == "stem":
        return f"{rename('stem', module, model)}.{_LEAVES[leaf]}"
    prefix = f"layer{block.removeprefix('stage')}.{module[0].removeprefix('block')}"
    if module[1] == "srtg":
        return f"{prefix}.sar.{_recurrent_name(model.srtg, leaf)}"
    inner = _SHORTCUT.get(module[1]) or rename("block", module[1:], model)
    return f"{prefix}.{inner}.{_LEAVES[leaf]}"


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


def _x3d_key(model: X3D, path: tuple[str, ...]) -> str:
    """The names of pytorchvideo: ``blocks.0`` is the stem, 1 to 4 are the stages, 5 is the head."""
    block, module, leaf = path[1], path[2:-1], path[-1]
    if not block.startswith("stage"):
        return f"blocks.{_X3D_OTHER['/'.join((block, *module))]}.{_LEAVES[leaf]}"
    prefix = f"blocks.{block.removeprefix('stage')}.res_blocks.{module[0].removeprefix('block')}"
    if module[1] == "srtg":
        return f"{prefix}.sar.{_recurrent_name(model.srtg, leaf)}"
    return f"{prefix}.{_X3D_BLOCK['/'.join(module[1:])]}.{_LEAVES[leaf]}"


def _recurrent_name(srtg: SRTGOptions | None, leaf: str) -> str:
    cell = srtg.cell if srtg else ""
    kind, layer = leaf.rsplit("_", 1)
    if kind not in _RECURRENT_LEAVES:
        raise ValueError(f"cell must be lstm, gru or rnn, the cells that torch has, received cell={cell!r}.")
    return f"{cell}.{_RECURRENT_LEAVES[kind]}_l{layer}"
