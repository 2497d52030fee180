"""Names of any characters: in a terminal, in columns that line up, and in arrays."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np


def printable(text: str) -> str:
    r"""The text with its control characters escaped, and bytes of file names that are no characters.

    >>> print(printable("two\nlines"))
    two\nlines
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def text_width(text: str) -> int:
    """Columns in a terminal: two for wide (East Asian) characters, none for combining ones.

    >>> text_width("wave"), text_width("手")
    (4, 2)
    """
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in text
    )


def pad(text: str, width: int, *, left: bool = True) -> str:
    """The text filled up with spaces to so many columns; it begins at the left, or ends at the right.

    >>> pad("ab", 4), pad("ab", 4, left=False)
    ('ab  ', '  ab')
    """
    space = " " * (width - text_width(text))
    return text + space if left else space + text


def columns(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells in columns, of which the first begins at the left and the others end at the right.

    >>> columns([["class", "clips"], ["wave", "4"]])
    ['class  clips', 'wave       4']
    """
    widths = [max(text_width(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(pad(cell, width, left=i == 0) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]


def p_text(value: float) -> str:
    """Two digits of a p-value; one that is too small for a number is said to be so.

    >>> p_text(0.0196), p_text(7.8e-43), p_text(1.0), p_text(0.0)
    ('0.02', '7.8e-43', '1', '<1e-300')
    """
    return f"{value:.2g}" if value else "<1e-300"


def text_array(names: Sequence[str]) -> np.ndarray:
    """Names as an array for an npz file; a NUL character, which such arrays would lose, becomes U+2400."""
    return np.array([name.replace("\0", "\u2400") for name in names], dtype=np.str_)
