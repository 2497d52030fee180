"""Which files are meant by what a person names."""

import os
from pathlib import Path

import pytest

from jaxvid.inference import find_videos


@pytest.fixture
def tree(tmp_path):
    for name in ("b/2.mp4", "b/10.AVI", "a/deep/er/x.webm", "c.gif", ".hidden/h.mp4", "b/.h.mp4", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_a_folder_is_all_its_visible_videos_in_the_order_of_names(tree):
    found = [os.path.relpath(path, tree) for path in find_videos(tree)]
    assert found == ["a/deep/er/x.webm", "b/10.AVI", "b/2.mp4", "c.gif"]


def test_images_count_where_there_is_no_video(tree):
    for name in ("b/thumbnail.jpg", "empty/2.PNG", "empty/1.webp", "empty/notes.txt"):
        (tree / name).touch()
    assert [Path(path).name for path in find_videos(tree / "b")] == ["10.AVI", "2.mp4"]
    assert [Path(path).name for path in find_videos(tree / "empty")] == ["1.webp", "2.PNG"]


def test_files_and_folders_keep_their_order_and_may_come_twice(tree):
    given = [tree / "c.gif", str(tree / "b"), tree / "c.gif"]
    assert [Path(path).name for path in find_videos(given)] == ["c.gif", "10.AVI", "2.mp4", "c.gif"]
    assert find_videos(str(tree / "c.gif")) == (str(tree / "c.gif"),), "one path is not a list of letters"


def test_a_named_file_is_taken_whatever_its_suffix_is(tree):
    assert find_videos([tree / "b" / "notes.txt"]) == (str(tree / "b" / "notes.txt"),)


def test_only_what_lies_below_a_named_folder_can_be_hidden(tree):
    assert find_videos(tree / ".hidden") == (str(tree / ".hidden" / "h.mp4"),)


def test_links_are_followed_but_not_in_circles(tree):
    (tree / "b" / "up").symlink_to(tree)
    (tree / "other").symlink_to(tree / "a")
    found = [os.path.relpath(path, tree) for path in find_videos(tree)]
    assert found == ["a/deep/er/x.webm", "b/10.AVI", "b/2.mp4", "c.gif", "other/deep/er/x.webm"]


def test_home_is_expanded(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    assert find_videos("~/c.gif") == (str(tree / "c.gif"),)


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("no.mp4", FileNotFoundError, r"must be a file or a folder, received '.*no\.mp4', which does not exist\."),
        (
            "empty",
            ValueError,
            r"at least 1 video \(\.avi .*\) or image \(\.bmp .*\), received '.*empty', which holds",
        ),
    ],
)
def test_what_holds_no_video_is_one_sentence(tree, name, error, sentence):
    with pytest.raises(error, match=sentence):
        find_videos([tree / "c.gif", tree / name])


def test_nothing_and_standard_input_are_refused():
    with pytest.raises(ValueError, match="at least 1 video must be given, received none"):
        find_videos([])
    with pytest.raises(FileNotFoundError, match="received '-', which does not exist; standard input is not read"):
        find_videos(["-"])
