"""``jaxvid explain``: what it writes of a U2S run, that its numbers are those of an evaluation, and what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import cli, config, evaluation
from jaxvid.data.decode import VideoReader
from jaxvid.explain import EXPLAINERS, PICTURES
from jaxvid.inference import explain, explain_u2s
from jaxvid.inference.explain import explain_run
from jaxvid.train import assemble
from jaxvid.train.run import Run
from jaxvid.train.step import make_apply

CLASSES = ('bend, "then"\nclap', "clap", "wave")


@pytest.fixture(scope="module")
def u2s_run(videos):
    """A small U2S network with drawn weights on the evaluation's six videos; the first two classes are confused."""
    fields = {
        "model.name": "resnet2d_18",
        "model.width": 2,
        "model.conv": "direct",
        "model.u2s.enabled": True,
        "data.name": "folder",
        "data.root": str(videos),
        "data.num_frames": 3,
        "data.short_side": (40, 40),
        "data.crop_size": 40,
        "eval.short_side": 40,
        "eval.crop_size": 40,
        "eval.batch_size": 4,
        "train.mesh": (("data", 1),),
    }
    return make_run(config.load({}, fields))


def make_run(config):
    model = assemble.build_model(config, len(CLASSES))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 3, 40, 40, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape).astype(np.float32), shapes)
    variables["batch_stats"] = jax.tree.map(lambda leaf: np.abs(leaf) + 0.5, variables["batch_stats"])
    if "confusing" in variables["batch_stats"].get("u2s", {}):
        variables["batch_stats"]["u2s"]["confusing"] = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], np.float32)
    apply = make_apply(model, mean=(0.45,) * 3, std=(0.225,) * 3)
    return Run(config.model.name, 7, config, CLASSES, model, apply, variables)


@pytest.fixture
def read(u2s_run, monkeypatch):
    """Every checkpoint is this run; or that of ``read(run)``, by its path."""
    runs = {}

    def load(checkpoint, overrides=None, *, best=False):
        return dataclasses.replace(runs.get(str(checkpoint), u2s_run), checkpoint=Path(checkpoint))

    monkeypatch.setattr(explain, "load_run", load)
    monkeypatch.setattr(explain_u2s, "load_run", load)
    return runs


def variant(run, **fields):
    u2s = dataclasses.replace(run.config.model.u2s, **fields)
    return make_run(dataclasses.replace(run.config, model=dataclasses.replace(run.config.model, u2s=u2s)))


def test_every_method_says_what_it_takes_and_how_it_is_collected():
    assert set(explain.TAKES) == {*EXPLAINERS, *PICTURES}
    assert set(explain._COLLECT) == set(PICTURES)
    assert not set(EXPLAINERS) & set(PICTURES)


def test_masks_of_named_videos(read, u2s_run, videos, tmp_path, capsys):
    clip = videos / "val" / "clap" / "0.mp4"
    (tmp_path / "broken.mp4").write_text("no video")
    words = ["explain", "RUN", str(clip), "--method=u2s_masks", f"--output={tmp_path / 'out'}"]
    assert cli.main([*words, str(clip), str(tmp_path / "broken.mp4"), f"--classes=wave,{CLASSES[1]}"]) == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == "1 videos could not be decoded:"
    assert out.splitlines()[-1].startswith(f"results: {tmp_path / 'out'} (")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"0{n}.{suffix}" for n in ("-2", "") for suffix in ("mp4", "npz", "png")] + ["u2s_masks.json"]
    told = json.loads((tmp_path / "out" / "u2s_masks.json").read_text())
    assert [each["path"] for each in told["videos"]] == [str(clip)] * 2
    assert [each["path"] for each in told["errors"]] == [str(tmp_path / "broken.mp4")]
    video = told["videos"][0]
    assert video["true"] is None
    assert list(video["predictions"]) == ["universal", "mask", "specific", "final"]
    assert video["confused_with"] == video["predictions"]["universal"]["class"]
    assert [each["class"] for each in video["maps"]] == [None, "wave", "clap"]
    with np.load(tmp_path / "out" / "0.npz") as arrays:
        assert arrays["video"].shape == (3, 40, 40, 3)
        assert arrays["maps"].shape == (3, 40, 40, 3)
        for drawn, each in zip(np.moveaxis(arrays["maps"], -1, 0), video["maps"], strict=True):
            assert (drawn.min(), drawn.max()) == pytest.approx((each["min"], each["max"]))
    with VideoReader(tmp_path / "out" / "0.mp4") as reader:
        assert reader.times.tolist() == pytest.approx([0, 1 / 8, 2 / 8])


