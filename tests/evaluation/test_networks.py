"""Several networks in one."""

import json

import numpy as np
import pytest

from jaxvid import evaluation
from jaxvid.evaluation import Predictions

NAMES = ("a", "b", "c")


def logits(rows):
    return np.log(np.array(rows, np.float32))[:, None]


@pytest.fixture
def predictions():
    """Two networks, each right where the other is wrong, and a third clip that could not be decoded."""
    first = logits([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [1, 1, 1]])
    second = logits([[0.4, 0.5, 0.1], [0.1, 0.8, 0.1], [1, 1, 1]])
    return Predictions(
        ids=np.arange(3, dtype=np.int32),
        labels=np.array([0, 1, 0], np.int32),
        decoded=np.array([True, True, False]),
        logits=first,
        scores=np.zeros((3, 3), np.float32),
        side={"u2s/universal/logits": first, "u2s/specific/logits": second, "class_index": np.zeros((3, 1), np.int32)},
    )


def test_each_by_itself_and_every_mean(predictions):
    networks = evaluation.network_predictions(predictions)
    assert list(networks) == ["universal", "specific"]
    np.testing.assert_allclose(networks["specific"].scores[:2], [[0.4, 0.5, 0.1], [0.1, 0.8, 0.1]], rtol=1e-5)
    np.testing.assert_array_equal(networks["specific"].scores[2], 0)
    rows = evaluation.network_fusions(networks, NAMES)
    assert [row["networks"] for row in rows] == [["universal"], ["specific"], ["universal", "specific"]]
    assert [row["top1"] for row in rows] == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert all(row["num_missing"] == 1 for row in rows)
    text = evaluation.format_networks(rows)
    assert "universal + specific   66.67%  100.00%" not in text  # the clip that is missing is wrong in top-3, too
    assert "universal + specific   66.67%   66.67%" in text
    *_, last, told = text.splitlines()
    assert last.startswith("universal + specific ")
    assert told == "the run's answer is the last row; 'universal' is the network inside of this run"


def test_three_networks_have_seven_fusions(predictions):
    networks = dict.fromkeys(("u", "c", "m"), evaluation.network_predictions(predictions)["universal"])
    rows = evaluation.network_fusions(networks, NAMES)
    assert len(rows) == 7
    assert evaluation.format_networks(rows).endswith("\nthe run's answer is the last row")


def test_what_is_written_can_be_compared(predictions, tmp_path):
    files = evaluation.write_report(tmp_path, predictions, {}, NAMES, clip_names=["x", "y", "z"])
    rows = evaluation.network_fusions(evaluation.network_predictions(predictions), NAMES)
    assert json.loads(files["fusions.json"].read_text()) == rows
    assert files["fusions.txt"].read_text() == evaluation.format_networks(rows) + "\n"
    found = evaluation.compare_runs(tmp_path / "networks" / "universal", tmp_path / "networks" / "specific")
    assert (found.test.b, found.test.c) == (1, 1)


def test_one_network_writes_no_others(predictions, tmp_path):
    plain = evaluation.network_predictions(predictions)["universal"]
    assert evaluation.network_fusions(evaluation.network_predictions(plain), NAMES) == []
    assert "fusions.json" not in evaluation.write_report(tmp_path, plain, {}, NAMES)
    assert not (tmp_path / "networks").exists()


def test_what_another_network_left_is_forgotten_but_nothing_else(predictions, tmp_path):
    evaluation.write_report(tmp_path, predictions, {}, NAMES)
    (tmp_path / "networks" / "mine.txt").write_text("a note")
    (tmp_path / "networks" / "specific" / "note.md").write_text("a note")
    plain = evaluation.network_predictions(predictions)["universal"]
    evaluation.write_report(tmp_path, plain, {}, NAMES)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    kept = ["confusion.png", "metrics.json", "networks/mine.txt", "networks/specific/note.md", "per_class.csv",
            "per_class.txt", "predictions.npz"]  # fmt: skip
    assert left == kept
