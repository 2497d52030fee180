"""Checkpoints of torch since 1.6: a zip file with a pickle and one member per storage."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxvid.models.readers import torch_objects
from jaxvid.models.readers.stored import WeightsFileError
from jaxvid.models.readers.torch_objects import Storage
from jaxvid.models.readers.unpickling import Unpickler
from jaxvid.models.readers.zip_members import read_member

MAX_PICKLE_BYTES = 1 << 28
"""The pickle holds names and shapes only; one of more bytes than these is not that of a network."""


def read(path: Path) -> Any:
    """The object of the pickle, its tensors :class:`jaxvid.models.readers.StoredArray`."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
    pickled = next(name for name in members if name == "data.pkl" or name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    if f"{folder}constants.pkl" in members:
        raise WeightsFileError(path, "is a TorchScript program, and must be a file of weights (a state dict)")
    if members[pickled].file_size > MAX_PICKLE_BYTES:
        raise WeightsFileError(
            path, f"has a table of contents of {members[pickled].file_size} bytes, more than {MAX_PICKLE_BYTES}"
        )
    big_endian = False
    if f"{folder}byteorder" in members:
        big_endian = read_member(path, members[f"{folder}byteorder"]).tobytes() == b"big"

    def storage(pid: Any) -> Storage:
        dtype, key, size = torch_objects.reference(pid, path)
        name = f"{folder}data/{key}"
        if name not in members or members[name].file_size != size * dtype.itemsize:
            raise WeightsFileError(path, f"is damaged: {name} is missing or not as long as its tensors need")

        def load() -> np.ndarray:
            data = read_member(path, members[name])
            return data.view(dtype.newbyteorder(">") if big_endian else dtype)

        return Storage(dtype, size, load)

    program = io.BytesIO(read_member(path, members[pickled]).tobytes())
    return Unpickler(program, path, torch_objects.stand_ins(path), storage).load()
