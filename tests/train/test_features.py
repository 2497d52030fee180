"""Training behind the frozen blocks: the same update as with pixels, kept files, and the stream that reads them."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from jaxvid import config as config_lib
from jaxvid import models
from jaxvid.data.clips import load_clip
from jaxvid.data.pipeline import record_key, train_batches
from jaxvid.data.quarantine import Quarantine
from jaxvid.models.class_regularized import class_regularized
from jaxvid.train import assemble, features, finetune, load_run, sharding, train
from jaxvid.train.folds import fold_config
from jaxvid.train.state import create_state
from jaxvid.train.step import make_train_step

CLIP = (4, 16, 16)
PIXELS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}


def one_step(model, trainable, batch, beginning=None):
    mesh = sharding.make_mesh((("data", 1),))
    optimizer = finetune.only(optax.sgd(0.5), trainable)
    state = create_state(model, CLIP, optimizer, seed=3, ema=False)
    step = make_train_step(
        model, optimizer, lambda step: 0.5, **PIXELS, label_smoothing=0.0, ema_decay=0.0, mesh=mesh,
        trainable=trainable, beginning=beginning,
    )  # fmt: skip
    state, metrics = step(sharding.replicate(state, mesh), sharding.put(batch, mesh))
    return jax.device_get((state.params, state.batch_stats, metrics))


@pytest.mark.parametrize(
    ("name", "options", "trainable"),
    [
        ("srtg_r3d_18", {"gate": "cyclic", "cell": "gru"}, ("stage4", "head")),
        pytest.param(
            "r3d_18", {"affection_rates": (0.7, 0.6)}, ("class_regularization",), marks=pytest.mark.slow
        ),  # of stages 3 and 4
        pytest.param("slowfast_r50_8x8", {}, ("stage4/fast", "head"), marks=pytest.mark.slow),
        pytest.param("i3d", {}, ("head",), marks=pytest.mark.slow),
        pytest.param("x3d_s", {"dtype": "bfloat16"}, ("stage4", "head"), marks=pytest.mark.slow),
    ],
)
def test_a_step_behind_the_frozen_blocks_is_the_step_with_pixels(name, options, trainable):
    """Parameters, statistics, loss; a row that could not be decoded is filled up in both."""
    fields = {"model.name": name, "model.width": 8, "finetune.trainable": trainable, "finetune.draws": 1}
    fields |= {f"data.{key}": value for key, value in PIXELS.items()}
    config = config_lib.load({}, fields)
    options = dict(options)
    rates = options.pop("affection_rates", ())
    model = models.build(name, 3, width=8, **options)
    if rates:
        model = class_regularized(name, model, affection_rates=rates)
    rng = np.random.default_rng(0)
    batch = {
        "video": rng.integers(0, 256, (3, *CLIP, 3), np.uint8),
        "label": np.array([0, 2, 1], np.int32),
        "id": np.array([5, 6, 7], np.int32),
        "mask": np.array([True, True, False]),
    }
    block = finetune.last_frozen_block(trainable, model.regularized_stages if rates else ())
    assert block == ("stage2" if rates else block)
    state = create_state(model, CLIP, optax.sgd(0.5), seed=3, ema=False)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    output = features.make_blocks(config, model, block)(variables, batch["video"])
    leaves, structure = jax.tree.flatten(output)
    behind = {"label": batch["label"], "id": batch["id"], "mask": batch["mask"]}
    behind |= {f"features{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    assert len(leaves) == (2 if name.startswith("slowfast") else 1)
    with_pixels = one_step(model, trainable, batch)
    without = one_step(model, trainable, behind, finetune.Beginning(block, structure, CLIP))
    tolerance = 2e-2 if options.get("dtype") == "bfloat16" else 1e-5
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance), without[:2], with_pixels[:2]
    )
    assert without[2]["finite"]
    np.testing.assert_allclose(without[2]["loss"], with_pixels[2]["loss"], rtol=tolerance)
    gates = {key for key in without[2] if key.startswith("gate/")}
    assert all(key.startswith(("gate/stage4", "gate/mean")) for key in gates)
    assert bool(gates) == name.startswith("srtg")


def test_a_network_that_did_look_at_the_video_is_noticed():
    """What stands for the video is NaN."""
    structure = jax.tree.structure(0)
    with finetune.Beginning("stage3", structure, CLIP).outputs({"features0": np.zeros((2, 4))}) as video:
        assert video.shape == (2, *CLIP, 3)
        assert np.isnan(video).all()


@pytest.mark.parametrize(
    ("trainable", "block"),
    [(("head",), "stage4"), (("stage4/block1", "head"), "stage3"), (("head", "stage1"), "stem")],
)
def test_training_begins_behind_the_last_frozen_block(trainable, block):
    assert finetune.last_frozen_block(trainable) == block


@pytest.mark.parametrize(
    ("trainable", "block"),
    [(("class_regularization",), "stage2"), (("head",), "stage2"), (("stage2", "class_regularization"), "stage1")],
)
def test_a_regularised_stage_follows_the_classifier(trainable, block):
    """Even where only the classifier is trained: its weights choose the factors of both stages."""
    assert finetune.last_frozen_block(trainable, ("stage3", "stage4")) == block


@pytest.mark.parametrize("trainable", [(), ("stem", "head"), ("head", "neck"), ("class_regularization",)])
def test_without_a_frozen_block_there_is_nothing_to_keep(trainable):
    with pytest.raises(
        ValueError, match=r"finetune\.trainable must name parts of stage1, .*, head with finetune\.draws"
    ):
        finetune.last_frozen_block(trainable)


@pytest.fixture
def kept(tiny, tmp_path):
    """``kept(**overrides) -> (kept features, data set, config, quarantine)`` in one folder."""

    mesh = sharding.make_mesh((("data", 1),))

    def keep(variables=None, dataset=None, **overrides):
        changing = ("stage2", "stage3", "stage4", "head")
        fields = {"finetune.trainable": changing, "finetune.draws": 3, "data.flip": True}
        config = tiny(**fields | {"data.short_side": (18, 22)} | overrides)
        dataset = dataset or assemble.open_dataset(config, "train")
        model = assemble.build_model(config, len(dataset.class_names))
        if variables is None:
            state = create_state(model, CLIP, optax.sgd(0.1), seed=0, ema=False)
            variables = {"params": state.params, "batch_stats": state.batch_stats}
        quarantine = Quarantine(tmp_path / "quarantine.jsonl", 0.5)
        done = []
        found = features.keep(
            config, model, variables, dataset, assemble.train_clips(config, dataset.class_names),
            tmp_path / "features", mesh=mesh, quarantine=quarantine,
            progress=lambda number, of: done.append((number, of)),
        )  # fmt: skip
        return found, dataset, config, done, variables, model

    return keep


def test_what_is_kept_is_what_the_blocks_make_of_each_draw(kept):
    found, dataset, config, done, variables, model = kept()
    assert (done[0], done[-1]) == ((0, 15), (15, 15))
    clips = assemble.train_clips(config, dataset.class_names)
    record = dataset[7]
    seen = dataclasses.replace(record, id=int(record_key(record)[:7], 16))
    pixels = np.stack([load_clip(seen, clips, seed=0, epoch=draw)[0] for draw in range(3)])
    assert (pixels[0] != pixels[1]).any()
    wanted = np.asarray(features.make_blocks(config, model, "stage1")(variables, pixels))
    for draw in range(3):
        (array,), label, mask = found.read(record_key(record), draw)
        np.testing.assert_allclose(array, wanted[draw], atol=1e-6)
        assert (label, mask) == (record.label, True)
    assert len(list(found.folder.iterdir())) == 15


def test_only_what_is_missing_or_damaged_is_made_again(kept):
    found, dataset, *_ = kept()
    lost, damaged = (found.path(record_key(dataset[i])) for i in (2, 11))
    whole = damaged.read_bytes()
    lost.unlink()
    damaged.write_bytes(whole[: len(whole) // 2])
    *_, done, variables, _ = kept()
    assert done[-1] == (2, 2)
    assert damaged.read_bytes() == whole
    *_, done, _, _ = kept()
    assert done == []
    fewer = dataclasses.replace(dataset, records=[dataclasses.replace(dataset[9], id=0)])
    *_, done, _, _ = kept(dataset=fewer)
    assert done == []  # the same video with another id, as in another fold
    head = {**variables["params"], "head": jax.tree.map(lambda leaf: leaf + 1, variables["params"]["head"])}
    assert kept({**variables, "params": head})[0].folder == found.folder
    stem = {**variables["params"], "stem": jax.tree.map(lambda leaf: leaf + 1, variables["params"]["stem"])}
    assert kept({**variables, "params": stem}, fewer)[0].folder != found.folder
    for change in ({"data.flip": False}, {"train.seed": 1}, {"finetune.draws": 2}, {"data.std": (0.3, 0.3, 0.3)}):
        assert kept(variables, fewer, **change)[0].folder != found.folder


def test_a_broken_video_is_named_every_time_and_never_trained_on(kept, tmp_path):
    found, dataset, *_ = kept()
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    records = [dataset[0], dataclasses.replace(dataset[1], video=str(bad), name="bad.mp4")]
    broken = dataclasses.replace(dataset, records=records)
    for _ in range(2):
        (tmp_path / "quarantine.jsonl").unlink(missing_ok=True)
        found, *_, done, _, _ = kept(dataset=broken)
        assert done[-1] == (1, 1)
        assert [json.loads(line)["path"] for line in (tmp_path / "quarantine.jsonl").open()] == [str(bad)]
    (batch,) = found.batches(broken, batch_size=4, seed=0, num_clips_total=2, position=0)
    assert dict(zip(batch["id"].tolist(), batch["mask"].tolist(), strict=True)) == {0: True, 1: False, -1: False}


def test_the_stream_is_that_of_the_pixels(kept):
    """The same videos in the same batches from any position on; epoch ``e`` has the draw ``e mod V``."""
    found, dataset, config, *_ = kept()
    clips = assemble.train_clips(config, dataset.class_names)
    span = {"batch_size": 4, "seed": 5, "num_clips_total": 62}
    with train_batches(dataset, clips, **span, position=24) as stream:
        pixels = list(stream)
    ours = list(found.batches(dataset, **span, position=24))
    assert [batch["id"].tolist() for batch in ours] == [batch["id"].tolist() for batch in pixels]
    for name in ("label", "mask"):
        np.testing.assert_array_equal([batch[name] for batch in ours], [batch[name] for batch in pixels])
    places = [(batch, row) for batch in ours for row in range(4)]
    for place in (24, 31, 60):  # in the epochs 1, 2 and 4
        batch, row = places[place - 24]
        (wanted,), *_ = found.read(record_key(dataset[int(batch["id"][row])]), (place // 15) % 3)
        np.testing.assert_array_equal(batch["features0"][row], wanted)


def test_several_hosts_are_refused(kept, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"finetune\.draws must be 0 on several hosts, received 2 hosts\."):
        kept()


def test_draws_need_frozen_blocks(tiny):
    with pytest.raises(ValueError, match=r"finetune\.draws must be 0 unless finetune\.trainable leaves .*draws=2 with"):
        tiny(**{"finetune.draws": 2})


@pytest.mark.slow
def test_a_run_goes_on_with_what_is_kept(tiny, tmp_path, monkeypatch):
    """Stopped after 2 of 4 steps, resumed: the weights of an undisturbed run, and nothing is computed twice."""
    fields = {"finetune.trainable": ("stage4", "head"), "finetune.draws": 2, "checkpoint.every_steps": 2}
    whole = train(tiny(**fields), tmp_path / "whole")
    assert whole.finished
    before = load_run(whole.workdir)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "checkpoints").mkdir()
    step = tmp_path / "whole" / "checkpoints" / "2"
    (tmp_path / "part" / "checkpoints" / "2").symlink_to(step)
    monkeypatch.setattr(features, "draw_batches", None)  # nothing may be decoded for features again
    resumed = train(tiny(**fields), tmp_path / "part", features=tmp_path / "whole" / "features")
    assert resumed.step == 4
    jax.tree.map(np.testing.assert_array_equal, load_run(resumed.workdir).variables, before.variables)
    initial = assemble.build_model(tiny(**fields), 3)
    state = create_state(initial, CLIP, optax.sgd(0.1), seed=0, ema=False)
    np.testing.assert_array_equal(
        before.variables["params"]["stem"]["conv"]["kernel"], state.params["stem"]["conv"]["kernel"]
    )
    again = train(tiny(**fields), whole.workdir, features=tmp_path / "elsewhere")
    assert again.step == 4
    assert not (tmp_path / "elsewhere").exists()


def test_each_fold_starts_from_its_own_weights(tiny):
    fields = {"data.folds": ("a", "b"), "data.train_split": "train-{fold}", "data.eval_split": "test-{fold}"}
    config = fold_config(tiny(**fields, **{"finetune.weights": "runs/head/{fold}"}), "b")
    assert config.finetune.weights == "runs/head/b"
    assert (config.data.train_split, config.data.folds) == ("train-b", ())
