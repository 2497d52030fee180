"""A contact sheet: clips as the network sees them, one row each, drawn into one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvid.data.clips import EvalClips, TrainClips, epoch_order, load_clip, load_views
from jaxvid.data.records import BadVideoError, VideoDataset, VideoRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FRAME_PIXELS = 112  # a frame is enlarged by a whole number to about this side
_GAP, _LABEL_WIDTH, _HEADER, _DPI = 4, 230, 34, 100
_TEXT_SIZE, _SMALL_TEXT_SIZE = 9, 7  # points


def contact_sheet(
    dataset: VideoDataset,
    clips: TrainClips | EvalClips,
    path: str | Path,
    *,
    seed: int = 0,
    rows: int = 12,
    columns: int = 8,
) -> Path:
    """Draws clips of a data set, cut out and augmented by the same code and with the same choices as in a run.

    Each row is one video: its class, its name, and frames of the clip in the order of time. The videos are those with
    which the first epoch of a run with this seed begins.

    Args:
      dataset: the split.
      clips: how clips are cut out; of an evaluation's views the first is drawn.
      path: of the PNG.
      seed: of the choice of videos and of all that is random in a clip.
      rows: videos, at least 1; fewer if the split is smaller.
      columns: frames of each, at least 1, spread over the clip; fewer if the clip is shorter.

    Returns:
      The path.

    Raises:
      ValueError: ``rows`` or ``columns`` is not positive, or the data set is empty.
    """
    for name, value in (("rows", rows), ("columns", columns), ("len(dataset)", len(dataset))):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, received {name}={value}.")
    chosen = epoch_order(seed, 0, len(dataset))[:rows]
    shown = np.unique(np.linspace(0, clips.num_frames - 1, min(columns, clips.num_frames)).round().astype(int))
    strips = [_Strip.of(dataset[int(index)], dataset.class_names, clips, shown, seed) for index in chosen]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _draw(strips, shown, clips.crop_size, f"{dataset.name}, split {dataset.split}").savefig(path, dpi=_DPI)
    return path


class _Strip:
    """A row: frames ``uint8[n H W 3]``, the label's name, the video's name, and what went wrong."""

    def __init__(self, frames: np.ndarray, label: str, name: str, error: str = ""):
        self.frames, self.label, self.name, self.error = frames, label, name, error

    @classmethod
    def of(
        cls,
        record: VideoRecord,
        class_names: tuple[str, ...],
        clips: TrainClips | EvalClips,
        shown: np.ndarray,
        seed: int,
    ) -> _Strip:
        try:
            if isinstance(clips, TrainClips):
                video, label = load_clip(record, clips, seed=seed, epoch=0)
            else:
                video, label = load_views(record, clips, seed=seed)[0], record.label
        except BadVideoError as error:
            black = np.zeros((len(shown), clips.crop_size, clips.crop_size, 3), np.uint8)
            return cls(black, class_names[record.label], record.name, str(error))
        return cls(video[shown], class_names[label], record.name)


def _draw(strips: list[_Strip], shown: np.ndarray, side: int, title: str) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no windows, no global state

    zoom = max(1, round(_FRAME_PIXELS / side))
    step = side * zoom + _GAP
    height, width = _HEADER + step * len(strips), _LABEL_WIDTH + step * len(shown)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    write = _Writer(figure, width, height)
    write(8, 8, title, size=_TEXT_SIZE, weight="bold")
    for column, frame in enumerate(shown):
        write(_LABEL_WIDTH + column * step, 14, f"frame {frame}", size=_SMALL_TEXT_SIZE, color="0.4")
    sheet = np.full((height, width - _LABEL_WIDTH, 3), 255, np.uint8)
    for row, strip in enumerate(strips):
        top = _HEADER + row * step
        for column, frame in enumerate(strip.frames):
            left = column * step
            big = frame.repeat(zoom, axis=0).repeat(zoom, axis=1)
            sheet[top : top + side * zoom, left : left + side * zoom] = big
        write(8, top + 4, _shortened(strip.label, 34), size=_TEXT_SIZE)
        write(8, top + 22, _shortened(strip.name, 44), size=_SMALL_TEXT_SIZE, color="0.4")
        if strip.error:
            write(_LABEL_WIDTH + 6, top + 8, strip.error, size=_SMALL_TEXT_SIZE, color="white", zorder=3)
    figure.figimage(sheet, xo=_LABEL_WIDTH, yo=0, origin="upper", zorder=1)
    return figure


class _Writer:
    """Writes text at pixels that count from the picture's left upper corner."""

    def __init__(self, figure: Figure, width: int, height: int):
        self._figure, self._width, self._height = figure, width, height

    def __call__(self, left: float, top: float, text: str, **style: Any) -> None:
        text = text.encode(errors="replace").decode()  # names of files may hold anything
        self._figure.text(left / self._width, 1 - top / self._height, text, va="top", parse_math=False, **style)


def _shortened(text: str, length: int) -> str:
    """The end of a long text, which tells more than its beginning.

    >>> _shortened("train/a/b.mp4", 7)
    '…/b.mp4'
    """
    text = " ".join(text.split())
    return text if len(text) <= length else "…" + text[len(text) - length + 1 :]
