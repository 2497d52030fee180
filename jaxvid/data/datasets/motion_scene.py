"""The pictures of `motion`: a patterned object before a patterned background, drawn from a clip's numbers.

Nothing in an :class:`Appearance` depends on the class, and `motion_fine` has the same ones. The two splits draw from
sets without a common member: of hues, of patterns, and of the numbers that make an outline, where the values of ``val``
lie between those of ``train``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from jaxvid.data.datasets.motion_courses import DIMENSIONS

HEIGHT, WIDTH = 72, 80
"""Of a frame, pixels."""

_REACH = 0.18 * HEIGHT  # the object's centre moves so far from the middle, pixels
_GROWTH = 0.38  # logarithm of the largest size over the middle one
_MAX_TILT = np.pi / 3
_MARGIN = 3  # pixels around the frame into which a shaking camera looks
_MAX_SHAKE = 1.2  # pixels
_GRAIN = 3.0  # standard deviation of the sensor's noise, of 255
_TEXTURE = 96  # pixels, side of the object's pattern
_EVENT, _FULL_EVENT = 0.6, 0.8  # |light| at which a flash (or the dark) begins, and at which it is complete
_MIN_CONTRAST = 120.0  # sum over RGB of the difference between the mean colours of object and background


@dataclass(frozen=True)
class Palette:
    """What the appearances of one split are drawn from.

    Attributes:
      hues: intervals of hue, each within [0, 1).
      patterns: names of patterns.
      exponents: intervals of the superellipse's exponent; 2 is an ellipse, more is closer to a rectangle.
      aspects: intervals of height over width.
      tapers: intervals of how much narrower one end is.
    """

    hues: tuple[tuple[float, float], ...]
    patterns: tuple[str, ...]
    exponents: tuple[tuple[float, float], ...]
    aspects: tuple[tuple[float, float], ...]
    tapers: tuple[tuple[float, float], ...]


PALETTES: Mapping[str, Palette] = MappingProxyType(
    {
        "train": Palette(
            hues=tuple((k / 6, k / 6 + 0.07) for k in range(6)),
            patterns=("clouds", "stripes", "rings"),
            exponents=((1.5, 2.1), (3.2, 5.0)),
            aspects=((1.45, 1.65), (1.85, 2.05)),
            tapers=((0.0, 0.1), (0.25, 0.35)),
        ),
        "val": Palette(
            hues=tuple((k / 6 + 0.085, k / 6 + 0.155) for k in range(6)),
            patterns=("checks", "spots"),
            exponents=((2.3, 3.0),),
            aspects=((1.67, 1.83),),
            tapers=((0.12, 0.23),),
        ),
    }
)


@dataclass(frozen=True)
class Appearance:
    """How one clip looks, whatever happens in it.

    Attributes:
      pattern: of the object; ``background_pattern``: of what is behind it.
      colors: float64[2 3], RGB of 255: the two colours of the object's pattern; ``background_colors`` likewise.
      hues: the hues of the four colours.
      exponent: of the outline, see :class:`Palette`; ``aspect`` and ``taper`` likewise, the taper with a sign.
      radius: of the object at its middle size, pixels.
      centre: ``(x, y)`` about which the object moves, pixels.
      seed: of textures, camera shake and noise.
    """

    pattern: str
    background_pattern: str
    colors: np.ndarray
    background_colors: np.ndarray
    hues: tuple[float, ...]
    exponent: float
    aspect: float
    taper: float
    radius: float
    centre: tuple[float, float]
    seed: int


def draw_appearance(split: str, rng: np.random.Generator) -> Appearance:
    """Draws how a clip of a split (a name of :data:`PALETTES`) looks."""
    palette = PALETTES[split]
    while True:
        hues = tuple(_between(palette.hues, rng) for _ in range(4))
        colors = np.stack([_color(hue, rng) for hue in hues])
        if np.abs(colors[:2].mean(0) - colors[2:].mean(0)).sum() >= _MIN_CONTRAST:
            break
    x, y = rng.uniform(-0.02, 0.02, 2) * HEIGHT
    return Appearance(
        pattern=str(rng.choice(palette.patterns)),
        background_pattern=str(rng.choice(palette.patterns)),
        colors=colors[:2],
        background_colors=colors[2:],
        hues=hues,
        exponent=_between(palette.exponents, rng),
        aspect=_between(palette.aspects, rng),
        taper=_between(palette.tapers, rng) * rng.choice((-1, 1)),
        radius=0.2 * HEIGHT * rng.uniform(0.9, 1.1),
        centre=(WIDTH / 2 + x, HEIGHT / 2 + y),
        seed=int(rng.integers(2**63)),
    )


def render(appearance: Appearance, courses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws a clip.

    Args:
      appearance: how it looks.
      courses: float[T 5], the values of :data:`jaxvid.data.datasets.motion_courses.DIMENSIONS` in every frame.

    Returns:
      The frames, uint8[T 72 80 3] RGB, and where the object is in them, bool[T 72 80].
    """
    rng = np.random.default_rng(appearance.seed)
    alpha, surface = _draw_object(appearance, courses, rng)
    alpha = alpha[..., None]
    shape = HEIGHT + 2 * _MARGIN, WIDTH + 2 * _MARGIN
    background = _patterned(appearance.background_pattern, shape, _muted(appearance.background_colors), 16.0, rng)
    picture = np.concatenate([background * (1 - alpha) + surface * alpha, 255 * alpha], axis=-1)
    shaken = np.stack([_shifted(frame, rng.uniform(-_MAX_SHAKE, _MAX_SHAKE, 2)) for frame in picture])
    noise = _GRAIN * rng.standard_normal((*shaken.shape[:3], 1), np.float32)
    return np.clip(shaken[..., :3] + noise, 0, 255).astype(np.uint8), shaken[..., 3] >= 127.5


