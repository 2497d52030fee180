"""The orientation that a video file asks for: phones store what the sensor saw and note how it was held."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np


@dataclass(frozen=True)
class Turn:
    """How stored pictures are turned for display: transposed first, then flipped."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Turn:
        """Reads the display matrix (ISO/IEC 14496-12, 6.2.2) as the nearest of the eight right-angled turns."""
        matrix = frame.side_data.get("DISPLAYMATRIX") if "DISPLAYMATRIX" in frame.side_data else None
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # a point goes to (a x + c y, b x + d y)
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, d < 0, a < 0)
        return cls(True, b < 0, c < 0)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """A view of ``[H W 3]`` (or ``[W H 3]`` of the result, when it transposes)."""
        picture = picture.swapaxes(0, 1) if self.transpose else picture
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
