"""Names in a terminal: any characters, in columns that line up."""

from __future__ import annotations

import unicodedata


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
