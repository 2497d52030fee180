"""The lines of the decoding benchmark, on a small video."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from jaxvid.benchmarks import BENCHMARKS, decode
from jaxvid.benchmarks.decode import bench_decode

SMALL = {"height": 48, "width": 64, "video_frames": 40, "num_frames": 4, "frame_stride": 2, "clips_per_run": 3}


def test_two_lines_for_each_distance_of_keyframes():
    lines = list(bench_decode(runs=2, gops=(5, 250), **SMALL))
    assert [(line["video"]["gop"], line["read"]) for line in lines] == [
        (5, "all frames"), (5, "clip"), (250, "all frames"), (250, "clip")]  # fmt: skip
    for whole, clip in (lines[:2], lines[2:]):
        assert whole["times_as_fast_as_all_frames"] == 1
        factor = whole["seconds_median"] / clip["seconds_median"]
        assert clip["times_as_fast_as_all_frames"] == pytest.approx(factor)
    for line in lines:
        json.dumps(line, allow_nan=False)
        assert (line["benchmark"], line["runs"], line["warmup"]) == ("decode", 2, 1)
        assert line["ms_per_clip"] == pytest.approx(1000 * line["seconds_median"] / 3)
        assert line["clips_per_second"] == pytest.approx(3 / line["seconds_median"])
        assert line["clips_per_second_per_core"] > 0
        assert line["video"]["bytes"] > 1000
        assert line["versions"]["av"]


def test_a_run_opens_the_file_for_every_clip_and_reads_only_the_clip(monkeypatch):
    opened, asked = [], []
    real = decode.VideoReader

    class Counting(real):
        def __enter__(self):
            opened.append(1)
            return super().__enter__()

        def read(self, indices, **options):
            asked.append(np.asarray(indices).tolist())
            return super().read(indices, **options)

    monkeypatch.setattr(decode, "VideoReader", Counting)
    list(bench_decode(runs=1, gops=(5,), **SMALL))
    assert len(opened) == len(asked) == 2 * 2 * 3  # whole and clip; warm-up and run; three clips
    assert asked[:6] == [list(range(40))] * 6
    clips = asked[6:9]
    assert clips == asked[9:12], "every run reads the same places"
    assert all(np.diff(clip).tolist() == [2, 2, 2] for clip in clips)
    assert all(clip[0] >= 0 and clip[-1] < 40 for clip in clips)


def test_the_command_lines_options_reach_the_benchmark(monkeypatch):
    seen = []
    monkeypatch.setattr(decode, "bench_decode", lambda **options: seen.append(options) or iter([{"a": 1}]))
    assert list(BENCHMARKS["decode"](SimpleNamespace(runs=7))) == [{"a": 1}]
    assert seen == [{"runs": 7}]


@pytest.mark.parametrize("change", [{"frame_stride": 14}, {"clips_per_run": 0}, {"num_frames": 0}])
def test_clips_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match="a clip must fit into the video"):
        next(bench_decode(**SMALL | change))