def _draw_object(
    appearance: Appearance, courses: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Opacity float32[T h w] and colours float32[T h w 3] of the object in every frame, margin included."""
    value = {name: column.astype(np.float32)[:, None, None] for name, column in zip(DIMENSIONS, courses.T, strict=True)}
    x = np.arange(-_MARGIN, WIDTH + _MARGIN, dtype=np.float32) + 0.5 - np.float32(appearance.centre[0])
    y = np.arange(-_MARGIN, HEIGHT + _MARGIN, dtype=np.float32)[:, None] + 0.5 - np.float32(appearance.centre[1])
    x, y = x - _REACH * value["across"], y - _REACH * value["down"]
    scale = appearance.radius * np.exp(_GROWTH * value["size"])
    cosine, sine = np.cos(_MAX_TILT * value["tilt"]), np.sin(_MAX_TILT * value["tilt"])
    u, v = (cosine * x + sine * y) / scale, (cosine * y - sine * x) / scale
    u = u * np.float32(np.sqrt(appearance.aspect)) * (1 + np.float32(appearance.taper) * v)
    v = v / np.float32(np.sqrt(appearance.aspect))
    exponent = np.float32(appearance.exponent)
    radius = (np.abs(u) ** exponent + np.abs(v) ** exponent) ** (1 / exponent)
    alpha = np.clip((1 - radius) * scale * 0.8 + 0.5, 0, 1)
    texture = _patterned(appearance.pattern, (_TEXTURE, _TEXTURE), appearance.colors, 30.0, rng)
    rows, columns = (np.clip((c + 1) * (_TEXTURE / 2), 0, _TEXTURE - 1).astype(np.int32) for c in (v, u))
    return alpha, _lit(texture[rows, columns], value["light"][..., None])


def _lit(surface: np.ndarray, light: np.ndarray) -> np.ndarray:
    """White where the light is high, black where it is low, as it is in between."""
    strength = 0.85 * np.clip((np.abs(light) - _EVENT) / (_FULL_EVENT - _EVENT), 0, 1)
    return surface * (1 - strength) + np.where(light > 0, np.float32(250), np.float32(8)) * strength


def _patterned(
    pattern: str, shape: tuple[int, int], colors: np.ndarray, wavelength: float, rng: np.random.Generator
) -> np.ndarray:
    """A pattern of two colours, float32[h w 3], with clouds of brightness over it."""
    field = PATTERNS[pattern](shape, wavelength, rng)[..., None]
    first, second = colors.astype(np.float32)
    mixed = (first + second) / 2 + (first - second) / 2 * field
    return np.clip(mixed + 18 * _clouds(shape, wavelength * 0.7, rng)[..., None], 0, 255)


def _clouds(shape: tuple[int, int], wavelength: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise in -1 .. 1: random numbers on a grid, interpolated."""
    height, width = shape
    across, down = np.arange(width) / (wavelength / 2), np.arange(height) / (wavelength / 2)
    grid = rng.uniform(-1, 1, (int(down[-1]) + 2, int(across[-1]) + 2)).astype(np.float32)
    row, column = down.astype(int), across.astype(int)
    fy, fx = (down - row).astype(np.float32)[:, None], (across - column).astype(np.float32)
    rows = grid[row] * (1 - fy) + grid[row + 1] * fy
    return rows[:, column] * (1 - fx) + rows[:, column + 1] * fx


def _stripes(shape: tuple[int, int], wavelength: float, rng: np.random.Generator) -> np.ndarray:
    x, y = _plane(shape, rng)
    return np.sin(2 * np.pi * x / wavelength + _clouds(shape, 2 * wavelength, rng)) + 0 * y


def _rings(shape: tuple[int, int], wavelength: float, rng: np.random.Generator) -> np.ndarray:
    x, y = _plane(shape, rng)
    return np.sin(2 * np.pi * np.hypot(x, y) / wavelength)


def _checks(shape: tuple[int, int], wavelength: float, rng: np.random.Generator) -> np.ndarray:
    x, y = _plane(shape, rng)
    return np.tanh(3 * np.sin(2 * np.pi * x / wavelength) * np.sin(2 * np.pi * y / wavelength))


def _spots(shape: tuple[int, int], wavelength: float, rng: np.random.Generator) -> np.ndarray:
    return np.tanh(6 * (_clouds(shape, wavelength, rng) - 0.2))


PATTERNS = MappingProxyType(
    {"clouds": _clouds, "stripes": _stripes, "rings": _rings, "checks": _checks, "spots": _spots}
)
"""Name -> ``(shape, wavelength in pixels, rng) -> float[h w]`` in -1 .. 1."""


def _plane(shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in pixels, turned and shifted at random."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle, dx, dy = rng.uniform(0, (2 * np.pi, shape[1], shape[0])).astype(np.float32)
    x, y = x - dx, y - dy
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _shifted(picture: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The frame ``[72 80 C]`` out of ``[72+6 80+6 C]``, ``shift`` = (x, y) pixels off its middle; bilinear."""
    x, y = shift + _MARGIN
    column, row = int(x), int(y)
    fx, fy = np.float32(x - column), np.float32(y - row)
    cut = picture[row : row + HEIGHT + 1, column : column + WIDTH + 1]
    cut = cut[:-1] * (1 - fy) + cut[1:] * fy
    return cut[:, :-1] * (1 - fx) + cut[:, 1:] * fx


def _between(intervals: tuple[tuple[float, float], ...], rng: np.random.Generator) -> float:
    """A number from one of the intervals."""
    low, high = intervals[rng.integers(len(intervals))]
    return float(rng.uniform(low, high))


def _muted(colors: np.ndarray) -> np.ndarray:
    """Two colours, brought closer to each other: what is behind is not what matters."""
    mean = colors.mean(0)
    return mean + 0.5 * (colors - mean)


def _color(hue: float, rng: np.random.Generator) -> np.ndarray:
    """RGB of 255 of a hue with random saturation and a middle value, so that both flash and dark can be seen."""
    saturation, value = rng.uniform(0.35, 0.95), rng.uniform(0.35, 0.85)
    ramp = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return 255 * value * (1 - saturation * (1 - ramp))
