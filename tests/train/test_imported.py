"""Weights from elsewhere become a run that evaluates and is trained further, or nothing at all."""

import copy
import hashlib
import json
import os
import pickle
import re
import zipfile

import flax.traverse_util
import jax
import numpy as np
import pytest

from jaxvid import cli, models
from jaxvid.models.convert import torch_key
from jaxvid.models.cost import variable_shapes
from jaxvid.train import evaluate_run, leaves, load_run
from jaxvid.train.checkpoint import Checkpointer
from jaxvid.train.imported import import_weights

CLASSES = ("clap", "bend", "wave")


def state_dict(name, num_classes=3, **options):
    """A small network's arrays by the names of the code that published it."""
    model = models.build(name, num_classes, **options)
    rng = np.random.default_rng(0)
    arrays = {}
    for path, leaf in flax.traverse_util.flatten_dict(dict(variable_shapes(model))).items():
        array = rng.uniform(0.5, 1.5, leaf.shape) if path[-1] == "var" else 0.1 * rng.standard_normal(leaf.shape)
        order = (4, 3, 0, 1, 2) if array.ndim == 5 else tuple(reversed(range(array.ndim)))
        arrays[f"module.{torch_key(name, model, path)}"] = array.transpose(order).astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet.npz"
    np.savez(path, **state_dict("resnet3d_18_hara", width=2))
    (path.parent / "names.txt").write_text("\n".join(CLASSES))
    return path


@pytest.fixture(scope="module")
def imported(weights, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    return import_weights(weights, "resnet3d_18_hara", output, class_names=weights.parent / "names.txt")


def test_it_is_an_ordinary_run(imported, weights):
    run = load_run(imported.run)
    assert (run.step, run.class_names, run.config) == (0, CLASSES, imported.config)
    assert (run.config.model.name, run.config.model.width) == ("resnet3d_18_hara", 2)
    given = state_dict("resnet3d_18_hara", width=2)
    np.testing.assert_array_equal(
        run.variables["params"]["stem"]["conv"]["kernel"], given["module.conv1.weight"].transpose(2, 3, 4, 1, 0)
    )
    logits = run.apply(run.variables, np.zeros((1, 16, 32, 32, 3), np.uint8))
    assert logits.shape == (1, 3)
    assert np.isfinite(logits).all()


def test_it_says_where_the_weights_come_from(imported, weights):
    told = json.loads((imported.run / "provenance.json").read_text())
    assert told == imported.provenance
    assert told["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (told["weights"], told["names_of"], told["model"]) == ("resnet.npz", "Hara", "resnet3d_18_hara")
    assert told["bytes"] == weights.stat().st_size
    assert {"jax", "jaxvid"} <= set(told["versions"])
    assert all(key.endswith("num_batches_tracked") for key in told["ignored"])


def test_weights_are_not_copied_before_they_are_written(weights, tmp_path, monkeypatch):
    """What Orbax is given are views of the converted arrays, whose deep copy is no copy."""
    seen = []

    def save(self, step, state, meta, *, lean):
        seen.extend(jax.tree.leaves(state.params))
        return original(self, step, state, meta, lean=lean)

    def copied(array):
        copies.append(copy.deepcopy(array) is array)
        return array

    copies, original = [], Checkpointer.save
    monkeypatch.setattr(Checkpointer, "save", save)
    unchanging = leaves.unchanging
    monkeypatch.setattr(leaves, "unchanging", lambda found: {path: copied(a) for path, a in unchanging(found).items()})
    import_weights(weights, "resnet3d_18_hara", tmp_path / "run")
    assert seen
    assert copies
    assert all(copies)


def test_preprocessing_is_that_of_the_code(imported, tmp_path):
    """Hara's networks see RGB with their own mean; those of the SRTG authors see BGR."""
    data = imported.config.data
    assert (data.color, data.num_frames, data.crop_size) == ("RGB", 16, 112)
    np.savez(tmp_path / "x.npz", **state_dict("srtg_r3d_18", width=2, cell="gru", num_layers=1))
    run = load_run(import_weights(tmp_path / "x.npz", "srtg_r3d_18", tmp_path / "run").run)
    assert run.config.data.color == "BGR"
    assert (run.config.model.srtg.cell, run.config.model.srtg.num_layers) == ("gru", 1)
    assert run.class_names == ("class 0", "class 1", "class 2")
    video = np.random.default_rng(0).integers(0, 256, (1, 4, 16, 16, 3), np.uint8)
    pixels = (video[..., ::-1] / 255 - np.array(run.config.data.mean)) / np.array(run.config.data.std)
    expected = jax.jit(lambda v, x: run.model.apply(v, x, train=False))(run.variables, pixels.astype(np.float32))
    np.testing.assert_allclose(run.apply(run.variables, video), expected, rtol=1e-5, atol=1e-5)


def test_it_is_evaluated_like_any_other(imported, videos, tmp_path):
    overrides = {"data.root": str(videos), "data.num_frames": 4, "eval.short_side": 24, "eval.crop_size": 24}
    done = evaluate_run(imported.run, tmp_path, overrides)
    assert done.metrics["num_clips"] == 6
    assert (tmp_path / "predictions.npz").exists()


def test_names_beside_the_weights_are_found(weights, tmp_path):
    (tmp_path / "w.npz").write_bytes(weights.read_bytes())
    (tmp_path / "label_map.txt").write_text("a\nb\nc\n")
    assert import_weights(tmp_path / "w.npz", "resnet3d_18_hara", tmp_path / "run").class_names == ("a", "b", "c")
    other = import_weights(tmp_path / "w.npz", "resnet3d_18_hara", tmp_path / "more", num_classes=4)
    assert other.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert "params/head/classifier/kernel" in other.provenance["filled"]


@pytest.mark.parametrize("text", ['["x", "y", "z"]', '{"y": 1, "z": 2, "x": 0}'])
def test_names_may_be_json(weights, tmp_path, text):
    (tmp_path / "names.json").write_text(text)
    done = import_weights(weights, "resnet3d_18_hara", tmp_path / "run", class_names=tmp_path / "names.json")
    assert done.class_names == ("x", "y", "z")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("n.txt", "a\nb\n", r"--class_names must hold 3 different names, .* received 2 in .*n\.txt\."),
        ("n.txt", "a\nb\nb\n", r"3 different names, .* received 2"),
        ("n.json", "[1, 2, 3]", r"a JSON list of names or \{name: index\}"),
        ("n.json", '{"a": 0, "b": 5, "c": 1}', r"a JSON list of names or"),
        ("n.json", "[", r"valid JSON"),
    ],
)
def test_wrong_names_leave_nothing(weights, tmp_path, file, text, message):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        import_weights(weights, "resnet3d_18_hara", tmp_path / "run", class_names=tmp_path / file)
    assert os.listdir(tmp_path) == [file]


