"""The orientation that a video or image asks for: phones store what the sensor saw and note how it was held."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np

_ORIENTATION, _SHORT = 0x0112, 3  # the tag and the type of its value (EXIF 2.32, 4.6.5)


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

    @classmethod
    def of_exif(cls, exif: bytes) -> Turn:
        """Reads the tag Orientation of an image's EXIF block; one that does not say it, or is damaged, asks for none.

        Args:
          exif: a TIFF structure, beginning with its byte order.
        """
        order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
        if order is None:
            return cls()

        def integer(at: int, size: int) -> int:
            return int.from_bytes(exif[at : at + size], order)  # pyright: ignore[reportArgumentType]

        first = integer(4, 4)
        for at in range(first + 2, min(first + 2 + 12 * integer(first, 2), len(exif) - 11), 12):
            if integer(at, 2) == _ORIENTATION and integer(at + 2, 2) == _SHORT:
                return _OF_EXIF.get(integer(at + 8, 2), cls())
        return cls()

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """A view of ``[H W 3]`` (or ``[W H 3]`` of the result, when it transposes)."""
        picture = picture.swapaxes(0, 1) if self.transpose else picture
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


_OF_EXIF = {
    2: Turn(flip_columns=True),
    3: Turn(flip_rows=True, flip_columns=True),
    4: Turn(flip_rows=True),
    5: Turn(transpose=True),
    6: Turn(transpose=True, flip_columns=True),
    7: Turn(transpose=True, flip_rows=True, flip_columns=True),
    8: Turn(transpose=True, flip_rows=True),
}
