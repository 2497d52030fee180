"""What the stages of a network guess: counts by hand, laws, files, and stages compared as runs."""

import dataclasses
import json

import numpy as np
import pytest

from jaxvid import cli
from jaxvid.evaluation import Predictions, collect_guesses, compare_runs, mean_scores, summarize, write_report
from jaxvid.evaluation.stage_guesses_report import draw_guesses, format_all

CLASSES = ("clap", "wave", "never")
LABELS = (0, 0, 1, 1, 1)
# Of the last clip, which could not be decoded, everything is 0.
PREDICTED = (0, 1, 1, 1, 0)
STAGE3 = ((0, 0, 0), (1, 1, 0), (0, 1, 2), (1, 0, 1), (0, 0, 0))  # most frequent: 0 1 0 1; of three equal the first
STAGE4 = ((0, 1, 0), (0, 0, 1), (1, 1, 1), (2, 2, 1), (0, 0, 0))  # 0 0 1 2


def predictions(labels=LABELS, predicted=PREDICTED, decoded=(1, 1, 1, 1, 0), **stages):
    n, V = len(labels), 3
    decoded = np.array(decoded, bool)
    logits = np.repeat(3 * np.eye(3, dtype=np.float32)[list(predicted)][:, None], V, axis=1) * decoded[:, None, None]
    stages = stages or {"stage3": STAGE3, "stage4": STAGE4}
    side = {f"class_regularization/{stage}/class_index": np.array(views, np.int32) for stage, views in stages.items()}
    side["universal/mask"] = np.zeros((n, V, 7), np.float32)  # what something else says
    scores = mean_scores(logits) * decoded[:, None]
    return Predictions(np.arange(n, dtype=np.int32), np.array(labels, np.int32), decoded, logits, scores, side)


@pytest.fixture
def found():
    return collect_guesses(predictions(), CLASSES)


def test_a_guess_is_the_class_of_most_views(found):
    assert {stage: guess[:4].tolist() for stage, guess in found.guesses.items()} == {
        "stage3": [0, 1, 0, 1], "stage4": [0, 0, 1, 2], "network": [0, 1, 1, 1]}  # fmt: skip
    assert {stage: right.tolist() for stage, right in found.correct.items()} == {
        "stage3": [True, False, False, True, False],
        "stage4": [True, True, True, False, False],
        "network": [True, False, True, True, False],
    }


def test_accuracy_agreement_and_classes_by_hand(found):
    told = found.to_json()
    json.dumps(told, allow_nan=False)
    assert (told["num_clips"], told["num_missing"], told["num_views"]) == (5, 1, 3)
    third, fourth, network = told["stages"]
    assert third == {"stage": "stage3", "top1": 2 / 5, "view_top1": 7 / 15, "num_guessed": 2, "agreement": 3 / 4}
    assert (fourth["top1"], fourth["view_top1"], fourth["num_guessed"]) == (3 / 5, 8 / 15, 3)
    assert (fourth["b"], fourth["c"], fourth["exact_p"]) == (1, 2, 1.0)
    assert (network["top1"], network["view_top1"], network["b"], network["c"]) == (3 / 5, None, 1, 1)
    np.testing.assert_array_equal(told["agreement"], [[1, 1 / 4, 3 / 4], [1 / 4, 1, 2 / 4], [3 / 4, 2 / 4, 1]])
    clap, wave, never = told["classes"]
    assert clap == {
        "class": "clap", "num_clips": 2, "accuracy": {"stage3": 1 / 2, "stage4": 1.0, "network": 1 / 2},
        "gain": {"stage4": 1 / 2, "network": -1 / 2}}  # fmt: skip
    assert wave["accuracy"] == {"stage3": 1 / 3, "stage4": 1 / 3, "network": 2 / 3}
    assert wave["gain"] == {"stage4": 0.0, "network": 1 / 3}
    assert never["accuracy"] == dict.fromkeys(("stage3", "stage4", "network"))


def test_a_clip_that_could_not_be_decoded_is_wrong_and_agrees_with_none():
    """Its views are 0, which must not count as a clap."""
    told = collect_guesses(predictions(labels=(0, 0, 1, 1, 0)), CLASSES).to_json()
    assert told["stages"][0]["top1"] == 2 / 5
    assert told["stages"][0]["view_top1"] == 7 / 15
    nothing = collect_guesses(predictions(decoded=(0,) * 5), CLASSES).to_json()
    assert nothing["agreement"] == [[None] * 3] * 3
    assert [row["top1"] for row in nothing["stages"]] == [0.0] * 3


def test_the_metrics_hold_each_stages_accuracy():
    metrics = summarize(predictions(), CLASSES)
    assert {name: value for name, value in metrics.items() if name.startswith("guess/")} == {
        "guess/stage3/top1": 2 / 5, "guess/stage4/top1": 3 / 5}  # fmt: skip
    plain = dataclasses.replace(predictions(), side={})
    assert collect_guesses(plain, CLASSES) is None
    assert not any(name.startswith("guess/") for name in summarize(plain, CLASSES))


