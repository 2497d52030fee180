"""NumPy's own files: ``.npz``, and pickles of nested containers of arrays."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxvid.models.readers import numpy_objects
from jaxvid.models.readers.stored import StoredArray, WeightsFileError
from jaxvid.models.readers.unpickling import CONTAINERS, Unpickler
from jaxvid.models.readers.zip_members import read_member


def read_npz(path: Path) -> dict[str, StoredArray]:
    """The arrays of an ``.npz`` file, mapped where they are not compressed."""
    with zipfile.ZipFile(path) as archive:
        return {
            info.filename.removesuffix(".npy"): _member(path, archive, info)
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StoredArray:
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise WeightsFileError(path, f"holds {info.filename} in an unknown version of NumPy's format")
        shape, fortran, dtype = read_header[version](member)
        start = member.tell()
    if dtype.hasobject or dtype.names:
        raise WeightsFileError(path, f"holds {info.filename}, an array of {dtype}, and must hold numbers")
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise WeightsFileError(path, f"is damaged: {info.filename} has not as many values as its shape {shape} needs")

    def load() -> np.ndarray:
        data = read_member(path, info)[start:].view(dtype)
        return data.reshape(shape, order="F" if fortran else "C")

    return StoredArray(shape, dtype, load)


def read_pickle(path: Path) -> Any:
    """The object of a pickle of arrays and plain containers."""
    with path.open("rb") as file:
        return Unpickler(file, path, {**CONTAINERS, **numpy_objects.stand_ins(path)}).load()
