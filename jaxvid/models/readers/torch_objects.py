"""What stands for torch's classes while a checkpoint is read: storages in a file, and tensors that look into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxvid.models.readers import numpy_objects, unpickling
from jaxvid.models.readers.stored import StoredArray, WeightsFileError

DTYPES: Mapping[str, np.dtype] = {
    "Double": np.dtype("float64"),
    "Float": np.dtype("float32"),
    "Half": np.dtype("float16"),
    "BFloat16": np.dtype(ml_dtypes.bfloat16),
    "Long": np.dtype("int64"),
    "Int": np.dtype("int32"),
    "Short": np.dtype("int16"),
    "Char": np.dtype("int8"),
    "Byte": np.dtype("uint8"),
    "Bool": np.dtype("bool"),
}
"""By the names of torch's typed storages."""


@dataclass(frozen=True)
class Storage:
    """A row of values in a file.

    Attributes:
      dtype: of the values.
      size: how many there are.
      load: reads them, as an array with one axis.
    """

    dtype: np.dtype
    size: int
    load: Callable[[], np.ndarray]


@dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype


@dataclass(frozen=True)
class _Attribute:
    """A name of torch that is no container: a dtype, a layout, a device. It is carried and never used."""

    name: str


class _Inert:
    """Takes any arguments and any state, and is left out of the result."""

    def __init__(self, *arguments: Any):
        del arguments

    def __setstate__(self, state: Any) -> None:
        del state


def stand_ins(path: Path) -> dict[str, Any]:
    """The stand-ins of everything that a torch checkpoint of tensors names."""

    def rebuild(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredArray:
        return tensor(storage, offset, size, stride, path)

    def parameter(data: Any, *_: Any) -> Any:
        return data

    return {
        **unpickling.CONTAINERS,
        **numpy_objects.stand_ins(path),
        **{f"torch.{name}Storage": _StorageType(dtype) for name, dtype in DTYPES.items()},
        **{f"torch.{name}": _Attribute(name) for name in _ATTRIBUTES},
        "torch._utils._rebuild_tensor": rebuild,
        "torch._utils._rebuild_tensor_v2": rebuild,
        "torch._utils._rebuild_parameter": parameter,
        "torch.Size": tuple,
        "torch.device": _Inert,
    }


_ATTRIBUTES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "strided",
)


def reference(pid: Any, path: Path) -> tuple[np.dtype, str, int]:
    """The dtype, key and number of values that a persistent id ``("storage", type, key, location, size)`` names."""
    if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or type(pid[4]) is not int:
        raise WeightsFileError(path, "is damaged: it refers to data in a way that torch does not")
    if not isinstance(pid[1], _StorageType):
        raise WeightsFileError(path, "is damaged: a storage is of no known type")
    return pid[1].dtype, str(pid[2]), pid[4]


def tensor(storage: Any, offset: Any, size: Any, stride: Any, path: Path) -> StoredArray:
    """A view into a storage, proven to lie inside of it."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Storage) or len(size) != len(stride) or not all(type(n) is int for n in numbers):
        raise WeightsFileError(path, "is damaged: a tensor is not described as torch describes one")
    shape = tuple(size)
    last = offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
    empty = 0 in shape
    if min(numbers, default=0) < 0 or (not empty and last >= storage.size):
        raise WeightsFileError(path, f"is damaged: a tensor of shape {shape} reaches beyond its data")

    def load() -> np.ndarray:
        if empty:
            return np.empty(shape, storage.dtype)
        strides = [step * storage.dtype.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage.load()[offset:], shape, strides, writeable=False)

    return StoredArray(shape, storage.dtype, load)
