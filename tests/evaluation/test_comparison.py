"""Two runs on the same clips: counts by hand, laws, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest

from jaxvid.evaluation import Judged, Predictions, compare_judged, compare_runs, mean_scores, read_judged, write_report

CLASSES = ("clap", "wave", "never")
#         both right, A alone three times, B alone once, neither
RIGHT_A = (1, 1, 1, 1, 0, 0, 1, 1)
RIGHT_B = (1, 0, 0, 0, 1, 0, 1, 1)
LABELS = (0, 0, 0, 1, 1, 1, 1, 1)


def judged(run, right, labels=LABELS, names=None, decoded=None, classes=CLASSES):
    names = tuple(f"v{i}.mp4" for i in range(len(right))) if names is None else tuple(names)
    decoded = np.ones(len(right), bool) if decoded is None else np.array(decoded, bool)
    return Judged(run, tuple(classes), names, np.array(labels), decoded, np.array(right, bool) & decoded)


def shuffled(one, order, classes=None):
    """The same evaluation with its clips, and its classes, in another order."""
    classes = classes or one.class_names
    places = np.array([classes.index(name) for name in one.class_names])
    return Judged(one.run, classes, tuple(one.clip_names[i] for i in order), places[one.labels][order],
                  one.decoded[order], one.correct[order])  # fmt: skip


def predict(right, labels=LABELS, decoded=None, classes=CLASSES):
    """Predictions of a network that is right where it says; elsewhere it names the next class."""
    labels, K = np.array(labels, np.int32), len(classes)
    decoded = np.ones(len(right), bool) if decoded is None else np.array(decoded, bool)
    guesses = np.where(np.array(right, bool), labels, (labels + 1) % K)
    logits = (3 * np.eye(K, dtype=np.float32)[guesses])[:, None] * decoded[:, None, None]
    scores = mean_scores(logits) * decoded[:, None]
    return Predictions(np.arange(len(right), dtype=np.int32), labels, decoded, logits, scores)


def write(folder, right, **options):
    """The file of an evaluation, without the others, which take longer."""
    found = predict(right, **options)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: getattr(found, name) for name in ("ids", "labels", "decoded", "logits", "view_scores", "scores")}
    names = np.array([f"v{i}.mp4" for i in found.ids])
    np.savez(folder / "predictions.npz", names=names, class_names=np.array(CLASSES), **arrays)
    return folder / "predictions.npz"


def test_counts_shares_and_classes_by_hand():
    found = compare_judged(judged("A", RIGHT_A), judged("B", RIGHT_B))
    assert (found.both, found.test.b, found.test.c, found.neither) == (3, 3, 1, 1)
    assert (found.accuracy_a, found.accuracy_b, found.difference) == (0.75, 0.5, 0.25)
    assert found.test.exact_p_value == pytest.approx(2 * 5 / 16)
    assert found.test.chi2 == 1 / 4
    assert not found.significant
    clap, wave, never = found.classes
    assert clap == {"class": "clap", "num_clips": 3, "accuracy_a": 1.0, "accuracy_b": 1 / 3, "difference": 2 / 3,
                    "b": 2, "c": 0, "exact_p": 0.5, "holm_p": 1.0}  # fmt: skip
    assert (wave["b"], wave["c"], wave["difference"], wave["exact_p"], wave["holm_p"]) == (1, 1, 0.0, 1.0, 1.0)
    assert never == {"class": "never", "num_clips": 0, "accuracy_a": None, "accuracy_b": None, "difference": None,
                     "b": 0, "c": 0, "exact_p": None, "holm_p": None}  # fmt: skip


def test_holm_counts_the_classes_that_have_clips():
    """12 clips each: 10 of clap only A gets right, 6 of wave; p = 2/2^10 and 2/2^6, times 2 and times 1."""
    right_a = [1] * 12 + [1] * 12
    right_b = [1] * 2 + [0] * 10 + [1] * 6 + [0] * 6
    labels = [0] * 12 + [1] * 12
    found = compare_judged(judged("A", right_a, labels), judged("B", right_b, labels))
    assert [row["holm_p"] for row in found.classes] == [2 * 2 / 2**10, 2 / 2**6, None]
    assert found.significant
    assert (found.accuracy_a, found.accuracy_b) == (1.0, 1 / 3)


def test_the_other_way_round_everything_has_the_other_sign():
    one, other = judged("A", RIGHT_A), judged("B", RIGHT_B)
    found, back = compare_judged(one, other), compare_judged(other, one)
    assert (back.both, back.test.b, back.test.c, back.neither) == (3, 1, 3, 1)
    assert back.difference == -found.difference
    assert back.interval == (-found.interval[1], -found.interval[0])
    assert (back.test.chi2, back.test.p_value, back.test.exact_p_value, back.needed) == (
        found.test.chi2, found.test.p_value, found.test.exact_p_value, found.needed)  # fmt: skip
    for there, here in zip(found.classes, back.classes, strict=True):
        assert (here["b"], here["c"], here["exact_p"], here["holm_p"]) == (
            there["c"], there["b"], there["exact_p"], there["holm_p"])  # fmt: skip


def test_the_order_of_clips_and_classes_does_not_matter():
    one, other = judged("A", RIGHT_A), judged("B", RIGHT_B)
    found = compare_judged(one, other)
    order = np.random.default_rng(0).permutation(len(RIGHT_A))
    assert compare_judged(one, shuffled(other, order)) == found
    assert compare_judged(one, shuffled(other, order, ("never", "clap", "wave"))) == found
    assert compare_judged(shuffled(one, order), other) == found


def test_a_name_that_comes_again_is_paired_in_order():
    names = ["x", "x", "y", "x"]
    one = judged("A", [1, 0, 1, 0], [0, 1, 2, 1], names)
    other = judged("B", [1, 1, 0, 1], [2, 0, 1, 1], ["y", *["x"] * 3])
    found = compare_judged(one, other)  # the x: A right, wrong, wrong; B right, wrong, right; y: both right
    assert (found.both, found.test.b, found.test.c, found.neither) == (2, 0, 1, 1)
    with pytest.raises(ValueError, match=r"received 1 only in A \('x'\) and 1 only in B \('y'\)"):
        compare_judged(one, judged("B", [1, 1, 1, 1], names=["x", "y", "y", "x"]))


def test_a_network_beside_itself():
    one = judged("A", RIGHT_A)
    found = compare_judged(one, one)
    assert (found.test.b, found.test.c, found.test.exact_p_value, found.test.p_value) == (0, 0, 1.0, 1.0)
    assert (found.difference, found.interval, found.needed) == (0.0, (0.0, 0.0), None)
    assert [row["holm_p"] for row in found.classes] == [1.0, 1.0, None]
    json.dumps(found.to_json(), allow_nan=False)


def test_json_has_the_names_that_stay():
    told = compare_judged(judged("A", RIGHT_A), judged("B", RIGHT_B)).to_json()
    assert (told["a"], told["b"], told["c"], told["d"], told["num_clips"]) == (3, 3, 1, 1, 8)
    assert (told["chi2"], told["exact_p"], told["difference"]) == (0.25, 0.625, 0.25)
    assert told["p"] == pytest.approx(0.617075)  # chi-square of 1/4: erfc(sqrt(1/8))
    low, high = told["interval"]
    assert -1 <= low <= 0.25 <= high <= 1
    assert len(told["classes"]) == 3


def test_clips_that_neither_could_decode_are_wrong_in_both():
    decoded = [1] * 7 + [0]
    found = compare_judged(judged("A", RIGHT_A, decoded=decoded), judged("B", RIGHT_B, decoded=decoded))
    assert (found.both, found.test.b, found.test.c, found.neither) == (2, 3, 1, 2)
    assert (found.num_clips, found.num_missing) == (8, 1)


NAMES = [f"v{i}.mp4" for i in range(8)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"names": [*NAMES[:7], "new.mp4"]},
         "both runs must have been evaluated on the same clips, received 1 only in A ('v7.mp4') and 1 only in B "
         "('new.mp4')."),
        ({"names": [f"w{i}" for i in range(8)]},
         "received 8 only in A ('v0.mp4', 'v1.mp4', 'v2.mp4', 'v3.mp4', 'v4.mp4' and 3 more) and 8 only in B ('w0', "),
        ({"classes": ("clap", "wave", "jump")},
         "both runs must have the same classes, received 1 only in A ('never') and 1 only in B ('jump')."),
        ({"classes": (*CLASSES, "fourth")}, "both runs must have the same classes, received 1 only in B ('fourth')."),
        ({"labels": [0, 0, 1, 1, 1, 1, 1, 2]},
         "a clip must have the same class in both runs, received 'v2.mp4', which is 'clap' in A and 'wave' in B, and 1 "
         "more such clips."),
        ({"classes": ("wave", "clap", "never")}, "received 'v0.mp4', which is 'clap' in A and 'wave' in B, and 7 more"),
        ({"decoded": [0, 1, 1, 1, 1, 1, 1, 0]},
         "a clip must have been decoded in both runs or in neither, received 2 only in A ('v0.mp4', 'v7.mp4')."),
    ],
)  # fmt: skip
def test_runs_on_different_clips_are_refused_by_name(change, sentence):
    with pytest.raises(ValueError) as caught:
        compare_judged(judged("A", RIGHT_A), judged("B", RIGHT_B, **change))
    assert sentence in str(caught.value)


def test_a_set_that_is_part_of_the_other_is_refused_from_both_sides():
    whole, part = judged("A", RIGHT_A), judged("B", RIGHT_B[:6], LABELS[:6])
    for pair in ((whole, part), (part, whole)):
        with pytest.raises(ValueError, match=r"received 2 only in A \('v6.mp4', 'v7.mp4'\)\."):
            compare_judged(*pair)


# Files.


def test_what_is_written_is_read_as_top1_counts_it(tmp_path):
    decoded = [1, 1, 1, 1, 1, 0, 1, 1]
    names = ["手.mp4", "two\nlines", *NAMES[2:]]
    predictions = predict(RIGHT_A, decoded=decoded)
    path = write_report(tmp_path / "run" / "eval", predictions, {}, CLASSES, clip_names=names)["predictions.npz"]
    for run in (tmp_path / "run", tmp_path / "run" / "eval", path):
        one = read_judged(run)
        assert one.run == str(run)
        assert one.class_names == CLASSES
        assert one.clip_names == tuple(names)
        np.testing.assert_array_equal(one.labels, LABELS)
        np.testing.assert_array_equal(one.decoded, np.array(decoded, bool))
        np.testing.assert_array_equal(one.correct, np.array(RIGHT_A, bool))  # the sixth is wrong anyway
    # A clip without a prediction has the scores 0, whose highest is class 0's: it must not count as a clap.
    path = write(tmp_path / "blind", [1, 1], labels=[0, 1], decoded=[0, 1])
    assert read_judged(path).correct.tolist() == [False, True]


def test_two_files_are_compared(tmp_path):
    write(tmp_path / "a" / "eval", RIGHT_A)
    write(tmp_path / "b", RIGHT_B)
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    expected = compare_judged(judged(str(tmp_path / "a"), RIGHT_A), judged(str(tmp_path / "b"), RIGHT_B))
    assert found == expected


def test_a_folder_without_an_evaluation_or_with_two_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold predictions.npz or eval/predictions.npz, received .*empty, which"):
        read_judged(tmp_path / "empty")
    write(tmp_path / "eval", RIGHT_A)
    write(tmp_path, RIGHT_A)
    with pytest.raises(ValueError, match="must hold one evaluation, received"):
        read_judged(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "flipped", "npy", "pickled"])
def test_a_damaged_file_is_one_sentence(tmp_path, damage):
    path = write(tmp_path, RIGHT_A)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage in ("text", "empty"):
        path.write_text("not an archive" * (damage == "text"))
    elif damage == "flipped":
        place = data.index(b"labels.npy") + 165  # among the labels
        data[place] ^= 0xFF
        path.write_bytes(data)
    elif damage == "npy":
        with open(path, "wb") as file:
            np.save(file, np.arange(3))
    else:
        with np.load(path) as arrays:
            np.savez(path, **{**arrays, "names": np.array([{}] * 8, object)})
    with pytest.raises(
        ValueError, match=r"must hold the predictions of an evaluation, received .*predictions\.npz"
    ) as e:
        read_judged(tmp_path)
    assert "\n" not in str(e.value)
    assert "pickle" not in str(e.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": None}, "it has no labels: 'jaxvid eval' writes them"),
        ({"labels": np.arange(8)}, r"labels must be in [0, 3), received 0 to 7"),
        ({"labels": np.zeros(7, int)}, "its arrays must have the shapes"),
        ({"decoded": np.ones(8, int)}, "decoded must be bool, received int64"),
        ({"labels": np.zeros(8)}, "labels must be integers, received float64"),
        ({"scores": np.full((8, 3), 1j)}, "scores must be floating-point numbers, received complex128"),
        ({"names": np.arange(8)}, "names must be text, received int64"),
        ({"scores": np.full((8, 3), np.nan)}, "scores must be finite"),
        ({"class_names": np.array(["a", "a", "b"])}, "class_names must differ"),
    ],
)
def test_a_file_that_no_evaluation_wrote_is_refused(tmp_path, change, sentence):
    path = write(tmp_path, RIGHT_A)
    with np.load(path) as arrays:
        new = {name: values for name, values in {**arrays, **change}.items() if values is not None}
    np.savez(path, **new)
    with pytest.raises(ValueError) as caught:
        read_judged(path)
    assert sentence in str(caught.value)


def test_a_comparison_is_frozen():
    found = compare_judged(judged("A", RIGHT_A), judged("B", RIGHT_B))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.both = 5  # type: ignore[misc]
