"""Members of a zip file: mapped from the file where they are not compressed, and compared with their checksums."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxvid.models.readers.stored import WeightsFileError

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_CHUNK = 1 << 24


def read_member(path: Path, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of one member, ``uint8[info.file_size]``.

    Raises:
      WeightsFileError: its bytes are not those that were written, or it is encrypted.
    """
    if info.flag_bits & 1:
        raise WeightsFileError(path, "is encrypted")
    if info.file_size == 0:
        return np.empty(0, np.uint8)
    if info.compress_type != zipfile.ZIP_STORED:
        return _decompress(path, info)
    data = np.memmap(path, np.uint8, "r", _data_offset(path, info), (info.file_size,))
    checksum = 0
    for start in range(0, info.file_size, _CHUNK):
        checksum = zlib.crc32(data[start : start + _CHUNK].tobytes(), checksum)
    if checksum != info.CRC:
        raise _damaged(path, info)
    return data


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        size = file.seek(0, 2)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise _damaged(path, info)
    *_, name, extra = _LOCAL_HEADER.unpack(header)
    offset = info.header_offset + _LOCAL_HEADER.size + name + extra
    if offset + info.file_size > size:
        raise _damaged(path, info)
    return offset


def _decompress(path: Path, info: zipfile.ZipInfo) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(info) as member:
            data = member.read(info.file_size + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise _damaged(path, info) from error
    if len(data) != info.file_size:
        raise _damaged(path, info)
    return np.frombuffer(data, np.uint8)


def _damaged(path: Path, info: zipfile.ZipInfo) -> WeightsFileError:
    return WeightsFileError(path, f"is damaged: {info.filename} is not as it was written")
