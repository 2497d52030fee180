"""What the public code of MTNet calls its arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxvid.models.schemes import RECURRENT_LEAVES, TORCH_LEAVES
from jaxvid.nn.mtconv_reference import split_streams

if TYPE_CHECKING:
    from jaxvid.models.mtnet_reference import MTNetReference


def key(name: str, model: MTNetReference, path: tuple[str, ...]) -> str:
    """The torch name of one variable; see :func:`jaxvid.models.torch_names.torch_key`.

    >>> key("mtnet_ref_s", None, ("params", "stage2", "block0", "conv2", "conv_short2long", "kernel"))
    'layer2.0.conv2.conv_short2long.weight'
    >>> key("mtnet_ref_s", None, ("params", "stage1", "block1", "sr_long", "input_kernel_1"))
    'layer1.1.sr_long.op.weight_ih_l1'
    """
    del name, model  # all sizes are named alike
    block, module, leaf = path[1], path[2:-1], path[-1]
    if block == "head":
        return f"fc.{TORCH_LEAVES[leaf]}"
    if block == "stem":
        return f"stem.{'0' if module[0] == 'conv' else '1'}.{TORCH_LEAVES[leaf]}"
    prefix = f"layer{block.removeprefix('stage')}.{module[0].removeprefix('block')}.{'.'.join(module[1:])}"
    if not module[1].startswith("sr_"):
        return f"{prefix}.{TORCH_LEAVES[leaf]}"
    kind, layer = leaf.rsplit("_", 1)
    return f"{prefix}.op.{RECURRENT_LEAVES[kind]}_l{layer}"


_SHORT, _LONG = "norm_short.weight", "norm_long.weight"
_LAST = "layer4."  # the last stage, whose channels these convolutions make
_MAKING = (".conv3.", ".downsample.")
_GROWTH = 8  # those are so many times ``width``, which is a multiple of every size's groups


def width_and_delta(arrays: Mapping[str, Any]) -> dict[str, int | float]:
    """The options ``width`` and ``delta`` that arrays of these names tell; none where they do not tell both.

    The streams of the last stage have ``8 width`` channels together, ``floor(delta 8 width)`` of them the short one. Of
    all deltas that give every convolution its channels, the fraction of the least denominator is returned.
    """
    streams = {key.removesuffix(_SHORT): _channels(arrays, key.removesuffix(_SHORT)) for key in arrays if _SHORT in key}
    last = Counter(
        both for key, both in streams.items() if all(both) and key.startswith(_LAST) and key.endswith(_MAKING)
    )
    # By the majority, so that a damaged one is named beside the shape it should have.
    short, long = last.most_common(1)[0][0] if last else (0, 0)
    width, odd = divmod(short + long, _GROWTH)
    if odd or not last:
        return {}
    whole, seen = short + long, Counter(streams.values())
    fractions = [-(-short * d // whole) / d for d in range(2, whole + 1)]
    delta = max(fractions, key=lambda f: sum(n for both, n in seen.items() if split_streams(sum(both), f) == both))
    return {"width": width, "delta": delta}


def _channels(arrays: Mapping[str, Any], module: str) -> tuple[int, int]:
    """Of the short stream and of the long one, behind one convolution; 0 where its array is absent or no vector."""
    shapes = [arrays[key].shape if (key := module + end) in arrays else () for end in (_SHORT, _LONG)]
    short, long = (shape[0] if len(shape) == 1 else 0 for shape in shapes)
    return short, long
