"""A copy of a video with what the network says drawn on its frames."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxvid.data.decode import VideoReader
from jaxvid.data.records import BadVideoError
from jaxvid.inference.mp4 import write_mp4
from jaxvid.inference.output import growing
from jaxvid.inference.recognition import Guess, Recognition

MIN_SIDE, MAX_SIDE = 240, 720
"""The shorter side of a copy is the video's own, but at least so many pixels (for text) and at most so many."""

_BYTES_AT_ONCE = 2**26  # of decoded frames
_DPI = 100
_GREY, _SEEN, _NOW = (90, 90, 90), (255, 190, 60), (255, 255, 255)  # the line of time


def annotate(found: Recognition, path: str | Path, *, top: int = 3) -> Path:
    """Writes an MP4 file (H.264, no sound) of a video, with its most probable classes and a line of time.

    The line's bright part is the stretch that the network has seen, its white mark is now. The frames keep their times.

    Args:
      found: a video that could be decoded.
      path: of the copy; it appears when it is complete.
      top: how many classes.

    Raises:
      ValueError: the video could not be decoded.
      BadVideoError: a part of it that the network has not seen cannot be decoded.
    """
    if found.error:
        raise ValueError(f"only a video that could be decoded can be annotated, received {found.path}.")
    path = Path(path)
    try:
        with VideoReader(found.path) as reader, growing(path) as file:
            short_side = min(max(min(reader.height, reader.width), MIN_SIDE), MAX_SIDE)
            frames = _drawn(_frames(reader, short_side), reader.times, found, found.top(top))
            write_mp4(file, frames, reader.times)
    except BadVideoError:
        path.with_name(f"{path.name}.part").unlink(missing_ok=True)  # half a video tells nothing
        raise
    return path


class Copies:
    """Annotated copies of many videos in one folder, ``STEM.annotated.mp4``, of which none takes another's place.

    Args:
      folder: an existing one.
      videos: paths of all videos; none of them is written over, also where they lie in the same folder.
      top: how many classes.
    """

    def __init__(self, folder: Path, videos: Iterable[str], *, top: int = 3):
        self._folder, self._top = folder, top
        self._taken = {os.path.realpath(video) for video in videos}

    def write(self, found: Recognition) -> str:
        """Writes the copy of one video.

        Returns:
          Empty, or one sentence that says why there is none.
        """
        try:
            annotate(found, self._place(Path(found.path).stem), top=self._top)
        except BadVideoError as error:
            return f"There is no annotated copy: {error}"
        return ""

    def _place(self, stem: str) -> Path:
        names = (f"{stem}.annotated{f'-{number}' * (number > 1)}.mp4" for number in itertools.count(1))
        place = next(self._folder / name for name in names if os.path.realpath(self._folder / name) not in self._taken)
        self._taken.add(os.path.realpath(place))
        return place


def _frames(reader: VideoReader, short_side: int) -> Iterator[np.ndarray]:
    """All frames, ``uint8[H W 3]`` with even sides."""
    step = max(1, _BYTES_AT_ONCE // reader.nbytes(1, short_side=short_side))
    for start in range(0, reader.num_frames, step):
        indices = range(start, min(start + step, reader.num_frames))
        for frame in reader.read(indices, short_side=short_side):
            height, width = frame.shape[:2]
            yield frame[: height // 2 * 2, : width // 2 * 2]


def _drawn(
    frames: Iterable[np.ndarray], times: np.ndarray, found: Recognition, guesses: tuple[Guess, ...]
) -> Iterator[np.ndarray]:
    ink: np.ndarray | None = None
    for frame, time in zip(frames, times, strict=True):
        height, width = frame.shape[:2]
        if ink is None:
            ink = _caption(guesses, height, width)
        drawn = frame.astype(np.float32)
        strip = drawn[: len(ink)]
        strip += (ink[..., :3] - strip) * ink[..., 3:]
        _draw_time(drawn, float(time), found)
        yield drawn.astype(np.uint8)


def _caption(guesses: tuple[Guess, ...], height: int, width: int) -> np.ndarray:
    """A line for each class on a dark ground: float32[h W 4], colours in [0, 255] and opacity in [0, 1]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # without pyplot: no windows, no global state
    from matplotlib.figure import Figure

    line = max(14, height // 16)
    rows = line * len(guesses) + line // 2
    figure = Figure(figsize=(width / _DPI, rows / _DPI), dpi=_DPI, facecolor=(0, 0, 0, 0.55))
    canvas = FigureCanvasAgg(figure)
    for rank, guess in enumerate(guesses):
        top = 1 - (line // 4 + rank * line) / rows
        text = f"{guess.probability:4.0%}  {_fitting(guess.name, width, line)}"
        style = {"size": 0.52 * line * 72 / _DPI * 1.2, "weight": "bold" if rank == 0 else "normal"}
        figure.text(line / 3 / width, top, text, va="top", color="white", parse_math=False, **style)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks is drawn as a box
        canvas.draw()
    ink = np.asarray(canvas.buffer_rgba()).astype(np.float32)
    ink[..., 3] /= 255
    return ink


def _fitting(name: str, width: int, line: int) -> str:
    """The beginning of a name, on one line, as long as fits."""
    name = " ".join(name.encode(errors="replace").decode().split())
    length = max(8, int(width / (0.42 * line)) - 8)
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _draw_time(frame: np.ndarray, now: float, found: Recognition) -> None:
    height, width = frame.shape[:2]
    thick = max(3, height // 80)
    ends = [round(width * time / found.duration) if found.duration else 0 for time in (*found.seen, now)]
    first, last, here = (min(end, width - 1) for end in ends)
    frame[-thick:] = _GREY
    frame[-thick:, first : last + 1] = _SEEN
    frame[-2 * thick :, max(0, here - thick // 2) : here + thick // 2 + 1] = _NOW
