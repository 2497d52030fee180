"""An array that is still in its file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class WeightsFileError(ValueError):
    """A file of weights that cannot be used: one sentence that begins with its path."""

    def __init__(self, path: str | Path, why: str):
        super().__init__(f"{path} {why}.")


@dataclass
class StoredArray:
    """An array whose shape and dtype are known before its values are read.

    ``np.asarray(stored)`` reads it; two calls read twice, and nothing is kept.

    Attributes:
      shape: sizes of the axes.
      dtype: of the values in the file.
      load: reads them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values, in memory or mapped from the file."""
        array = self.load()
        return array if dtype is None or dtype == array.dtype else array.astype(dtype)


def in_memory(array: np.ndarray) -> StoredArray:
    """An array that is read already."""
    return StoredArray(array.shape, array.dtype, lambda: array)
