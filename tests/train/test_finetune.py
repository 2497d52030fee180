"""Runs that start from other weights and train parts of the network only."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from jaxvid.evaluation import compare_runs
from jaxvid.nn.mtconv import MTConv
from jaxvid.train import evaluate_run, finetune, load_run, step_folder, train
from jaxvid.train.optim import make_optimizer
from jaxvid.train.state import create_state
from jaxvid.train.writers import LoggingProgress

LAST = ("stage4", "head")


@pytest.fixture(scope="module")
def source(tiny, tmp_path_factory):
    return train(tiny(**{"train.max_steps": 2}), tmp_path_factory.mktemp("source")).workdir


def parts(run, collection):
    """Part of the network -> its leaves."""
    return {name: jax.tree.leaves(tree) for name, tree in run.variables[collection].items()}


def moved(before, after):
    """The parts of which any leaf differs."""
    return {
        name for name in before if any((a != b).any() for a, b in zip(before[name], after[name], strict=True))
    }  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tiny, source, tmp_path_factory):
    fields = {"finetune.weights": str(source), "finetune.trainable": LAST, "train.max_steps": 2}
    fields |= {"optimizer.weight_decay": 0.1, "optimizer.momentum": 0.9, "optimizer.ema_decay": 0.99}
    return train(tiny(**fields), tmp_path_factory.mktemp("tuned")).workdir


def test_only_the_named_parts_move(source, tuned):
    """Neither by a gradient nor by weight decay; nor do the running statistics of the others."""
    before, after = load_run(source), load_run(tuned)
    assert moved(parts(before, "params"), parts(after, "params")) == set(LAST)
    assert moved(parts(before, "batch_stats"), parts(after, "batch_stats")) == {"stage4"}


def test_the_optimizer_keeps_nothing_of_the_others(tuned):
    (step,) = [path for path in (tuned / "checkpoints").iterdir() if path.name == "2"]
    kept = [path for path in step_folder.read_record(step)["items"]["opt_state"] if "kernel" in path]
    assert kept
    assert all("stage4" in path or "head" in path for path in kept)


def test_without_named_parts_everything_moves(tiny, source, tmp_path):
    config = tiny(**{"finetune.weights": str(source), "train.max_steps": 1})
    after = load_run(train(config, tmp_path).workdir)
    assert moved(parts(load_run(source), "params"), parts(after, "params")) == set(after.variables["params"])


def test_frozen_parts_normalise_as_in_evaluation(source):
    run = load_run(source)
    video = np.random.default_rng(0).standard_normal((2, 4, 16, 16, 3)).astype(np.float32)

    def outputs(train):
        _, state = run.model.apply(
            run.variables, video, train=train, mutable=["intermediates", "batch_stats"],
            capture_intermediates=lambda module, _: module.name in ("stage3", "stage4"),
        )  # fmt: skip
        return {name: value["__call__"][0] for name, value in state["intermediates"].items()}

    with finetune.frozen_as_in_evaluation(LAST):
        ours = outputs(train=True)
    evaluation, training = outputs(train=False), outputs(train=True)
    np.testing.assert_array_equal(ours["stage3"], evaluation["stage3"])
    assert np.abs(ours["stage4"] - evaluation["stage4"]).max() > 1e-3
    assert np.abs(training["stage3"] - evaluation["stage3"]).max() > 1e-3


class Pooling(nn.Module):
    """Two MTConvs that draw what they pool."""

    @nn.compact
    def __call__(self, x, train):
        first = MTConv(8, (1, 1, 1), delta=0.5, pool="stochastic", name="first")(x, train)
        return first, MTConv(8, (1, 1, 1), delta=0.5, pool="stochastic", name="second")(first, train)


def test_frozen_parts_do_not_draw_what_they_pool():
    network, x = Pooling(), jax.random.uniform(jax.random.key(0), (2, 4, 8, 8, 8))
    variables = network.init({"params": jax.random.key(1), "pool": jax.random.key(2)}, x, True)

    def outputs(train, key=0):
        with finetune.frozen_as_in_evaluation(("second/norm_local",)):
            return network.apply(variables, x, train, rngs={"pool": jax.random.key(key)}, mutable=["batch_stats"])[0]

    (first, second), (again, other), (evaluated, _) = outputs(True, 1), outputs(True, 2), outputs(False)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, evaluated)
    assert np.abs(second - other).max() > 1e-3  # of the second one a part is trained


def test_other_classes_get_a_classifier_of_their_own(tiny, source, videos, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "videos" / split).mkdir(parents=True)
        for name in ("bend", "wave"):
            (tmp_path / "videos" / split / name).symlink_to(videos / split / name)
    fields = {"finetune.weights": str(source), "finetune.trainable": ("head",), "train.max_steps": 1}
    fields |= {"train.batch_size": 4, "data.root": str(tmp_path / "videos")}
    run = load_run(train(tiny(**fields), tmp_path / "run").workdir)
    assert run.class_names == ("bend", "wave")
    assert run.variables["params"]["head"]["classifier"]["kernel"].shape == (16, 2)
    before = load_run(source)
    np.testing.assert_array_equal(
        run.variables["params"]["stem"]["conv"]["kernel"], before.variables["params"]["stem"]["conv"]["kernel"]
    )


class Messages(LoggingProgress):
    """Keeps what a person would read."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def message(self, text):
        self.texts.append(text)


