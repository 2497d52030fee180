"""A comparison as text, JSON and picture, and the command that makes them."""

import json

import numpy as np
import pytest

from jaxvid import cli
from jaxvid.evaluation import (
    Judged,
    Predictions,
    compare_judged,
    draw_gains,
    format_comparison,
    mean_scores,
    write_comparison,
    write_report,
)
from jaxvid.evaluation.comparison_report import MAX_BARS
from jaxvid.evaluation.text import text_width


def compared(changes, clips=20, names=None, runs=("runs/a", "runs/b")):
    """Of each class, by how many clips A is better (or B, below 0); both are right on one further clip."""
    names = tuple(f"class-{k}" for k in range(len(changes))) if names is None else tuple(names)
    right = np.zeros((2, len(changes), clips), bool)
    right[:, :, -1] = True
    for k, change in enumerate(changes):
        right[int(change < 0), k, : abs(change)] = True
    labels = np.repeat(np.arange(len(changes)), clips)
    clip_names = tuple(map(str, range(len(labels))))
    a, b = (
        Judged(run, names, clip_names, labels, np.ones(len(labels), bool), right[i].ravel())
        for i, run in enumerate(runs)
    )
    return compare_judged(a, b)


def test_the_text_by_hand():
    """13 against 3 of 80: p = 2 (1 + 16 + 120 + 560) / 2^16 = 0.0213; chi2 = (10 - 1)^2 / 16 = 5.062.

    Of the sum of 80 terms, 1 with the chance 13/80 and -1 with 3/80, P(<= 2) = 0.0229 and P(<= 3) = 0.0424: 3/80.
    Clips: (1.959964 sqrt(0.2) + 0.841621 sqrt(0.2 - 1/64))^2 * 64 = 98.07.
    """
    assert format_comparison(compared([3, 10, -3, 0])).splitlines() == [
        "A: runs/a",
        "B: runs/b",
        "",
        "         B right  B wrong  total",
        "A right        4       13     17",
        "A wrong        3       60     63",
        "total          7       73     80",
        "",
        "right: A 21.25%, B 8.75%, A - B +12.50% (95% interval +3.75% to +22.50%, bootstrap over the clips)",
        "McNemar: chi2 = 5.062 (Edwards), p = 0.024; exact p = 0.021; chi2 is a poor approximation below 25 clips",
        "",
        "A alone is right on 13 clips, B alone on 3: more than chance explains at the 5% level (exact p = 0.021).",
        "Were these the true rates, about 99 clips would give a chance of 80% to call the difference significant; "
        "here are 80.",
        "",
        "class    clips      A      B   A - B  only A  only B  exact p  Holm p",
        "class-1     20  55.0%   5.0%  +50.0%      10       0    0.002  0.0078",
        "class-0     20  20.0%   5.0%  +15.0%       3       0     0.25    0.75",
        "class-3     20   5.0%   5.0%   +0.0%       0       0        1       1",
        "class-2     20   5.0%  20.0%  -15.0%       0       3     0.25    0.75",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([-2, 0], "B alone is right on 2 clips, A alone on 0: not more than chance explains at the 5% level"),
        ([1, 0], "A alone is right on 1 clip, B alone on 0: not more than chance explains at the 5% level"),
        ([2, -2], "Each network is right on 2 clips where the other is wrong: nothing says that one is better."),
        ([0, 0], "Both networks are right on the same clips: nothing tells them apart."),
    ],
)
def test_what_it_means_in_plain_words(changes, sentence):
    assert any(line.startswith(sentence) for line in format_comparison(compared(changes)).splitlines())


def test_an_interval_that_contradicts_the_test_is_told():
    sentence = "The interval says otherwise: near the level it may, and then the exact test decides."
    told = {change: sentence in format_comparison(compared([change, 0])).splitlines() for change in (2, 5, 10)}
    assert told == {2: False, 5: True, 10: False}


def test_of_many_classes_the_text_lists_the_largest_changes():
    changes = [*range(1, 13), *[0] * 10, *range(-12, 0)]
    lines = format_comparison(compared(changes)).splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("class "))) + 1 :]
    assert table[-1] == "14 other classes, with smaller differences or none, are in --json and in compare.json."
    assert [line.split()[0] for line in table[:-1]] == [
        *(f"class-{k}" for k in range(11, 1, -1)), *(f"class-{k}" for k in range(31, 21, -1))
    ]  # fmt: skip