@pytest.mark.slow
def test_masks_of_the_evaluation_are_those_of_the_confused_classes(read, u2s_run, tmp_path):
    done = explain_run("RUN", "u2s_masks", tmp_path, num_videos=3)
    told = json.loads((tmp_path / "u2s_masks.json").read_text())
    assert [each["path"].split("/")[1] for each in told["videos"]] == sorted(CLASSES), "spread over the classes"
    assert [each["true"] for each in told["videos"]] == [each["path"].split("/")[1] for each in told["videos"]]
    assert len(done.lines) == 3
    for each in told["videos"]:
        among = CLASSES[:2] if each["confused_with"] in CLASSES[:2] else CLASSES[2:]
        assert each["averaged"] == {name: pytest.approx(1 / len(among)) for name in among}
        stem = each["files"][0].removesuffix(".png")
        with np.load(tmp_path / f"{stem}.npz") as arrays:
            np.testing.assert_allclose(
                arrays["maps"][..., 0], arrays["maps"][..., 1:].mean(axis=-1), rtol=1e-5, atol=1e-4
            )


@pytest.mark.slow
def test_similarity_tells_the_accuracies_of_an_evaluation(read, u2s_run, tmp_path):
    read["PLAIN"] = variant(u2s_run, enabled=False)
    done = explain_run("RUN", "u2s_similarity", tmp_path, against="PLAIN")
    told = json.loads((tmp_path / "u2s_similarity.json").read_text())
    assert list(told["networks"]) == ["one-pass", "universal", "specific", "fused"]
    assert [path.name for path in done.files] == ["u2s_similarity.png", "u2s_similarity.json"]
    dataset = assemble.open_dataset(u2s_run.config, "val").relabelled(CLASSES)
    asked = explain_u2s.Asked(u2s_run, tmp_path, explain.LoggingProgress(), {})
    predictions = explain_u2s._predictions(asked, u2s_run, dataset)
    networks = evaluation.network_predictions(predictions) | {"fused": predictions}
    for name in ("universal", "specific", "fused"):
        rows = evaluation.per_class(networks[name], CLASSES)
        assert list(told["networks"][name]["accuracy"].values()) == [row["accuracy"] for row in rows]
    for network in told["networks"].values():
        assert all(0 <= value <= 1 for value in network["average_similarity"].values())
        assert len(network["accuracy"]) == 3


@pytest.mark.slow
def test_a_run_without_its_first_stage_has_no_one_pass_network(read, tmp_path):
    done = explain_run("RUN", "u2s_similarity", tmp_path)
    assert done.lines[-1] == "one-pass: left out, since RUN has no stage 'universal' and no against was given"
    told = json.loads((tmp_path / "u2s_similarity.json").read_text())
    assert list(told["networks"]) == ["universal", "specific", "fused"]


def test_weights_of_one_run_and_of_two(read, u2s_run, tmp_path):
    read["other/run"] = variant(u2s_run, variant="no_mask")
    done = explain_run("RUN", "u2s_weights", tmp_path)
    told = json.loads((tmp_path / "u2s_weights.json").read_text())["classifiers"]
    assert list(told) == ["specific classifier", "mask network"]
    assert len(done.lines) == 2
    explain_run("RUN", "u2s_weights", tmp_path, against="other/run")
    told = json.loads((tmp_path / "u2s_weights.json").read_text())
    assert list(told["classifiers"]) == ["specific classifier"], "what both have"
    assert list(told["classifiers"]["specific classifier"]) == [f"{Path.cwd().name}/RUN", "other/run"]
    assert sorted(told["classes"]) == ["clap", "class 0", "wave"], "a name with a line break is its number"


@pytest.mark.slow
def test_tsne_of_two_classes_and_of_the_most_confused(read, u2s_run, videos, tmp_path):
    root = tmp_path / "videos"
    for name in CLASSES:
        (root / "val" / name).mkdir(parents=True)
        (root / "train" / name).mkdir(parents=True)
        for n in range(2):
            for copy in range(2):
                shutil.copy(videos / "val" / name / f"{n}.mp4", root / "val" / name / f"{n}{copy}.mp4")
        shutil.copy(videos / "val" / name / "0.mp4", root / "train" / name / "0.mp4")
    data = dataclasses.replace(u2s_run.config.data, root=str(root))
    read["RUN"] = dataclasses.replace(u2s_run, config=dataclasses.replace(u2s_run.config, data=data))
    explain_run("RUN", "u2s_tsne", tmp_path, classes=[CLASSES[0], "wave"])
    told = json.loads((tmp_path / "u2s_tsne.json").read_text())
    assert told["classes"] == ["class 0", "wave"]
    points = told["networks"]["specific"]["points"]
    assert len(points) == 8
    assert {point["clip"].split("/")[1] for point in points} == {CLASSES[0], "wave"}
    explain_run("RUN", "u2s_tsne", tmp_path)
    again = json.loads((tmp_path / "u2s_tsne.json").read_text())
    assert len(set(again["classes"])) == 2
    assert list(again["networks"]) == ["universal", "specific"]


