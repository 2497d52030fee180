"""The names of the codes of TSM and TAM, which both wrap the blocks of torchvision's image ResNets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jaxvid.models.frame_resnet import FrameResNet
from jaxvid.models.schemes import TORCH_LEAVES, recurrent_key
from jaxvid.models.tsm import TSM

_MODULES: Mapping[str, str] = MappingProxyType(
    {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}
    | {f"conv{n}": f"conv{n}" for n in (1, 2, 3)}
    | {f"norm{n}": f"bn{n}" for n in (1, 2, 3)}
)
_TAM: Mapping[str, str] = MappingProxyType(
    {
        "frames": "tam.G.0",
        "frames_norm": "tam.G.1",
        "taps": "tam.G.3",
        "reduce": "tam.L.0",
        "reduce_norm": "tam.L.1",
        "excite": "tam.L.3",
    }
)


def key(name: str, model: FrameResNet, path: tuple[str, ...]) -> str:
    """The torch name of one variable; see :func:`jaxvid.models.torch_names.torch_key`."""
    del name
    block, *modules, leaf = path[1:]
    if block == "head":
        return f"new_fc.{TORCH_LEAVES[leaf]}"
    if block == "stem":
        return f"base_model.{'conv1' if modules[0] == 'conv' else 'bn1'}.{TORCH_LEAVES[leaf]}"
    index = int(modules[0].removeprefix("block"))
    prefix = f"base_model.layer{block.removeprefix('stage')}.{index}"
    if modules[1] == "srtg":
        return f"{prefix}.sar.{recurrent_key(model.srtg, leaf)}"
    if modules[1] == "temporal":
        return f"{prefix}.{_TAM[modules[2]]}.{TORCH_LEAVES[leaf]}"
    inner = _MODULES[modules[1]]
    if not isinstance(model, TSM):  # TAM wraps the block, TSM the convolution behind a shift
        return f"{prefix}.net.{inner}.{TORCH_LEAVES[leaf]}"
    wrapped = ".net" if inner == "conv1" and model.shifts(index) else ""
    return f"{prefix}.{inner}{wrapped}.{TORCH_LEAVES[leaf]}"


def num_frames(arrays: Mapping[str, Any]) -> int | None:
    """The number of frames that a TAM's layers over time were made for, or ``None`` where there are none."""
    layers = [tuple(array.shape) for name, array in arrays.items() if name.endswith(".tam.G.0.weight")]
    # By the majority, so that a damaged one is named beside the shape it should have.
    lengths = Counter(shape[1] for shape in layers if len(shape) == 2 and shape[1] > 0)
    return lengths.most_common(1)[0][0] if lengths else None