def test_stages_that_say_what_the_network_says_agree_with_it():
    views = np.repeat(np.array(PREDICTED)[:, None], 3, axis=1)
    told = collect_guesses(predictions(stage1=views, stage2=views), CLASSES).to_json()
    np.testing.assert_array_equal(told["agreement"], np.ones((3, 3)))
    for row in told["stages"][1:]:
        assert (row["top1"], row["b"], row["c"]) == (told["stages"][0]["top1"], 0, 0)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_guess_that_is_no_class_is_named(wrong):
    with pytest.raises(ValueError, match=rf"a stage must guess a class in \[0, 3\), received {wrong}\."):
        collect_guesses(predictions(stage1=np.full((5, 3), wrong)), CLASSES)


def test_the_text_by_hand(found):
    assert format_all(found.to_json()).splitlines() == [
        "1 of 5 clips could not be decoded: wrong in every line.",
        "guess of  top-1  of views  classes  as network  only before  only here  exact p",
        "stage3    40.0%     46.7%        2       75.0%            -          -        -",
        "stage4    60.0%     53.3%        3       50.0%            1          2        1",
        "network   60.0%         -        2      100.0%            1          1        1",
        "of views: top-1 of single views; classes: how many are guessed; as network: same class as the network's;",
        "only before, only here: clips that only the row above, or only this row, gets right",
        "",
        "same class  stage3  stage4  network",
        "stage3      100.0%   25.0%    75.0%",
        "stage4       25.0%  100.0%    50.0%",
        "network      75.0%   50.0%   100.0%",
        "",
        "class  clips  stage3           stage4         network",
        "clap       2   50.0%  100.0% (+50.0%)  50.0% (-50.0%)",
        "wave       3   33.3%            33.3%  66.7% (+33.3%)",
        "never      0       -                -               -",
    ]


def test_a_stage_is_a_run_that_compare_reads(tmp_path, found, capsys):
    """Table 4 d-f of the paper is each stage against the next."""
    names = ["a\0.mp4", "手.mp4", "c", "d", "e"]
    files = write_report(tmp_path, predictions(), {}, CLASSES, clip_names=names)
    assert {"stage_guesses.json", "stage_guesses.txt", "stage_guesses.png"} <= set(files)
    assert all(path.is_file() for path in files.values())
    assert json.loads(files["stage_guesses.json"].read_text()) == found.to_json()
    row = found.to_json()["stages"][1]
    stages = [tmp_path / "guesses" / stage for stage in ("stage3", "stage4")]
    test = compare_runs(*stages).test
    assert (test.b, test.c, test.exact_p_value) == (row["b"], row["c"], row["exact_p"])
    whole = compare_runs(stages[1], tmp_path)
    assert (whole.accuracy_a, whole.accuracy_b, whole.num_missing) == (3 / 5, 3 / 5, 1)
    assert cli.main(["compare", *map(str, stages)]) == 0
    assert "A right        1        1      2" in capsys.readouterr().out


@pytest.mark.parametrize("num_views", [1, 3])
def test_single_views_are_marked_where_a_clip_has_several(found, num_views):
    views = {stage: views[:, :num_views] for stage, views in found.views.items()}
    axes = draw_guesses(dataclasses.replace(found, views=views).to_json()).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["always the most frequent class: 60.0%", *["of single views"] * (num_views > 1)]
    line, *marked = axes.lines
    assert list(line.get_ydata()) == [60, 60]
    assert [mark.get_ydata().tolist() for mark in marked] == [pytest.approx([700 / 15, 800 / 15])] * (num_views > 1)


@pytest.mark.parametrize("num_classes", [2, 70])
def test_the_picture_shows_every_class_that_it_can_name(num_classes):
    rng = np.random.default_rng(0)
    n, labels = 2 * num_classes, np.repeat(np.arange(num_classes), 2).astype(np.int32)
    logits = rng.normal(size=(n, 1, num_classes)).astype(np.float32)
    side = {f"class_regularization/stage{i}/class_index": rng.integers(0, num_classes, (n, 1)) for i in (1, 2, 3, 4)}
    given = Predictions(np.arange(n, dtype=np.int32), labels, np.ones(n, bool), logits, mean_scores(logits), side)
    names = ["$dollar_", *(f"class {k}" for k in range(1, num_classes))]
    figure = draw_guesses(collect_guesses(given, names).to_json())
    figure.canvas.draw()
    texts = {label.get_text() for axes in figure.axes for label in axes.get_yticklabels()}
    assert ("$dollar_" in texts) == (num_classes == 2)
    assert {"stage1", "stage4", "network"} <= texts
