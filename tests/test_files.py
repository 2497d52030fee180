"""Files that are complete or absent, folders to write to, and what one process writes at a time."""

import errno
import os
import tempfile

import pytest

from jaxvid.files import make_output_folder, only_one, replacing, write_bytes, write_text


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


def test_a_folder_is_made_and_left_empty(tmp_path):
    assert make_output_folder("--workdir", str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []
    assert make_output_folder("--workdir", tmp_path / "a") == tmp_path / "a"


def test_what_cannot_be_a_folder_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=rf"^--output must be a folder, received {file}, which is a file\.$"):
        make_output_folder("--output", file)
    with pytest.raises(ValueError, match=rf"written to, received {file / 'sub'} \(Not a directory\)\.$"):
        make_output_folder("--output", file / "sub")
    with pytest.raises(ValueError, match=r"^--workdir must be a folder, received an empty text\.$"):
        make_output_folder("--workdir", "")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=rf"received {tmp_path} \(Read-only file system\)\.$"):
        make_output_folder("--workdir", tmp_path)