def test_the_most_confused_pair():
    labels = np.array([0, 0, 1, 1, 2, 2])
    guesses = np.array([0, 2, 1, 1, 0, 1])
    scores = np.eye(3, dtype=np.float32)[guesses]
    predictions = evaluation.Predictions(np.arange(6), labels, np.ones(6, bool), scores[:, None], scores)
    assert explain_u2s.most_confused_pair(predictions) == [0, 2]
    np.testing.assert_array_equal(explain_u2s.class_accuracies(predictions), [0.5, 1, 0])
    right = dataclasses.replace(predictions, labels=guesses)
    with pytest.raises(ValueError, match="classes must be given where the universal network confuses none"):
        explain_u2s.most_confused_pair(right)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["--method=u2s_mask"], 1, "error: method must be one of u2s_masks, u2s_similarity, u2s_tsne, u2s_weights, "),
        (["--method=u2s_weights", "--top=3"], 1, "error: top may be given to u2s_masks, received top=3 for u2s_wei"),
        (["--method=u2s_masks", "--top=0"], 1, "error: top must be >= 1, received top=0."),
        (["--method=u2s_masks", "x.mp4", "--num_videos=2"], 1, "error: num_videos is of the evaluation's videos, and"),
        (["--method=u2s_masks", "--classes=wave,jump"], 1, "error: classes must be among the run's (bend"),
        (["--method=u2s_tsne", "--classes=wave"], 1, "error: u2s_tsne must be given 2 different classes, received wa"),
        (["--method=u2s_tsne", "clip.mp4"], 1, "error: videos may be given to u2s_masks, received videos="),
        (["--method=u2s_masks", "no.mp4"], 1, "error: a video must be a file or a folder, received 'no.mp4'"),
        (["--method=u2s_masks", "--tpo=3"], 2, "jaxvid explain has no option --tpo. Did you mean --top?"),
        ([], 2, "jaxvid explain: the following arguments are required: --method"),
    ],
)
def test_what_is_wrong_is_one_sentence(read, words, status, sentence, capsys, tmp_path):
    assert cli.main(["explain", "RUN", *words, f"--output={tmp_path}"]) == status
    out, err = capsys.readouterr()
    assert err.startswith(sentence)
    assert out == ""


def test_runs_of_which_a_method_has_nothing_to_say(read, u2s_run, tmp_path):
    read["PLAIN"] = variant(u2s_run, enabled=False)
    read["ORACLE"] = variant(u2s_run, oracle=True)
    read["OTHER"] = dataclasses.replace(u2s_run, class_names=("a", "b", "c"))
    for method in explain.TAKES:
        with pytest.raises(ValueError, match=rf"{method} explains a run with model.u2s.enabled=true, received PLAIN"):
            explain_run("PLAIN", method, tmp_path)
    with pytest.raises(ValueError, match=r"model\.u2s\.oracle must be false with videos that are named"):
        explain_run("ORACLE", "u2s_masks", tmp_path, videos=[__file__])
    with pytest.raises(ValueError, match="against must be a run of the same 3 classes in the same order, received OTH"):
        explain_run("RUN", "u2s_weights", tmp_path, against="OTHER")
    read["AGAIN"] = u2s_run
    with pytest.raises(
        ValueError, match=r"against must be a run with model\.u2s\.enabled=false for u2s_similarity, rece"
    ):
        explain_run("RUN", "u2s_similarity", tmp_path, against="AGAIN")


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["/a/digits/joint"], ["digits/joint"]),
        (["/a/digits/joint", "/b/digits/specific"], ["digits/joint", "digits/specific"]),
        (["/x/digits/joint", "/y/digits/joint"], ["x/digits/joint", "y/digits/joint"]),
        (["/x/digits", "/x/digits"], ["x/digits (1)", "x/digits (2)"]),
    ],
)
def test_runs_are_named_by_the_ends_of_their_paths(folders, expected):
    assert explain_u2s._named([Path(folder) for folder in folders]) == expected


@pytest.mark.slow
def test_a_variant_without_masks(read, u2s_run, tmp_path):
    read["NO_MASKS"] = variant(u2s_run, variant="no_mask")
    with pytest.raises(ValueError, match="must be given a network with masks of its classes"):
        explain_run("NO_MASKS", "u2s_masks", tmp_path, num_videos=1)


@pytest.mark.slow
def test_an_oracles_masks_are_those_of_the_true_class(read, u2s_run, tmp_path):
    read["ORACLE"] = variant(u2s_run, oracle=True)
    explain_run("ORACLE", "u2s_masks", tmp_path, num_videos=3)
    told = json.loads((tmp_path / "u2s_masks.json").read_text())["videos"]
    assert [each["confused_with"] for each in told] == [each["true"] for each in told]