def kept_moments(run):
    """Parts of the network of which the optimizer's state has a leaf."""
    (step,) = [path for path in (run / "checkpoints").iterdir() if path.name == "1"]
    paths = [path.split("/") for path in step_folder.read_record(step)["items"]["opt_state"] if "kernel" in path]
    known = {*finetune.BLOCKS, "class_regularization"}
    return {next(part for part in path if part in known) for path in paths}


# The three ways to train with Class Regularization; the second one has a test of its own below.
@pytest.mark.slow
@pytest.mark.parametrize("trainable", [(), ("class_regularization", "stage3", "stage4")])
def test_with_class_regularization_what_is_frozen_stays_bit_for_bit(tiny, source, tmp_path, trainable):
    """In the parameters, their average, the statistics of BatchNorm, and what the optimizer keeps: nothing."""
    fields = {"finetune.trainable": trainable, "train.max_steps": 1, "model.class_regularization.enabled": True}
    fields |= {"optimizer.weight_decay": 0.1, "optimizer.ema_decay": 0.99, "optimizer.learning_rate": 1.0}
    if trainable:
        fields["finetune.weights"] = str(source)
    progress = Messages()
    run = train(tiny(**fields), tmp_path, progress=progress).workdir
    after, config = load_run(run), tiny(**fields)
    parts_of_all = {*finetune.BLOCKS, "class_regularization"}
    expected = set(trainable) or parts_of_all
    if trainable:
        before = load_run(source).variables
    else:
        fresh = create_state(after.model, (4, 16, 16), optax.identity(), seed=config.train.seed, ema=False)
        before = {"params": fresh.params, "batch_stats": fresh.batch_stats}
    leaves = {name: jax.tree.leaves(tree) for name, tree in before["params"].items()}
    new = {"class_regularization"} if trainable else set()
    assert moved(leaves, parts(after, "params")) | new == expected
    leaves = {name: jax.tree.leaves(tree) for name, tree in before["batch_stats"].items()}
    assert moved(leaves, parts(after, "batch_stats")) == expected - {"class_regularization", "head"}
    assert kept_moments(run) == expected
    assert (run / "groups.txt").is_file() == bool(trainable)
    assert any(text.startswith("group ") for text in progress.texts) == bool(trainable)


