"""The measured videos are what their names say."""

import av
import numpy as np
import pytest

from jaxvid.benchmarks.clips import write_clip


@pytest.mark.parametrize("gop", [5, 250])
def test_keyframes_lie_where_they_should(tmp_path, gop):
    path = write_clip(tmp_path / "clip.mp4", num_frames=23, height=48, width=64, gop=gop)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.height, stream.width) == (48, 64)
        frames = list(container.decode(stream))
    assert len(frames) == 23
    assert [t for t, frame in enumerate(frames) if frame.key_frame] == list(range(0, 23, gop))


def test_the_picture_moves_and_the_seed_decides(tmp_path):
    def pixels(seed, name):
        path = write_clip(tmp_path / name, num_frames=6, height=48, width=64, gop=12, seed=seed)
        with av.open(str(path)) as container:
            return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(int)

    first = pixels(0, "a.mp4")
    assert np.abs(first[5] - first[0]).mean() > 4
    assert first.std(axis=(1, 2)).min() > 10
    np.testing.assert_array_equal(pixels(0, "b.mp4"), first)
    assert np.abs(pixels(1, "c.mp4") - first).mean() > 10
