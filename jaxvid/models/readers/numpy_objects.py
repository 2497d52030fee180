"""What stands for NumPy's classes while a pickle is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxvid.models.readers.stored import StoredArray, WeightsFileError

_KINDS = "fiub"  # floats, integers, booleans


class _Dtype:
    """``numpy.dtype(name, ...)``, then its state ``(version, byteorder, ...)``."""

    def __init__(self, name: Any, *_: Any):
        self._name, self._swapped = str(name), False

    def __setstate__(self, state: Any) -> None:
        self._swapped = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"

    def resolve(self, path: Path) -> np.dtype:
        try:
            dtype = np.dtype(self._name)
        except TypeError:
            dtype = None
        if dtype is None or dtype.kind not in _KINDS:
            raise WeightsFileError(path, f"holds an array of {self._name!r}, and must hold numbers")
        return dtype.newbyteorder(">") if self._swapped else dtype


class _Array(StoredArray):
    """``_reconstruct(ndarray, (0,), b"b")``, then its state ``(version, shape, dtype, is_fortran, data)``."""

    def __init__(self, path: Path):
        super().__init__((0,), np.dtype("float32"), lambda: np.empty(0, np.float32))
        self._path = path

    def __setstate__(self, state: Any) -> None:
        path = self._path
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise WeightsFileError(path, "is damaged: an array is not described as NumPy describes one")
        _, shape, described, fortran, data = state
        dtype = described.resolve(path)
        if isinstance(data, str):  # of Python 2
            data = data.encode("latin1")
        fits = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and isinstance(data, bytes)
        if not fits or math.prod(shape) * dtype.itemsize != len(data):
            raise WeightsFileError(path, f"is damaged: an array of shape {shape} has not as many values")
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        self.shape, self.dtype, self.load = shape, dtype, lambda: array


def stand_ins(path: Path) -> dict[str, Any]:
    """The stand-ins of everything that a pickle of arrays names."""

    def reconstruct(*_: Any) -> _Array:
        return _Array(path)

    def scalar(dtype: Any, data: Any = b"", *_: Any) -> Any:
        if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, str)):
            raise WeightsFileError(path, "is damaged: a number is not described as NumPy describes one")
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, dtype.resolve(path))[0].item()

    def encode(text: str, encoding: str = "latin1") -> bytes:  # how protocol 2 writes bytes
        del encoding
        return text.encode("latin1")

    def from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> StoredArray:  # protocol 5
        array = _Array(path)
        array.__setstate__((1, shape, dtype, order == "F", bytes(data)))
        return array

    found: dict[str, Any] = {"numpy.ndarray": "ndarray", "numpy.dtype": _Dtype, "_codecs.encode": encode}
    for core in ("numpy.core", "numpy._core"):
        found |= {
            f"{core}.multiarray._reconstruct": reconstruct,
            f"{core}.multiarray.scalar": scalar,
            f"{core}.numeric._frombuffer": from_buffer,
        }
    return found