@pytest.mark.slow
def test_class_regularization_is_added_to_weights_without_it(tiny, source, tmp_path):
    """It alone is trained; all that was there stays as it was, bit for bit; a table says so before the first step."""
    fields = {"finetune.weights": str(source), "finetune.trainable": ("class_regularization",), "train.max_steps": 1}
    fields |= {"model.class_regularization.enabled": True, "optimizer.learning_rate": 1.0}
    config, progress = tiny(**fields), Messages()
    result = train(config, tmp_path, progress=progress)
    after, before = load_run(tmp_path), load_run(source)
    (table,) = [text for text in progress.texts if text.startswith("group ")]
    assert (tmp_path / "groups.txt").read_text() == f"{table}\n"
    rows = [line.split() for line in table.splitlines()[1:]]
    assert [row[0] for row in rows] == [*finetune.BLOCKS, "class_regularization", "total"]
    assert [row[2] for row in rows] == ["no"] * 6 + ["yes", str(16 * (2 + 4 + 8 + 16))]
    assert rows[-2] == ["class_regularization", "480", "yes", "1", "1"]
    assert kept_moments(tmp_path) == {"class_regularization"}
    done = evaluate_run(tmp_path)
    guessed = {name for name in result.metrics if name.startswith("guess/")}
    assert guessed == {f"guess/stage{number}/top1" for number in (1, 2, 3, 4)}
    assert all(done.metrics[name] == result.metrics[name] for name in guessed)
    assert [line.split()[0] for line in done.guess_table.splitlines()][1:6] == [
        *(f"stage{number}" for number in (1, 2, 3, 4)), "network"]  # fmt: skip
    assert compare_runs(done.output / "guesses" / "stage4", tmp_path).num_clips == 6
    progress = Messages()
    train(config, tmp_path, progress=progress)  # which is complete: there is no first step
    assert not any(text.startswith("group ") for text in progress.texts)
    for collection in ("params", "batch_stats"):
        ours = {name: tree for name, tree in after.variables[collection].items() if name != "class_regularization"}
        jax.tree.map(np.testing.assert_array_equal, ours, dict(before.variables[collection]))
    optimizer = make_optimizer(config.optimizer, lambda step: 1.0)
    fresh = create_state(after.model, (4, 16, 16), optimizer, seed=config.train.seed, ema=False)
    started, message = finetune.start_from(fresh, config, before.class_names)
    stages = ("stage1", "stage2", "stage3", "stage4")
    assert message.endswith(f"; new: {', '.join(f'class_regularization/{stage}/kernel' for stage in stages)}.")
    drawn, trained = started.params["class_regularization"], after.variables["params"]["class_regularization"]
    for stage in stages:
        np.testing.assert_array_equal(drawn[stage]["kernel"], fresh.params["class_regularization"][stage]["kernel"])
        assert (drawn[stage]["kernel"] != trained[stage]["kernel"]).any()


@pytest.mark.slow
def test_a_run_that_goes_on_starts_from_itself(tiny, source, tmp_path):
    fields = {"finetune.weights": str(source), "train.num_epochs": 2.0}
    whole = load_run(train(tiny(**fields), tmp_path / "whole").workdir)
    assert whole.step == 4
    again = load_run(train(tiny(**fields), tmp_path / "whole").workdir)
    jax.tree.map(np.testing.assert_array_equal, whole.variables, again.variables)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.width": 4}, r"finetune\.weights must be of this network, whose .* received \["),
        ({"data.mean": (0.5, 0.5, 0.5)}, r"data\.mean must be \[0\.45, 0\.45, 0\.45\], as the weights of .* saw it"),
        ({"data.color": "BGR"}, r"data\.color must be RGB, as the weights of"),
        ({"finetune.trainable": ("stage5",)}, r"finetune\.trainable must name parts .*, stem; .* received 'stage5'\."),
    ],
)
def test_what_does_not_fit_is_named(tiny, source, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        train(tiny(**{"finetune.weights": str(source)}, **fields), tmp_path)


def test_weights_that_are_not_there(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds none"):
        train(tiny(**{"finetune.weights": str(tmp_path / "nowhere")}), tmp_path / "run")
