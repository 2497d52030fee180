"""Checkpoints of torch before 1.6: five pickles in a row, then the storages one after the other."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from jaxvid.models.readers import torch_objects
from jaxvid.models.readers.stored import WeightsFileError
from jaxvid.models.readers.torch_objects import Storage
from jaxvid.models.readers.unpickling import CONTAINERS, Unpickler

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def is_torch(path: Path) -> bool:
    """Whether a pickle begins as torch's do."""
    with path.open("rb") as file:
        return MAGIC_NUMBER.to_bytes(10, "little") in file.read(32)


def read(path: Path) -> Any:
    """The object of the fourth pickle, its tensors :class:`jaxvid.models.readers.StoredArray`."""
    places: dict[str, int] = {}  # filled when the pickles have been read
    announced: dict[str, tuple[np.dtype, int]] = {}

    def storage(pid: Any) -> Storage:
        if isinstance(pid, tuple) and len(pid) == 6:
            if pid[5] is not None:
                raise WeightsFileError(path, "holds views of storages (torch before 0.4), which are not read")
            pid = pid[:5]
        dtype, key, size = torch_objects.reference(pid, path)
        announced[key] = (dtype, size)

        def load() -> np.ndarray:
            offset = places[key]
            return np.memmap(path, dtype, "r", offset, (size,)) if size else np.empty(0, dtype)

        return Storage(dtype, size, load)

    with path.open("rb") as file:
        plain = [Unpickler(file, path, CONTAINERS).load() for _ in range(3)]
        if plain[:2] != [MAGIC_NUMBER, PROTOCOL] or not isinstance(plain[2], dict):
            raise WeightsFileError(path, "is damaged: it does not begin as torch's files do")
        if plain[2].get("little_endian") is False:
            raise WeightsFileError(path, "was written on a big-endian machine, which is not read")
        tree = Unpickler(file, path, torch_objects.stand_ins(path), storage).load()
        keys = Unpickler(file, path, CONTAINERS).load()
        end = path.stat().st_size
        for key in map(str, keys):
            dtype, size = announced[key]
            count = file.read(8)
            start = file.tell()
            if len(count) < 8 or struct.unpack("<q", count)[0] != size or start + size * dtype.itemsize > end:
                raise WeightsFileError(path, "is truncated or damaged: its data are not as long as its tensors need")
            places[key] = start
            file.seek(start + size * dtype.itemsize)
    if missing := set(announced) - set(places):
        raise WeightsFileError(path, f"is truncated: the data of {len(missing)} storages are missing")
    return tree
