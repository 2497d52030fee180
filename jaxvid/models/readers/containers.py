"""Formats that hold arrays and nothing else, read by the libraries that keep them: safetensors and Flax msgpack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.serialization
import ml_dtypes
import numpy as np
import safetensors

from jaxvid.models.readers.stored import StoredArray, WeightsFileError, in_memory

_DTYPES = {"BF16": ml_dtypes.bfloat16, "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64,
           "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, StoredArray]:
    """The arrays of a safetensors file; each is read when it is used."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {key: _slice(path, key, file.get_slice(key)) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise WeightsFileError(path, f"is no whole safetensors file ({error})") from error


def _slice(path: Path, key: str, part: Any) -> StoredArray:
    if part.get_dtype() not in _DTYPES:
        raise WeightsFileError(path, f"holds {key} in {part.get_dtype()}, and must hold {', '.join(_DTYPES)}")

    def load() -> np.ndarray:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.get_tensor(key)

    return StoredArray(tuple(part.get_shape()), np.dtype(_DTYPES[part.get_dtype()]), load)


def read_msgpack(path: Path) -> Any:
    """The tree of a Flax msgpack file."""
    return _stored(flax.serialization.msgpack_restore(path.read_bytes()))


def _stored(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _stored(child) for key, child in node.items()}
    return in_memory(node) if isinstance(node, np.ndarray) else node
