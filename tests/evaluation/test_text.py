"""Columns of a terminal, whatever the characters are."""

from jaxvid.evaluation.text import pad, printable, text_width


def test_wide_and_combining_characters_take_their_columns():
    assert text_width("手を") == 4
    assert text_width("e\u0301") == 1
    assert pad("手", 4) == "手  "
    assert pad("e\u0301", 3, left=False) == "  e\u0301"


def test_what_a_terminal_would_obey_is_escaped():
    assert printable("a\x1b[31m\u200b") == "a\\x1b[31m\\u200b"
    assert printable("two\nlines \udcff") == "two\\nlines \\udcff"
