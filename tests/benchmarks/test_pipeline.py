"""The lines of the pipeline benchmark, on small videos."""

import json
from types import SimpleNamespace

import pytest

from jaxvid.benchmarks import BENCHMARKS, pipeline
from jaxvid.benchmarks.pipeline import bench_pipeline
from jaxvid.data.pipeline import TrainClips

SMALL = {
    "height": 48, "width": 64, "video_frames": 12, "num_videos": 2, "batch_size": 3, "batches_per_run": 2,
    "clips": TrainClips(4, 2, "random", short_side=(32, 40), crop_size=32, flip=True, mirror=None),
}  # fmt: skip


def check(lines, workers):
    assert [line["num_workers"] for line in lines] == workers
    for line in lines:
        json.dumps(line, allow_nan=False)
        assert (line["benchmark"], line["runs"], line["warmup"]) == ("pipeline", 2, 1)
        assert line["clips_per_second"] == pytest.approx(3 * 2 / line["seconds_median"])
        assert line["first_batch_seconds"] > 0
        assert line["clip"] == {"num_frames": 4, "frame_stride": 2, "crop_size": 32}


def test_one_line_for_each_number_of_workers():
    check(list(bench_pipeline(runs=2, workers=(0,), **SMALL)), [0])


@pytest.mark.slow
def test_worker_processes():
    check(list(bench_pipeline(runs=2, workers=(0, 1, 2), **SMALL)), [0, 1, 2])


def test_a_video_that_cannot_be_decoded_ends_the_measurement(monkeypatch):
    real = pipeline.write_clip

    def broken(path, **options):
        real(path, **options).write_bytes(b"not a video")
        return path

    monkeypatch.setattr(pipeline, "write_clip", broken)
    with pytest.raises(RuntimeError, match="every one of the 3 clips must be decoded, received 0"):
        list(bench_pipeline(runs=2, workers=(0,), **SMALL))


def test_the_command_lines_options_reach_the_benchmark(monkeypatch):
    seen = []
    monkeypatch.setattr(pipeline, "bench_pipeline", lambda **options: seen.append(options) or iter([{"a": 1}]))
    assert list(BENCHMARKS["pipeline"](SimpleNamespace(runs=7))) == [{"a": 1}]
    assert seen == [{"runs": 7}]


@pytest.mark.parametrize("change", [{"runs": 0}, {"batch_size": 0}, {"num_videos": 0}])
def test_numbers_that_are_too_small_are_refused(change):
    with pytest.raises(ValueError, match="must be >= 1, received runs="):
        next(bench_pipeline(**{"runs": 2} | SMALL | change))
