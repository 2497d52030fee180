"""A folder to write to: made, or refused in one sentence."""

import errno
import os
import tempfile

import pytest

from jaxvid.train.output import make_output_folder


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
