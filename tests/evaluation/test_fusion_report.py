"""Fused runs as text, JSON, picture and as an evaluation, and the command that makes them."""

import json

import numpy as np
import pytest

from jaxvid import cli, evaluation
from jaxvid.evaluation import (
    Judged,
    compare_runs,
    draw_weights,
    format_fusion,
    fuse_judged,
    fuse_runs,
    fusion_report,
    write_fusion,
)

CLASSES = ("clap", "wave")
N = 20
LABELS = np.arange(N, dtype=np.int32) % 2


def halves(decoded=None):
    """A is sure and right on the first 12 of 20 clips, B on the last 12; elsewhere each is wrong, and less sure."""
    truth = np.where(LABELS, 1.0, -1.0)
    decoded = np.ones(N, bool) if decoded is None else decoded
    for run, knows in (("runs/rgb", np.arange(N) < 12), ("runs/flow", np.arange(N) >= 8)):
        probability = 0.5 + np.where(knows, 0.4, -0.2) * truth
        scores = np.stack([1 - probability, probability], 1).astype(np.float32) * decoded[:, None]
        names = tuple(f"v{i:02d}.mp4" for i in range(N))
        yield Judged(run, CLASSES, names, LABELS, decoded, decoded & (scores.argmax(1) == LABELS)), scores


def test_the_text_by_hand():
    """8 against 0 of 20: p = 2 / 2^8; chi2 = (8 - 1)^2 / 8. P(Bin(20, 0.6) <= 7) = 0.021, P(<= 8) = 0.057: 8/20.

    Of the differences, sums of 20 terms that are 1 with chance 0.4, the ends are 4/20 (P(<= 3) = 0.016, P(<= 4) =
    0.051) and 12/20 (P(<= 11) = 0.943, P(<= 12) = 0.979).
    """
    assert format_fusion(fuse_judged(list(halves()), num_folds=4)).splitlines() == [
        "A: runs/rgb",
        "B: runs/flow",
        "",
        "                  right  accuracy        95% interval",
        "A                    12    60.00%    40.00% to 80.00%",
        "B                    12    60.00%    40.00% to 80.00%",
        "equal weights        20   100.00%  100.00% to 100.00%",
        "searched weights     20   100.00%  100.00% to 100.00%",
        "20 clips of 2 classes",
        "",
        "searched weights - A, the best run: +40.00% (95% interval +20.00% to +60.00%)",
        "  8 clips that only they get right, 0 that only A does; McNemar: chi2 = 6.125 (Edwards), p = 0.013; "
        "exact p = 0.0078",
        "equal weights - A, the best run: +40.00% (95% interval +20.00% to +60.00%)",
        "  8 clips that only they get right, 0 that only A does; McNemar: chi2 = 6.125 (Edwards), p = 0.013; "
        "exact p = 0.0078",
        "",
        "Each clip was fused with weights that were chosen without it, on the other 3 of 4 folds",
        "(stratified by class, seed 0, steps of 0.05): A 0.5, B 0.5 (4 of 4 folds).",
        "For new clips, chosen on all of these: A 0.5, B 0.5.",
        "Intervals are bootstraps over the clips, with these folds and weights. The best run was chosen on all clips.",
    ]


def test_with_given_weights_the_text_says_so():
    lines = format_fusion(fuse_judged(list(halves()), weights=[1, 3])).splitlines()
    assert lines[-1] == "weights: A 0.25, B 0.75"
    assert any(line.startswith("given weights  ") for line in lines)
    assert not any("folds" in line for line in lines)


def test_undecoded_clips_are_told():
    text = format_fusion(fuse_judged(list(halves(np.arange(N) != 3)), num_folds=4))
    assert "20 clips of 2 classes, 1 of which could not be decoded: wrong in all" in text.splitlines()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for judged, scores in halves():  # what `write_report` writes, without its pictures
        (root / judged.run / "eval").mkdir(parents=True)
        np.savez(
            root / judged.run / "eval" / "predictions.npz",
            names=np.array(judged.clip_names),
            labels=LABELS,
            decoded=judged.decoded,
            scores=scores,
            class_names=np.array(CLASSES),
        )
    return root


