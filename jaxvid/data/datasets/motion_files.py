"""A clip of `motion` or `motion_fine`: from its number to an H.264 file and the region of the action in every frame."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np

from jaxvid.data.datasets.motion_classes import MOTION
from jaxvid.data.datasets.motion_courses import ClassTable
from jaxvid.data.datasets.motion_fine_classes import MOTION_FINE
from jaxvid.data.datasets.motion_scene import draw_appearance, render

CLASS_TABLES: Mapping[str, ClassTable] = MappingProxyType({table.name: table for table in (MOTION, MOTION_FINE)})
"""Name of a data set -> its classes; the sets differ in nothing else."""

FPS = 12
"""Frames per second of the files."""

# The same bytes from the same pictures, always: one thread, and no macroblock tree, which together with B-frames
# depends on what was in memory before (measured: up to 12 different files from 12 encodings of one clip).
_X264 = {"crf": "18", "preset": "veryfast", "g": "12", "bf": "2", "threads": "1", "mbtree": "0"}


@dataclass(frozen=True)
class ClipJob:
    """One clip to make; everything about it follows from these.

    Attributes:
      path: of the file.
      split: ``"train"`` or ``"val"``.
      label: the class.
      number: of the clip in its split and class.
      seed: of the whole data set.
      dataset: a name of :data:`CLASS_TABLES`.
    """

    path: str
    split: str
    label: int
    number: int
    seed: int
    dataset: str = "motion"


def file_name(class_name: str, number: int) -> str:
    """Path of a clip, relative to its split.

    >>> file_name("approach", 7)
    'approach/0007.mp4'
    """
    return f"{class_name}/{number:04d}.mp4"


def make_clip(job: ClipJob) -> tuple[np.ndarray, np.ndarray]:
    """Draws a clip and writes its file.

    Returns:
      Boxes, float32[T 4], and masks, uint8[T 72*80/8], of the object: see
      :class:`jaxvid.data.datasets.motion_regions.Regions`.
    """
    frames, mask = draw_clip(job)
    path = Path(job.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(frames))
    return boxes(mask), np.packbits(mask.reshape(len(mask), -1), axis=1)


def draw_clip(job: ClipJob) -> tuple[np.ndarray, np.ndarray]:
    """Frames, uint8[T 72 80 3], and the object in them, bool[T 72 80]."""
    table = CLASS_TABLES[job.dataset]
    # Splits and data sets have streams of their own: no random number serves two clips.
    stream = job.seed, zlib.crc32(job.split.encode()), table.first_stream + job.label, job.number
    rng = np.random.default_rng(stream)
    appearance = draw_appearance(job.split, rng)
    return render(appearance, table.courses(job.label, rng))


def encode(frames: np.ndarray) -> bytes:
    """An MP4 file with H.264, a key frame every second.

    Args:
      frames: uint8[T H W 3]; H and W even.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options=_X264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def boxes(mask: np.ndarray) -> np.ndarray:
    """The tightest boxes around what is marked.

    Args:
      mask: bool[T H W].

    Returns:
      float32[T 4]: left, top, right, bottom in pixels, right and bottom exclusive; zeros where nothing is marked.

    >>> mask = np.zeros((1, 4, 6), bool); mask[0, 1:3, 2:5] = True
    >>> boxes(mask).tolist()
    [[2.0, 1.0, 5.0, 3.0]]
    """
    found = np.zeros((len(mask), 4), np.float32)
    for box, marked in zip(found, mask, strict=True):
        columns, rows = np.flatnonzero(marked.any(0)), np.flatnonzero(marked.any(1))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return found
