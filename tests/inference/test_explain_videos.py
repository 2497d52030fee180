"""What is written of each video, and where."""

from jaxvid.data import VideoDataset, VideoRecord
from jaxvid.inference.explain_videos import _stems


def named(*paths):
    return VideoDataset("videos", "named", ("a", "b"), [VideoRecord(n, 0, str(p), str(p)) for n, p in enumerate(paths)])


def test_no_video_is_written_over(tmp_path):
    """Nor by way of a link."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "videos")
    videos = [tmp_path / "videos" / name for name in ("a.mp4", "a-2.png", "b.avi", "c.webm")]
    assert _stems(named(*videos), tmp_path / "link", True) == ["a-3", "a-2-2", "b", "c"]


def test_names_come_once_and_say_where_a_video_lies(tmp_path):
    assert _stems(named("x/a.mp4", "y/a.mp4"), tmp_path, True) == ["a", "a-2"]
    assert _stems(named("x/a.mp4", "y/a.mp4"), tmp_path, False) == ["x_a", "y_a"]