def test_the_folder_is_an_evaluation_of_its_own(runs, tmp_path):
    found = fuse_runs([runs / "runs/rgb", runs / "runs/flow"], num_folds=4)
    files = write_fusion(tmp_path / "both", found)
    assert {path.name for path in (tmp_path / "both").iterdir()} == set(files)
    assert files["fuse.png"].read_bytes().startswith(b"\x89PNG")
    assert {"fuse.json", "fuse.png", "predictions.npz", "metrics.json", "confusion.png"} <= set(files)
    told = json.loads(files["fuse.json"].read_text(), parse_constant=pytest.fail)
    assert told == found.to_json()
    metrics = json.loads(files["metrics.json"].read_text())
    assert (metrics["top1"], metrics["num_clips"], metrics["weights"]) == (1.0, N, [0.5, 0.5])
    with np.load(files["predictions.npz"]) as arrays:
        np.testing.assert_array_equal(arrays["scores"], found.scores)
        np.testing.assert_allclose(arrays["view_scores"][:, 0], found.scores, rtol=1e-5)
    compared = compare_runs(tmp_path / "both", runs / "runs/rgb")
    assert (compared.test.b, compared.test.c, compared.difference) == (8, 0, 0.4)
    assert compared.test == found.gain.test
    again = fuse_runs([tmp_path / "both", runs / "runs/flow"], weights=[1, 0])
    np.testing.assert_array_equal(again.scores, found.scores)


@pytest.mark.parametrize("name", ["checkpoints", "stages.json", "eval", "predictions.npz"])
def test_a_run_is_not_written_over(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"output must be a folder of its own, received .*, which holds {name}"):
        write_fusion(tmp_path, fuse_judged(list(halves()), weights=[1, 1]))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_picture_of_other_weights_does_not_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(fusion_report, "write_report", lambda *arguments, **options: {})
    (tmp_path / "fuse.png").write_bytes(b"of an earlier fusion")
    files = write_fusion(tmp_path, fuse_judged(list(halves()), weights=[1, 1]))
    assert {path.name for path in tmp_path.iterdir()} == set(files) == {"fuse.json"}


def test_the_picture_shows_the_weights_and_what_the_folds_chose():
    found = fuse_judged(list(halves()), num_folds=4)
    axes = draw_weights(found).axes[0]
    line = axes.lines[0]
    np.testing.assert_allclose(np.stack([line.get_xdata(), line.get_ydata() / 100], 1), found.curve)
    assert [text.get_text() for text in axes.texts] == ["4"]
    assert axes.texts[0].get_position()[0] == 0.5
    assert axes.get_title(loc="left").splitlines() == [
        "A: runs/rgb, 60.00% alone",
        "B: runs/flow, 60.00% alone",
        "20 clips, held out 100.00%, +40.00% over the best run",
    ]
    with pytest.raises(ValueError, match="received 2 runs, with given weights"):
        draw_weights(fuse_judged(list(halves()), weights=[1, 1]))
    a, b = halves()
    with pytest.raises(ValueError, match="received 3 runs, searched"):
        draw_weights(fuse_judged([a, b, b], step=0.5))


def test_the_command_prints_writes_and_says_where(runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    words = ["fuse", "runs/rgb", "runs/flow", "--num_folds=4", "--step=0.1", "--seed=3"]
    written = []
    monkeypatch.setattr(evaluation, "write_fusion", lambda folder, found: written.append((folder, found.to_json())))
    assert cli.main([*words, f"--output={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["A: runs/rgb", "B: runs/flow"]
    assert printed[-1] == f"results: {tmp_path / 'out'}"
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert written == [(tmp_path / "out", told)]
    assert told["search"]["num_folds"] == 4
    assert (told["search"]["step"], told["search"]["seed"], told["weights"]) == (0.1, 3, [0.5, 0.5])
    assert cli.main(["fuse", "runs/rgb", "--json", "runs/flow", "--weights=0.6,0.4"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == pytest.approx([0.6, 0.4])


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["runs/rgb"], 2, "jaxvid fuse must be given at least 2 runs, received 'runs/rgb' only."),
        ([], 2, "the following arguments are required: RUN"),
        (
            ["runs/rgb", "nowhere"],
            1,
            "error: a run must hold predictions.npz or eval/predictions.npz, received nowhere",
        ),
        (
            ["runs/rgb", "runs/flow", "--weights=a,b"],
            2,
            "--weights must be numbers, as 0.6,0.4, received --weights=a,b.",
        ),
        (["runs/rgb", "runs/flow", "--weights=1"], 1, "error: weights must be 2 numbers >= 0"),
        (["runs/rgb", "runs/flow", "--weights=1,1", "--step=0.1"], 2, "--step belongs to the search of weights"),
        (["runs/rgb", "runs/flow", "--stp=0.1"], 2, "jaxvid fuse has no option --stp. Did you mean --step?"),
        (["runs/rgb", "runs/flow", "--num_folds=21"], 1, "error: num_folds must be >= 2 and <= 20"),
        (["runs/rgb", "runs/flow", "--output="], 1, "error: --output must be a folder, received an empty text."),
    ],
)
def test_what_is_wrong_is_one_sentence(runs, words, status, sentence, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    assert cli.main(["fuse", *words]) == status
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert "\n" not in printed.err.strip()
    assert not printed.out
