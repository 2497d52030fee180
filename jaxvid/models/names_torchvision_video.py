"""The names of torchvision's video ResNets (``torchvision.models.video``)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from jaxvid.models.resnet import ResNet3D
from jaxvid.models.schemes import TORCH_LEAVES, recurrent_key

_MODULES: Mapping[str, str] = MappingProxyType(
    {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}
    # Sequentials of convolution, BN and ReLU; a (2+1)D convolution is one of spatial, BN, ReLU, temporal inside.
    | {f"conv{n}": f"conv{n}.0" for n in (1, 2, 3)}
    | {f"norm{n}": f"conv{n}.1" for n in (1, 2, 3)}
    | {
        f"conv{n}/{part}": f"conv{n}.0.{entry}"
        for n in (1, 2)
        for part, entry in (("spatial", 0), ("norm", 1), ("temporal", 3))
    }
)
# Of the stem, which is one Sequential also where its convolution is factorised.
_STEM: Mapping[str, str] = MappingProxyType(
    {"conv": "stem.0", "conv/spatial": "stem.0", "conv/norm": "stem.1", "conv/temporal": "stem.3"}
)


def key(name: str, model: ResNet3D, path: tuple[str, ...]) -> str:
    """The torch name of one variable; see :func:`jaxvid.models.torch_names.torch_key`."""
    del name
    block, *modules, leaf = path[1:]
    if block == "head":
        return f"fc.{TORCH_LEAVES[leaf]}"
    if block == "stem":
        norm = "stem.4" if model.factorised else "stem.1"
        return f"{_STEM.get('/'.join(modules), norm)}.{TORCH_LEAVES[leaf]}"
    prefix = f"layer{block.removeprefix('stage')}.{modules[0].removeprefix('block')}"
    if modules[1] == "srtg":
        return f"{prefix}.sar.{recurrent_key(model.srtg, leaf)}"
    return f"{prefix}.{_MODULES['/'.join(modules[1:])]}.{TORCH_LEAVES[leaf]}"