def test_golden_logits_are_compared(imported, weights, tmp_path):
    run = load_run(imported.run)
    video = np.random.default_rng(0).standard_normal((1, 4, 16, 16, 3)).astype(np.float32)
    logits = np.asarray(run.model.apply(run.variables, video, train=False))
    np.savez(tmp_path / "golden.npz", video=video, logits=logits + 0.5)
    done = import_weights(weights, "resnet3d_18_hara", tmp_path / "run", golden=tmp_path / "golden.npz")
    assert done.provenance["golden"]["max_abs_difference"] == pytest.approx(0.5, abs=1e-4)
    np.savez(tmp_path / "golden.npz", video=video)
    with pytest.raises(ValueError, match=r"--golden must hold the arrays video and logits, received \['video'\]"):
        import_weights(weights, "resnet3d_18_hara", tmp_path / "other", golden=tmp_path / "golden.npz")


class Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def _hostile(path, mark):
    path.write_bytes(pickle.dumps({"state_dict": {"fc.weight": Hostile(f"touch {mark}")}}))


def _truncated(path, mark):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 1000)
    path.write_bytes(path.read_bytes()[:500])


def _other_network(path, mark):
    np.savez(path.open("wb"), **state_dict("r2plus1d_18", width=2))


def _with_nan(path, mark):
    arrays = state_dict("resnet3d_18_hara", width=2)
    arrays["module.layer4.1.bn2.running_mean"][3] = np.nan
    np.savez(path.open("wb"), **arrays)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_hostile, r"error: .*weights\.pth names '.*system', .* was refused, and nothing was executed\.$"),
        (_truncated, r"error: .*weights\.pth is a truncated zip file: .*\.$"),
        (_other_network, r"error: the arrays must be exactly those of 'resnet3d_18_hara', received \d+ missing.*\.$"),
        (
            _with_nan,
            r"error: the arrays .* be finite, received NaN .* in layer4\.1\.bn2\.running_mean \(1 of 16\)\.$",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(write, message, tmp_path, capsys):
    path, mark = tmp_path / "weights.pth", tmp_path / "executed"
    write(path, mark)
    words = ["convert", f"--weights={path}", "--model=resnet3d_18_hara", f"--output={tmp_path / 'runs' / 'run'}"]
    assert cli.main(words) == 1
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert re.match(message, error), error
    assert os.listdir(tmp_path) == ["weights.pth"]


def test_a_save_that_fails_leaves_nothing(weights, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxvid.train.imported.Checkpointer.save", fail)
    with pytest.raises(OSError, match="No space left"):
        import_weights(weights, "resnet3d_18_hara", tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_in_use_is_left_alone(imported, weights):
    with pytest.raises(ValueError, match=r"--output must be a new or an empty folder, received .*run\."):
        import_weights(weights, "resnet3d_18_hara", imported.run)


def test_the_command_tells_what_it_did(weights, tmp_path, capsys):
    words = ["convert", f"--weights={weights}", "--model=resnet3d_18_hara", f"--output={tmp_path / 'run'}"]
    assert cli.main([*words, f"--class_names={weights.parent / 'names.txt'}"]) == 0
    told = capsys.readouterr().out
    assert "resnet.npz, by the names of Hara" in told
    assert "3 classes (clap, ...)" in told
    assert f"next: jaxvid eval --checkpoint={tmp_path / 'run'}" in told
    assert cli.main([*words[:2], "--model=resnet3d_18_harra", words[3]]) == 1
    assert "did you mean 'resnet3d_18_hara'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fast_r18", "u2s_resnet_50"])
def test_a_network_without_published_weights_is_one_sentence(name, weights, tmp_path, capsys):
    assert cli.main(["convert", f"--weights={weights}", f"--model={name}", f"--output={tmp_path / 'run'}"]) == 1
    assert re.fullmatch(rf"error: model must be a network of which .* \('{name}'\)\.\n", capsys.readouterr().err)