def test_names_of_any_characters_stay_in_their_columns(tmp_path):
    names = ["手を振る", "two\nlines", "$x$", "bytes\udcff", "plain"]
    found = compared([4, -2, 1, 6, 0], names=names, runs=("a\nb", "c\udcffd"))
    lines = format_comparison(found).splitlines()
    assert lines[:2] == ["A: a\\nb", "B: c\\udcffd"]
    assert len({text_width(line) for line in lines[-6:]}) == 1
    files = write_comparison(tmp_path, found)
    assert json.loads(files["compare.json"].read_text())["run_b"] == "c\udcffd"
    bars = [label.get_text() for label in draw_gains(found).axes[0].get_yticklabels()]
    assert bars == ["class 3", "class 0", "$x$", "class 1"]


def test_the_picture_shows_the_largest_gains_and_losses_and_which_are_more_than_chance():
    changes = [*range(1, 16), 0, *range(-15, 0)]
    found = compared(changes)
    axes = draw_gains(found).axes[0]
    lengths = [bar.get_width() for bar in axes.patches]
    assert lengths == pytest.approx([5 * k for k in (*range(15, 15 - MAX_BARS, -1), *range(-4, -16, -1))])
    top, bottom = axes.get_ylim()
    assert top > bottom, "the largest gain is at the top"
    holm = {row["class"]: row["holm_p"] for row in found.classes}
    names = [label.get_text() for label in axes.get_yticklabels()]
    dark = [sum(bar.get_facecolor()[:3]) < 1.5 for bar in axes.patches]
    assert dark == [holm[name] < 0.05 for name in names]
    assert True in dark
    assert False in dark
    assert axes.texts[0].get_text() == " +75.0 (15 : 0 of 20) "


def test_a_picture_without_a_difference_says_so(tmp_path):
    figure = draw_gains(compared([0, 0]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no class differs"]
    figure.savefig(tmp_path / "x.png")


@pytest.mark.parametrize("changes", [[3], [-3], [9, -9]])
def test_the_words_behind_the_bars_stay_inside(changes):
    figure = draw_gains(compared(changes))
    figure.draw_without_rendering()
    frame = figure.axes[0].get_window_extent()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs whose networks are right on other clips: A alone on 8, B alone on 1, of 12 of 2 classes."""
    root = tmp_path_factory.mktemp("runs")
    labels = np.arange(12, dtype=np.int32) % 2
    for name, right in {"a": [1] * 10 + [0, 0], "b": [1, 1] + [0] * 8 + [1, 0]}.items():
        guesses = np.where(np.array(right, bool), labels, 1 - labels)
        logits = 2 * np.eye(2, dtype=np.float32)[guesses][:, None]
        predictions = Predictions(np.arange(12, dtype=np.int32), labels, np.ones(12, bool), logits, mean_scores(logits))
        names = [f"{i}.mp4" for i in range(12)]
        write_report(root / name / "eval", predictions, {}, ["clap", "wave"], clip_names=names)
    return root


def test_the_command_prints_writes_and_says_where(runs, capsys, tmp_path):
    words = ["compare", str(runs / "a"), str(runs / "b")]
    assert cli.main([*words, f"--output={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [f"A: {runs / 'a'}", f"B: {runs / 'b'}"]
    assert printed[4:6] == ["A right        2        8     10", "A wrong        1        1      2"]
    assert printed[-1] == f"results: {tmp_path / 'out'}"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.json", "compare.png"}
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main([*words, "--json", f"--output={tmp_path / 'out'}"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (told["b"], told["c"], told["chi2"]) == (8, 1, 4.0)
    assert (told["exact_p"], told["p"]) == (2 * 10 / 2**9, pytest.approx(0.0455, abs=1e-5))  # chi-square of 4
    assert told["difference"] == pytest.approx(7 / 12)
    assert told["interval"][0] < 7 / 12 < told["interval"][1]


@pytest.mark.parametrize(
    ("second", "status", "sentence"),
    [
        ([], 2, "the following arguments are required: RUN_B"),
        (["nowhere"], 1, "error: a run must hold predictions.npz or eval/predictions.npz, received nowhere"),
        (["b", "--jsn"], 2, "jaxvid compare has no option --jsn. Did you mean --json?"),
        (["b", "--output="], 1, "error: --output must be a folder, received an empty text."),
    ],
)
def test_what_is_wrong_is_one_sentence(runs, second, status, sentence, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    assert cli.main(["compare", "a", *second]) == status
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert "\n" not in printed.err.strip()
    assert not printed.out
