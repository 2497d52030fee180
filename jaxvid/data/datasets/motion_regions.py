"""Where the action of a clip of `motion` or `motion_fine` is: stored beside the clips, for scoring explanations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxvid.data.datasets.motion_scene import HEIGHT, WIDTH

FILE_NAME = "regions.npz"
"""One in the folder of each split."""


@dataclass(frozen=True)
class Regions:
    """The object of every clip of one split; the action is the object's.

    Attributes:
      names: path of each clip, relative to the split's folder.
      boxes: float32[n T 4]: left, top, right, bottom in pixels of the file's frames (72 x 80), right and bottom
        exclusive.
      packed_masks: uint8[n T 720], the exact region, eight pixels a byte; :meth:`mask` unpacks it.
    """

    names: tuple[str, ...]
    boxes: np.ndarray
    packed_masks: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def visible(self) -> np.ndarray:
        """Whether any of the object is in the frame: bool[n T]."""
        return self.boxes[..., 2] > self.boxes[..., 0]

    def index(self, name: str) -> int:
        """Row of a clip by its name, with or without the split's before it.

        Raises:
          KeyError: there is no such clip.
        """
        short = "/".join(Path(name).parts[-2:])
        try:
            return self.names.index(short)
        except ValueError:
            raise KeyError(f"no regions of {name!r}; the names are such as {self.names[0]!r}.") from None

    def mask(self, index: int) -> np.ndarray:
        """The region of one clip in every frame: bool[T 72 80]."""
        bits = np.unpackbits(self.packed_masks[index], axis=-1, count=HEIGHT * WIDTH)
        return bits.reshape(-1, HEIGHT, WIDTH).astype(bool)


def write_regions(folder: Path, regions: Regions) -> None:
    """Writes the regions of a split into its folder."""
    np.savez_compressed(
        folder / FILE_NAME, names=np.asarray(regions.names), boxes=regions.boxes, masks=regions.packed_masks
    )


def read_regions(root: str | Path, split: str) -> Regions:
    """Reads the regions of a split.

    Args:
      root: what :func:`jaxvid.data.datasets.motion.make_motion` returned.
      split: ``"train"`` or ``"val"``.
    """
    with np.load(Path(root).expanduser() / split / FILE_NAME) as arrays:
        return Regions(tuple(arrays["names"].tolist()), arrays["boxes"], arrays["masks"])
