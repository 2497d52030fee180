"""Files that are complete or absent, and what one process writes at a time."""

import pytest

from jaxvid.files import only_one, replacing, write_bytes, write_text


def test_a_file_takes_the_place_of_another(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    def parts():
        yield b"half"
        raise OSError("no space left")

    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(OSError, match="no space left"), replacing(tmp_path / "a") as file:
        file.writelines(parts())
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_bytes_of_names_that_are_no_characters_come_back(tmp_path):
    write_text(tmp_path / "names", b"a\xff.mp4".decode("utf-8", "surrogateescape") + "手")
    assert (tmp_path / "names").read_bytes() == b"a\xff.mp4" + "手".encode()


def test_a_lock_is_held_by_one_and_free_afterwards(tmp_path):
    lock, refusal = tmp_path / ".lock", "x must be free."
    with only_one(lock, refusal), pytest.raises(ValueError, match=r"^x must be free\.$"), only_one(lock, refusal):
        pass
    with only_one(lock, refusal):
        pass
