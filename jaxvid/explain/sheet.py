"""Heat maps over the frames of a clip, drawn as one sheet and as the frames of a film."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MAX_COLUMNS = 8
"""Of a sheet: so many frames of a clip are drawn, spread over it."""

_TILE = 112  # pixels: a frame is enlarged by a whole number to about this side, or thinned out to it
_GAP, _NAMES, _LINE, _MARGIN = 4, 230, 19, 8  # pixels: between tiles; the column of names; a line of text; around all
_ACROSS = 4  # tiles side by side in a film
_MIN_WIDTH = 640  # pixels, for the text above
_DPI = 100
_SIZE, _SMALL = 9.0, 7.0  # points
_CHARACTER = 0.58  # of the font's height, its mean width
_OPACITY = 0.55  # of the heat over a grey frame
_NOISE = 1e-5  # of a map's values: what rounding makes of a constant


@dataclass(frozen=True, eq=False)
class Heated:
    """A clip and heat maps over it.

    Attributes:
      video: ``uint8[T H W 3]``, as the network saw it.
      maps: ``float[T H W C]``, any numbers; each map has a colour scale of its own, from its least to its largest.
      names: of the ``C`` maps.
      heading: lines above the picture, the first one bold.
      values: what the numbers of the maps are; a line below the heading.

    Raises:
      ValueError: the shapes do not fit together.
    """

    video: np.ndarray
    maps: np.ndarray
    names: tuple[str, ...]
    heading: tuple[str, ...] = ()
    values: str = "masks before the sigmoid"

    def __post_init__(self):
        if self.video.ndim != 4 or self.video.shape[-1] != 3 or self.video.dtype != np.uint8:
            raise ValueError(f"video must be uint8[T H W 3], received {self.video.dtype}{list(self.video.shape)}.")
        if self.maps.shape != (*self.video.shape[:3], len(self.names)):
            raise ValueError(
                f"maps must be [T H W C] with the clip's {list(self.video.shape[:3])} and C={len(self.names)}, the "
                f"number of names, received {list(self.maps.shape)}."
            )

    @property
    def ranges(self) -> list[tuple[float, float]]:
        """The least and the largest value of each map."""
        return [(float(each.min()), float(each.max())) for each in np.moveaxis(self.maps, -1, 0)]


def overlay(video: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Frames in grey under the colours of a heat map, blue where it is 0 and red where it is 1.

    Args:
      video: ``uint8[T H W 3]``.
      heat: ``float[T H W]`` in [0, 1]; NaN is left grey.

    Returns:
      ``uint8[T H W 3]``.
    """
    from matplotlib import colormaps

    grey = video.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # luma, ITU-R BT.601
    colours = np.asarray(colormaps["turbo"](heat))[..., :3] * 255
    drawn = (1 - _OPACITY) * grey[..., None] + _OPACITY * colours
    return np.where(np.isnan(heat)[..., None], grey[..., None], drawn).round().astype(np.uint8)


def scaled(values: np.ndarray) -> np.ndarray:
    """The values stretched to [0, 1]; NaN where they are all the same, but for rounding, and say nothing of places.

    >>> scaled(np.array([2.0, 3.0, 6.0])).tolist(), scaled(np.array([5.0, 5.0])).tolist()
    ([0.0, 0.25, 1.0], [nan, nan])
    """
    low, high = values.min(), values.max()
    return np.full(values.shape, np.nan) if _is_constant(low, high) else (values - low) / (high - low)


def _is_constant(low: float, high: float) -> bool:
    return high - low <= _NOISE * max(1.0, abs(low), abs(high))


def draw_sheet(heated: Heated) -> np.ndarray:
    """A row of frames, and below it a row for each map over the same frames.

    Returns:
      ``uint8[h w 3]``.
    """
    T = len(heated.video)
    shown = np.unique(np.linspace(0, T - 1, min(MAX_COLUMNS, T)).round().astype(int))
    rows = [[_tile(frame) for frame in tiles[shown]] for tiles in _tiles(heated)]
    height, width = rows[0][0].shape[:2]
    across = max(_NAMES + len(shown) * (width + _GAP) - _GAP + _MARGIN, _MIN_WIDTH)
    texts = _heading(heated, across)
    top = _MARGIN + _LINE * (len(texts) + 1)
    places = [
        [(top + r * (height + _GAP), _NAMES + c * (width + _GAP)) for c in range(len(shown))] for r in range(len(rows))
    ]
    texts += [_Text(place[1], top - _LINE + 2, f"frame {t}", _SMALL, "0.4")
              for place, t in zip(places[0], shown.tolist(), strict=True)]  # fmt: skip
    for (place, *_), (name, small) in zip(places, _captions(heated), strict=True):
        texts.append(_Text(_MARGIN, place[0] + 4, _fitting(name, _NAMES - _MARGIN, _SIZE), _SIZE))
        texts.append(_Text(_MARGIN, place[0] + 4 + _LINE, small, _SMALL, "0.4"))
    sheet = _paper(places[-1][0][0] + height + _MARGIN, across, texts)
    for place_row, row in zip(places, rows, strict=True):
        for place, tile in zip(place_row, row, strict=True):
            _paste(sheet, tile, place)
    return sheet


