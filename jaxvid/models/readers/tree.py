"""From the nested containers of a checkpoint to named arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxvid.models.readers.stored import StoredArray, WeightsFileError

WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
"""Under which of its keys a training checkpoint keeps the network's weights."""

MAX_DEPTH = 50


def flatten(tree: object, path: Path) -> dict[str, StoredArray]:
    """The arrays of nested mappings and sequences, their keys joined by dots.

    >>> from jaxvid.models.readers.stored import in_memory
    >>> import numpy as np
    >>> tree = {"epoch": 3, "state_dict": {"fc.weight": in_memory(np.ones(2))}, "optimizer": {}}
    >>> list(flatten(tree, Path("x.pth")))
    ['fc.weight']
    """
    if isinstance(tree, StoredArray):
        raise WeightsFileError(path, "holds a single array without a name")
    if isinstance(tree, Mapping):
        for wrapper in WRAPPERS:
            if isinstance(tree.get(wrapper), Mapping):
                tree = tree[wrapper]
                break
    arrays: dict[str, StoredArray] = {}
    for key, array in _walk(tree, (), path):
        if key in arrays:
            raise WeightsFileError(path, f"holds two arrays of the name {key!r}")
        arrays[key] = array
    return arrays


def _walk(node: object, keys: tuple[str, ...], path: Path) -> Iterator[tuple[str, StoredArray]]:
    if isinstance(node, StoredArray):
        yield ".".join(keys), node
        return
    if len(keys) > MAX_DEPTH:  # a container may even hold itself
        raise WeightsFileError(path, f"holds containers inside of containers, more than {MAX_DEPTH} deep")
    if isinstance(node, Mapping):
        children = [(str(key), child) for key, child in node.items()]
    elif isinstance(node, (list, tuple)):
        children = [(str(index), child) for index, child in enumerate(node)]
    else:
        return
    for key, child in children:
        yield from _walk(child, (*keys, key), path)
