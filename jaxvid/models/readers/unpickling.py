"""Pickles read without executing anything that they name.

A pickle is a program: it may name any function of any module and have it called. Here every name is looked up in a
table of stand-ins that only build arrays and plain containers; another name ends the reading. The interpreter is the
slow one, written in Python, since the fast one makes room for whatever number of memos a file claims to have.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from jaxvid.models.readers.stored import WeightsFileError

ENCODING = "latin1"  # of the strings of Python 2


class _WholeLines:
    """A file whose last line does not pass for a whole one where the file is cut off."""

    def __init__(self, file: IO[bytes]):
        self._file, self.read = file, file.read

    def readline(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it ends in the middle of a line")
        return line


class Unpickler(pickle._Unpickler):  # type: ignore[name-defined]  # the one in Python
    """Reads one pickle after the other from a file.

    Args:
      file: open for reading in binary.
      path: of the file, for messages.
      stand_ins: ``"module.name"`` -> what takes its place.
      persistent: what a persistent id (torch's reference to a storage) becomes; ``None``: there may be none.
    """

    def __init__(
        self,
        file: IO[bytes],
        path: Path,
        stand_ins: Mapping[str, Any],
        persistent: Callable[[Any], Any] | None = None,
    ):
        super().__init__(_WholeLines(file), fix_imports=False, encoding=ENCODING)
        self._path, self._stand_ins, self._persistent = path, stand_ins, persistent

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name, or the end of the reading."""
        full = f"{module}.{name}"
        if full not in self._stand_ins:
            raise WeightsFileError(
                self._path,
                f"names {full!r}, which is neither an array nor a plain container: it was refused, and nothing was "
                "executed",
            )
        return self._stand_ins[full]

    def persistent_load(self, pid: Any) -> Any:
        """What a persistent id stands for."""
        if self._persistent is None:
            raise WeightsFileError(self._path, "refers to data outside of itself")
        return self._persistent(pid)


CONTAINERS: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "builtins.complex": complex,
}
"""Plain containers and numbers, which cannot do any harm."""