def draw_film(heated: Heated) -> Iterator[np.ndarray]:
    """The frame, and every map over it, side by side.

    Yields:
      ``uint8[h w 3]`` for each of the ``T`` frames, all of one size with even sides.
    """
    tiles = _tiles(heated)
    height, width = _tile(tiles[0][0]).shape[:2]
    width = max(width, _NAMES)
    across = max(2 * _MARGIN + min(len(tiles), _ACROSS) * (width + _GAP) - _GAP, _MIN_WIDTH)
    texts = _heading(heated, across)
    top = _MARGIN + _LINE * len(texts)
    places = [
        (top + 2 * _LINE + n // _ACROSS * (height + 2 * _LINE + _GAP), _MARGIN + n % _ACROSS * (width + _GAP))
        for n in range(len(tiles))
    ]
    for (row, left), (name, small) in zip(places, _captions(heated), strict=True):
        texts.append(_Text(left, row - 2 * _LINE + 2, _fitting(name, width, _SIZE), _SIZE))
        texts.append(_Text(left, row - _LINE + 1, small, _SMALL, "0.4"))
    bottom = places[-1][0] + height + _MARGIN
    paper = _paper(bottom + bottom % 2, across + across % 2, texts)
    for frames in zip(*tiles, strict=True):
        for place, frame in zip(places, frames, strict=True):
            _paste(paper, _tile(frame), place)
        yield paper.copy()


class _Text(NamedTuple):
    left: float
    top: float
    text: str
    size: float
    colour: str = "black"
    weight: str = "normal"


def _tiles(heated: Heated) -> list[np.ndarray]:
    """The clip, and the clip under each map: ``uint8[T H W 3]`` each."""
    maps = np.moveaxis(heated.maps, -1, 0)
    return [heated.video, *(overlay(heated.video, scaled(each.astype(np.float32))) for each in maps)]


def _captions(heated: Heated) -> list[tuple[str, str]]:
    """A name and what stands small below it, for the clip and each map."""
    T = len(heated.video)
    maps = [
        (name, f"{low:.3g} everywhere" if _is_constant(low, high) else f"blue {low:.3g} to red {high:.3g}")
        for name, (low, high) in zip(heated.names, heated.ranges, strict=True)
    ]
    return [("frames" if T > 1 else "image", f"{T} x {heated.video.shape[1]} x {heated.video.shape[2]}"), *maps]


def _heading(heated: Heated, width: int) -> list[_Text]:
    """The lines above a picture, each broken into two at most, and what the numbers of the maps are."""
    length = _length(width - 2 * _MARGIN, _SIZE)
    lines: list[tuple[str, str]] = []
    for n, line in enumerate((*heated.heading, f"numbers beside the maps: {heated.values}")):
        broken = textwrap.wrap(_printable(line), length, max_lines=2, placeholder=" …") or [""]
        lines += [(part, "normal" if n else "bold") for part in broken]
    return [_Text(_MARGIN, _MARGIN + n * _LINE, line, _SIZE, weight=weight) for n, (line, weight) in enumerate(lines)]


def _tile(frame: np.ndarray) -> np.ndarray:
    """A frame enlarged by a whole number, or every so many-th pixel of it."""
    zoom = max(1, round(_TILE / min(frame.shape[:2])))
    step = max(1, round(min(frame.shape[:2]) / (2 * _TILE)))
    return frame[::step, ::step].repeat(zoom, axis=0).repeat(zoom, axis=1)


def _paper(height: int, width: int, texts: Sequence[_Text]) -> np.ndarray:
    """White, with texts at pixels that count from the left upper corner."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # without pyplot: no windows, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for each in texts:
        style = {"size": each.size, "color": each.colour, "weight": each.weight}
        base = each.top + 1.1 * each.size * _DPI / 72  # not the letters' own tops, which differ
        figure.text(each.left / width, 1 - base / height, each.text, va="baseline", parse_math=False, **style)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks is drawn as a box
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _paste(sheet: np.ndarray, tile: np.ndarray, place: tuple[int, int]) -> None:
    top, left = place
    sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile


def _fitting(text: str, width: float, size: float) -> str:
    """The beginning of a text, on one line, as long as fits."""
    text, length = _printable(text), _length(width, size)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _printable(text: str) -> str:
    return " ".join(text.encode(errors="replace").decode().split())


def _length(width: float, size: float) -> int:
    """How many characters fit, about."""
    return max(8, int(width / (_CHARACTER * size * _DPI / 72)))
