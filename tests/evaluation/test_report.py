"""The files of an evaluation hold what the predictions say, whatever the names are."""

import csv
import json

import numpy as np
import pytest

from jaxvid.evaluation import Predictions, format_per_class, mean_scores, per_class, summarize, write_report
from jaxvid.evaluation.text import text_width

FILES = {"metrics.json", "per_class.csv", "per_class.txt", "confusion.png", "predictions.npz"}
CLASSES = ["plain", 'quote " comma , semicolon ;', "two\nlines", "手を振る", "$x$", "dir/sub\\x", "bytes\udcff\udcfe"]
CLIPS = [f"{name}/v_{i}\t.mp4" for i, name in enumerate(CLASSES)] + ["ends with NUL\0", ""]


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    decoded = np.arange(9) != 4
    logits = rng.normal(size=(9, 2, 7)).astype(np.float32) * decoded[:, None, None]
    labels = np.array([0, 1, 2, 3, 4, 5, 5, 0, 1], np.int32)
    return Predictions(np.arange(9, dtype=np.int32), labels, decoded, logits, mean_scores(logits) * decoded[:, None])


def strict(text):
    def refuse(value):
        raise AssertionError(value)

    return json.loads(text, parse_constant=refuse)


def test_every_file_comes_back_as_it_was(tmp_path, predictions):
    metrics = summarize(predictions, CLASSES) | {"checkpoint_step": 12, "name": "a\udcffb", "nothing": None}
    files = write_report(tmp_path / "new" / "eval", predictions, metrics, CLASSES, clip_names=CLIPS)
    assert set(files) == FILES == {path.name for path in (tmp_path / "new" / "eval").iterdir()}
    assert strict(files["metrics.json"].read_text()) == metrics

    with open(files["per_class.csv"], newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == CLASSES
    assert [int(row["num_clips"]) for row in rows] == [2, 2, 1, 1, 1, 2, 0]
    assert rows[6]["accuracy"] == ""
    for row, expected in zip(rows, per_class(predictions, CLASSES), strict=True):
        assert row["accuracy"] == ("" if expected["accuracy"] is None else str(expected["accuracy"]))

    with np.load(files["predictions.npz"], allow_pickle=False) as arrays:
        assert set(arrays) == {
            "ids", "names", "labels", "decoded", "logits", "view_scores", "scores", "class_names",
        }  # fmt: skip
        assert arrays["names"].tolist() == [name.replace("\0", "\u2400") for name in CLIPS]
        assert arrays["class_names"].tolist() == CLASSES
        for name, values in {
            "ids": predictions.ids, "labels": predictions.labels, "decoded": predictions.decoded,
            "logits": predictions.logits, "scores": predictions.scores, "view_scores": predictions.view_scores,
        }.items():  # fmt: skip
            np.testing.assert_array_equal(arrays[name], values)
        np.testing.assert_allclose(arrays["view_scores"].mean(axis=1), arrays["scores"], atol=1e-6)
    assert files["confusion.png"].read_bytes().startswith(b"\x89PNG")


def test_the_text_table_has_one_line_for_each_class_in_aligned_columns(tmp_path, predictions):
    rows = per_class(predictions, CLASSES)
    lines = format_per_class(rows).splitlines()
    assert len(lines) == len(CLASSES) + 1
    assert lines[3].startswith("two\\nlines ")
    assert lines[7].startswith("bytes\\udcff\\udcfe ")
    ends = {text_width(line.split("%")[0].split(" -")[0]) for line in lines[1:] if "%" in line}
    assert len(ends) <= 2  # 100.0% begins one column earlier than 50.0%, but both end in the same one
    write_report(tmp_path, predictions, summarize(predictions, CLASSES), CLASSES)
    assert (tmp_path / "per_class.txt").read_text(encoding="utf-8").splitlines() == lines


def test_without_names_the_ids_name_the_clips(tmp_path, predictions):
    files = write_report(tmp_path, predictions, {}, CLASSES)
    with np.load(files["predictions.npz"], allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == [str(i) for i in range(9)]


def test_a_second_report_replaces_the_first(tmp_path, predictions):
    write_report(tmp_path, predictions, {"top1": 0.5}, CLASSES)
    write_report(tmp_path, predictions, {"top1": 0.75}, CLASSES)
    assert strict((tmp_path / "metrics.json").read_text()) == {"top1": 0.75}
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_a_file_is_complete_or_absent(tmp_path, predictions, monkeypatch):
    write_report(tmp_path, predictions, {"top1": 0.5}, CLASSES)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, predictions, {"top1": 0.5}, CLASSES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()}["predictions.npz"] == before["predictions.npz"]
    assert {path.name for path in tmp_path.iterdir()} == FILES


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32(1), {"a": object()}])
def test_metrics_that_strict_json_cannot_hold_are_refused_before_any_file(tmp_path, predictions, value):
    with pytest.raises(ValueError, match="metrics must hold plain, finite JSON values"):
        write_report(tmp_path / "out", predictions, {"x": value}, CLASSES)
    assert not (tmp_path / "out").exists()


def test_numbers_of_names_must_fit(tmp_path, predictions):
    with pytest.raises(ValueError, match="clip_names must hold 9 names, received 1"):
        write_report(tmp_path, predictions, {}, CLASSES, clip_names=["x"])
    with pytest.raises(ValueError, match="class_names must hold K=7 names, received 1"):
        write_report(tmp_path, predictions, {}, ["x"])
    assert list(tmp_path.iterdir()) == []
