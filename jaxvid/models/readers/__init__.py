"""Weights out of files that other programs wrote: nothing in them is executed, and arrays stay on disk until used.

:func:`read_arrays` tells the formats apart by what is in a file, not by its name::

    arrays = read_arrays("SRTG_r3d_34.pth")     # {"stem.0.weight": StoredArray(...), ...}
    kernel = np.asarray(arrays["stem.0.weight"])
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from jaxvid.models.readers import containers, legacy, numpy_files, torch_zip
from jaxvid.models.readers.stored import StoredArray, WeightsFileError
from jaxvid.models.readers.tree import flatten

__all__ = ["FORMATS", "StoredArray", "WeightsFileError", "read_arrays"]

FORMATS = (
    "torch zip (.pth, .pt, .pyth, .tar)",
    "torch before 1.6",
    "safetensors",
    "npz",
    "Flax msgpack",
    "pickle of NumPy arrays",
)


def read_arrays(path: str | Path) -> dict[str, StoredArray]:
    """The arrays of one file, by their names; those of nested containers are joined by dots.

    Of a training checkpoint only the network's weights are returned: what stands under ``state_dict``, ``model_state``,
    ``model_state_dict`` or ``model``, if one of them is there. What is no array is left out.

    Args:
      path: a file of one of :data:`FORMATS`.

    Returns:
      Name -> array, whose shape and dtype are known and whose values are read when NumPy asks for them.

    Raises:
      FileNotFoundError: there is no such file.
      WeightsFileError: the file is truncated, damaged, of no known format, or holds what is not an array or a plain
        container; the message is one sentence that names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsFileError(path, "is a folder, and must be a file")
    with path.open("rb") as file:
        start = file.read(16)
    reader = _reader_of(start, path)
    try:
        arrays = flatten(reader(path), path)
    except WeightsFileError:
        raise
    except MemoryError as error:
        raise WeightsFileError(path, "needs more memory than there is") from error
    except Exception as error:  # a hostile or damaged file may break a reader anywhere
        raise WeightsFileError(path, f"is damaged ({type(error).__name__}: {str(error)[:100]})") from error
    if not arrays:
        raise WeightsFileError(path, "holds no array")
    return arrays


def _reader_of(start: bytes, path: Path) -> Callable[[Path], object]:
    if not start:
        raise WeightsFileError(path, "is empty")
    if start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise WeightsFileError(path, "is a truncated zip file: its table of contents, at the end, is missing")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
            return torch_zip.read
        if any(name.endswith(".npy") for name in names):
            return numpy_files.read_npz
        raise WeightsFileError(path, f"is a zip file, but none of torch or NumPy (it holds {', '.join(names[:3])})")
    if len(start) > 8 and start[8:9] == b"{":
        return containers.read_safetensors
    if start[0] == 0x80 and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return legacy.read if legacy.is_torch(path) else numpy_files.read_pickle
    if 0x80 < start[0] <= 0x8F or start[0] in (0xDE, 0xDF):
        return containers.read_msgpack
    if start.startswith(b"\x93NUMPY"):
        raise WeightsFileError(path, "is a single array without a name (.npy), and must hold named arrays (.npz)")
    raise WeightsFileError(path, f"is of no known format; known are {', '.join(FORMATS)}")
