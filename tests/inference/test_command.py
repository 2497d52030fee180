"""``jaxvid predict``: what it prints and writes, and its exit status."""

import csv
import json
import shutil

import numpy as np
import pytest

from jaxvid import cli
from jaxvid.inference import load_recognizer


@pytest.fixture(scope="module")
def fields(small):
    return [f"--config.{name}={value}" for name, value in small.items()]


def test_it_prints_a_table_for_each_video(run, videos, fields, small, capsys):
    clip = videos / "val" / "clap" / "0.mp4"
    assert cli.main(["predict", str(run), str(clip), str(clip), "--top=2", *fields]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 6
    assert lines[0] == f"{clip}: 8 frames, 0.3 s; seen: 4, from 0.1 to 0.2 s"
    assert lines[:3] == lines[3:], "the same video twice"
    (found,) = load_recognizer(run, small).predict(clip)
    assert [line.count(f"{guess.probability:.1%}") for line, guess in zip(lines[1:3], found.top(2), strict=True)] == [
        1,
        1,
    ]
    assert err == ""


def test_json_lines_a_table_and_a_folder_at_once_and_status_1_for_a_broken_video(run, videos, fields, capsys, tmp_path):
    (tmp_path / "empty.mp4").touch()
    written = [f"--csv={tmp_path / 'seen.csv'}", f"--output={tmp_path / 'out'}"]
    # A field with its value apart may stand in front, and options between the words.
    words = ["predict", "--config.eval.num_clips", "2", f"--checkpoint={run}", str(videos / "val"), "--json", *written]
    assert cli.main([*words, str(tmp_path / "empty.mp4"), "--config.eval.num_crops=3", *fields]) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 7
    assert [line["num_views"] for line in lines] == [6] * 6 + [None]
    assert err.splitlines() == [
        "1 of 7 videos could not be decoded:",
        f"  {tmp_path / 'empty.mp4'} must not be empty.",
    ]
    assert out == (tmp_path / "out" / "predictions.jsonl").read_text()
    with open(tmp_path / "seen.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 3 + 1
    assert [(row["class"], float(row["low"])) for row in rows[:3]] == [
        (guess["class"], guess["interval"][0]) for guess in lines[0]["top"]
    ]
    with np.load(tmp_path / "out" / "predictions.npz") as arrays:
        assert arrays["logits"].shape == (7, 6, 3)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["RUN"], 2, "jaxvid predict must be given a run and at least 1 video, received 'RUN' only."),
        (["RUN", "x.mp4", "--top=0"], 2, "--top must be >= 1, received --top=0."),
        (["RUN", "x.mp4", "--tpo=3"], 2, "jaxvid predict has no option --tpo. Did you mean --top?"),
        (["RUN", __file__, "--csv=/"], 2, "--csv must be a file, received '/', which is a folder."),
        (["RUN", __file__, f"--csv={__file__}/x"], 1, "error: the place of --csv must be a folder, received"),
        (["RUN", "no.mp4"], 1, "error: a video must be a file or a folder, received 'no.mp4', which does not exist."),
        (["--checkpoint=nowhere", __file__], 1, "error: checkpoint must be a run folder with a saved step, received"),
        ([], 2, "the following arguments are required: RUN VIDEO"),
    ],
)
def test_what_is_wrong_is_one_sentence(words, status, sentence, capsys):
    assert cli.main(["predict", *words]) == status
    out, err = capsys.readouterr()
    assert err.startswith(sentence) or sentence in err
    assert err.count("\n") == 1
    assert out == ""


def test_annotated_copies_lie_beside_the_videos_and_replace_none(run, videos, fields, capsys, tmp_path):
    shutil.copy(videos / "val" / "clap" / "0.mp4", tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"")
    before = (tmp_path / "a.mp4").read_bytes()
    words = ["predict", str(run), str(tmp_path), str(tmp_path / "a.mp4"), f"--annotate={tmp_path}"]
    assert cli.main([*words, *fields]) == 1
    assert sorted(path.name for path in tmp_path.glob("a*")) == ["a.annotated-2.mp4", "a.annotated.mp4", "a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert capsys.readouterr().err.splitlines()[0] == "1 of 3 videos could not be decoded:"


def test_a_results_folder_that_is_a_file_is_refused_before_anything_is_loaded(capsys, tmp_path):
    assert cli.main(["predict", "RUN", __file__, f"--output={__file__}"]) == 1
    assert "--output must be a folder" in capsys.readouterr().err
