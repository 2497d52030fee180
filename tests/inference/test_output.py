"""Text, JSON, CSV and arrays hold what was found, whatever the names are."""

import csv
import io
import json

import numpy as np
import pytest

from jaxvid.evaluation import mean_scores
from jaxvid.inference import Recognition, output

CLASSES = ('a, "b"\nc', "手を振る", "wave")
PATH = "dir, 1/two\nlines \udcff.mp4"


def found(views=((1 / 8, 5 / 8, 2 / 8),), path=PATH):
    logits = np.log(np.asarray(views, np.float32))
    scores = mean_scores(logits[None])[0]
    return Recognition(path, CLASSES, logits, scores, num_frames=50, duration=2.0, num_seen=8, seen=(0.5, 1.25))


FAILED = Recognition.failed("b.mp4", CLASSES, "b.mp4 must not be empty.")


def strict(text):
    def refuse(value):
        raise AssertionError(value)

    return json.loads(text, parse_constant=refuse)


def test_text_is_a_table_with_bars():
    lines = output.to_text(found(), 2).split("\n")
    assert lines == [
        r"dir, 1/two\nlines \udcff.mp4: 50 frames, 2.0 s; seen: 8, from 0.5 to 1.2 s",
        "  手を振る   62.5%  ████████████",
        "  wave       25.0%  █████",
    ]
    assert output.to_text(found(), 1, "#").endswith("############")
    assert output.to_text(FAILED, 5) == "b.mp4: not decoded\n  b.mp4 must not be empty."


def test_text_of_several_views_says_how_far_they_differ():
    text = output.to_text(found([(0.2, 0.2, 0.6), (0.1, 0.1, 0.8)]), 1)
    assert text.split("\n")[0].endswith("from 0.5 to 1.2 s in 2 views")
    assert text.endswith("  wave   70.0%  ██████████████        95% of views: 60.5% to 79.5%")


def test_json_is_one_strict_line_with_the_same_keys():
    lines = [output.to_json(video, 2) for video in (found([(0.2, 0.2, 0.6), (0.1, 0.1, 0.8)]), FAILED)]
    assert not any("\n" in line for line in lines)
    good, bad = map(strict, lines)
    assert list(good) == list(bad)
    assert good["path"] == PATH
    assert [guess["class"] for guess in good["top"]] == ["wave", CLASSES[0]]
    assert good["top"][0]["label"] == 2
    assert good["top"][0]["probability"] == pytest.approx(0.7)
    assert good["top"][0]["interval"] == pytest.approx([0.605, 0.795])
    assert (good["num_views"], good["num_seen"], good["seen"], good["error"]) == (2, 8, [0.5, 1.25], None)
    assert (bad["top"], bad["num_frames"], bad["error"]) == ([], None, "b.mp4 must not be empty.")


def test_csv_has_a_row_for_each_class_and_survives_any_name(tmp_path):
    with output.csv_table(tmp_path / "x.csv", 2) as write:
        for video in (found(), FAILED):
            write(video)
    text = (tmp_path / "x.csv").read_text(encoding="utf-8", errors="surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(rows[0]) == list(output.CSV_COLUMNS)
    assert [(row["path"], row["rank"], row["class"]) for row in rows] == [
        (PATH, "1", "手を振る"),
        (PATH, "2", "wave"),
        ("b.mp4", "", ""),
    ]
    assert float(rows[0]["probability"]) == pytest.approx(0.625)
    assert (rows[0]["low"], rows[0]["num_views"], rows[0]["seen_to"], rows[0]["error"]) == ("", "1", "1.25", "")
    assert rows[2]["error"] == "b.mp4 must not be empty."


def test_a_folder_of_results_has_lines_and_arrays(tmp_path):
    with output.result_folder(tmp_path, 5) as write:
        write(found(path="a\udcff.mp4"))
        write(FAILED)
        assert len((tmp_path / "predictions.jsonl.part").read_text().splitlines()) == 2, "as they come"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "predictions.npz"]
    lines = [strict(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [len(line["top"]) for line in lines] == [3, 0]
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == ["a\udcff.mp4", "b.mp4"]
        assert arrays["decoded"].tolist() == [True, False]
        np.testing.assert_array_equal(arrays["logits"][0], found().logits)
        np.testing.assert_array_equal(arrays["scores"], [found().scores, [0, 0, 0]])
        assert arrays["class_names"].tolist() == list(CLASSES)


def test_what_was_done_stays_when_something_stops_and_the_file_before_too(tmp_path):
    (tmp_path / "x.csv").write_text("before")
    table = output.csv_table(tmp_path / "x.csv", 1)
    table.__enter__()(found())
    assert not table.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert (tmp_path / "x.csv").read_text() == "before"
    assert len(list(csv.reader((tmp_path / "x.csv.part").open(errors="surrogateescape", newline="")))) == 2
