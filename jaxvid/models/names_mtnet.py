"""What the public code of MTNet calls its arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxvid.models.schemes import RECURRENT_LEAVES, TORCH_LEAVES

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
