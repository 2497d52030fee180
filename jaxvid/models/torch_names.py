"""What the reference implementations call their arrays: the torch name of each of our variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

import flax.linen as nn

from jaxvid.models import (
    names_mfnet,
    names_mtnet,
    names_piergiaj,
    names_pyslowfast,
    names_pytorchvideo,
    names_tfhub,
    names_torchvision,
    names_torchvision_video,
    names_tsn,
    names_vmz,
)
from jaxvid.models.csn import CSN
from jaxvid.models.densenet import DenseNet
from jaxvid.models.i3d import I3D
from jaxvid.models.mfnet import MFNet
from jaxvid.models.mtnet_reference import MTNetReference
from jaxvid.models.resnet import ResNet3D
from jaxvid.models.schemes import TORCH_LEAVES, Scheme, recurrent_key
from jaxvid.models.slow import SlowOnly
from jaxvid.models.slowfast import SlowFast
from jaxvid.models.tam import TANet
from jaxvid.models.tsm import TSM
from jaxvid.models.x3d import X3D

_SHORTCUT: Mapping[str, str] = MappingProxyType({"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"})


class UnpublishedError(TypeError, ValueError):
    """Nobody has published weights of this kind of network: a wrong type of model, and a wrong name to convert to."""


def schemes_of(name: str, model: nn.Module) -> tuple[Scheme, ...]:
    """The codes' ways of storing a network, the one of :func:`torch_key` first.

    >>> from jaxvid import models
    >>> [scheme.code for scheme in schemes_of("resnext3d_50", models.build("resnext3d_50", 10))]
    ['Hara']

    Raises:
      UnpublishedError: nobody has published weights of this kind of network.
    """
    schemes = SCHEMES.get(type(model))
    changed = isinstance(model, (ResNet3D, DenseNet)) and model.fast is not None
    if schemes is None or changed or (isinstance(model, ResNet3D) and model.delta is not None):
        raise UnpublishedError(
            f"model must be a network of which somebody has published weights, received {type(model).__name__} "
            f"({name!r})."
        )
    named = tuple(scheme for scheme in schemes if any(part in name for part in scheme.names))
    return named or tuple(scheme for scheme in schemes if not scheme.names)


def torch_key(name: str, model: nn.Module, path: tuple[str, ...]) -> str:
    """The torch name of one variable, in the first of the network's schemes.

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
      UnpublishedError: nobody has published weights of this kind of network.
    """
    return schemes_of(name, model)[0].key(name, model, path)


_Rename: TypeAlias = Callable[[str, tuple[str, ...], ResNet3D], str]


def _resnet_key(rename: _Rename, name: str, model: ResNet3D, path: tuple[str, ...]) -> str:
    """The names of a code that calls the layers of stem and blocks as ``rename`` tells."""
    del name  # all of them are named alike
    block, module, leaf = path[1], path[2:-1], path[-1]
    if block == "head":
        return f"fc.{TORCH_LEAVES[leaf]}"
    if block == "stem":
        return f"{rename('stem', module, model)}.{TORCH_LEAVES[leaf]}"
    prefix = f"layer{block.removeprefix('stage')}.{module[0].removeprefix('block')}"
    if module[1] == "srtg":
        return f"{prefix}.sar.{recurrent_key(model.srtg, leaf)}"
    inner = _SHORTCUT.get(module[1]) or rename("block", module[1:], model)
    return f"{prefix}.{inner}.{TORCH_LEAVES[leaf]}"


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


_FACEBOOK = (Scheme("pytorchvideo", names_pytorchvideo.key), Scheme("PySlowFast", names_pyslowfast.key))

SCHEMES: Mapping[type[nn.Module], tuple[Scheme, ...]] = MappingProxyType(
    {
        ResNet3D: (
            Scheme("the SRTG authors", partial(_resnet_key, _srtg_name)),
            Scheme("Hara", partial(_resnet_key, _hara_name), names=("_hara", "resnext3d_")),
            Scheme("torchvision", names_torchvision_video.key, names=("_torchvision",)),
            Scheme("torchvision images", names_torchvision.key, names=("resnet2d_", "resnext2d_")),
        ),
        DenseNet: (Scheme("torchvision images", names_torchvision.key),),
        X3D: (
            Scheme("pytorchvideo", names_pytorchvideo.key),
            Scheme("PySlowFast", names_pyslowfast.key, options={"shortcut_norm": True}),
        ),
        SlowFast: _FACEBOOK,
        SlowOnly: _FACEBOOK,
        CSN: (
            *_FACEBOOK,
            Scheme("VMZ", names_vmz.key, options={"epsilon": 1e-3}),
            Scheme("VMZ", names_vmz.key, names=("ip_csn_",)),
        ),
        I3D: (
            Scheme("piergiaj", names_piergiaj.key),
            Scheme("TensorFlow Hub", names_tfhub.key, layout="flax", defaults={"scale": 1.0}),
        ),
        TSM: (Scheme("the TSM authors", names_tsn.key),),
        TANet: (Scheme("the TAM authors", names_tsn.key),),
        MTNetReference: (Scheme("the SRTG authors", names_mtnet.key),),
        MFNet: (Scheme("the MF-Net authors", names_mfnet.key),),
    }
)
"""Kind of network -> the schemes that its weights come in; see :func:`jaxvid.models.convert.convert_state_dict`."""
