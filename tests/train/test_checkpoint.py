import dataclasses
import functools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxvid.train import step_folder
from jaxvid.train.checkpoint import Checkpointer, CheckpointError, load_for_evaluation
from jaxvid.train.state import TrainState

META = {
    "config": {"model": {"name": "srtg_r3d_18", "width": 8}, "train": {"seed": 3}},
    "class_names": ["clap", "wave"],
    "preprocessing": {"mean": [0.45, 0.45, 0.45], "std": [0.225, 0.225, 0.225]},
    "data_position": 96,
    "results": {"top1": 0.5, "loss": float("nan")},
}


@functools.partial(jax.jit, static_argnames=("ema", "width"))
def _make_state(seed: jax.Array, *, ema: bool, width: int) -> TrainState:
    params = {
        "stem": {"conv": {"kernel": jnp.arange(6.0 * width).reshape(2, 3, width) / 7 + seed}},
        "head": {"bias": jnp.full(2, seed)},
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    _, opt_state = optimizer.update(jax.tree.map(lambda p: p + 1, params), optimizer.init(params), params)
    return TrainState(
        step=seed.astype(jnp.int32),
        params=params,
        batch_stats={"stem": {"norm": {"mean": jnp.full(width, 2 * seed), "var": jnp.ones(width)}}},
        opt_state=opt_state,
        ema_params=jax.tree.map(lambda p: p * 0.5, params) if ema else None,
        key=jax.random.key(17),
    )


def make_state(seed: float = 0.0, *, ema: bool = True, width: int = 3) -> TrainState:
    """A tiny state whose numbers are functions of ``seed``; adamw gives nested named tuples."""
    return _make_state(jnp.float32(seed), ema=ema, width=width)


def save_steps(directory: Path, *steps: int, scores: dict[int, float] | None = None, **options) -> None:
    """Saves ``make_state(step)`` of each step, with ``eval/top1`` where ``scores`` has the step."""
    scores = scores or {}
    with Checkpointer(directory, **options) as saver:
        for step in steps:
            metrics = {"eval/top1": scores[step]} if step in scores else None
            saver.save(step, make_state(step), META, metrics=metrics)


def assert_same_state(got: TrainState, wanted: TrainState) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def data_files(folder: Path) -> list[Path]:
    """The files that hold an item's array bytes, some of them twice (OCDBT merges what each process wrote)."""
    return [path for path in folder.rglob("*") if path.parent.name == "d"]


def flip(paths: list[Path], *, at: float = 0.5, count: int = 8) -> None:
    """Inverts ``count`` bytes from the given fraction of each file on."""
    for path in paths:
        data = bytearray(path.read_bytes())
        start = int(len(data) * at)
        for position in range(start, min(start + count, len(data))):
            data[position] ^= 0xFF
        path.write_bytes(data)


# ---------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("ema", [True, False])
def test_a_state_comes_back_bit_for_bit(tmp_path, ema):
    state = make_state(5, ema=ema)
    with Checkpointer(tmp_path / "checkpoints") as saver:
        assert saver.restore(state) is None
        saver.save(5, state, META, metrics={"eval/top1": 0.25})
    with Checkpointer(tmp_path / "checkpoints") as saver:
        restored = saver.restore(make_state(0, ema=ema))
    assert_same_state(restored.state, state)
    assert type(restored.state.opt_state[1][0]) is optax.ScaleByAdamState
    assert restored.step == 5
    assert jax.random.normal(restored.state.key) == jax.random.normal(state.key)


def test_meta_comes_back_with_step_metrics_and_versions(tmp_path):
    save_steps(tmp_path, 7, scores={7: 0.25})
    with Checkpointer(tmp_path) as saver:
        meta = saver.restore(make_state()).meta
    for name in ("config", "class_names", "preprocessing", "data_position"):
        assert meta[name] == META[name]
    assert meta["results"]["top1"] == 0.5
    assert np.isnan(meta["results"]["loss"])
    assert (meta["step"], meta["metrics"]) == (7, {"eval/top1": 0.25})
    assert " ".join(meta["versions"]) == "av flax jax jaxlib jaxvid numpy optax orbax-checkpoint python"
    assert meta["versions"]["flax"] == flax.__version__


def test_fields_of_other_states_and_low_precision_leaves_are_kept(tmp_path):
    @flax.struct.dataclass
    class Other:
        params: dict
        scale: jax.Array
        name: str = flax.struct.field(pytree_node=False)

    state = Other({"w": jnp.arange(4, dtype=jnp.bfloat16) / 3}, jnp.float16(0.1), "static")
    with Checkpointer(tmp_path) as saver:
        saver.save(1, state, {})
        restored = saver.restore(Other({"w": jnp.zeros(4, jnp.bfloat16)}, jnp.float16(0), "mine")).state
    assert restored.params["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(restored.params["w"], state.params["w"])
    assert restored.scale == state.scale
    assert restored.name == "mine"


@pytest.mark.parametrize(("saved_on", "restored_on"), [(8, 1), (1, 8), (8, 2)])
def test_restores_onto_another_number_of_devices(tmp_path, saved_on, restored_on):
    def spread(state, count):
        mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
        return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))

    with Checkpointer(tmp_path) as saver:
        saver.save(1, spread(make_state(1), saved_on), META)
        template = spread(make_state(0), restored_on)
        restored = saver.restore(template).state
    assert_same_state(restored, make_state(1))
    for leaf, like in zip(jax.tree.leaves(restored), jax.tree.leaves(template), strict=True):
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
        assert len(leaf.devices()) == restored_on


def test_an_abstract_template_serves_too(tmp_path):
    save_steps(tmp_path, 1)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[3])
    shapes = jax.eval_shape(lambda: make_state())
    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
    with Checkpointer(tmp_path) as saver:
        restored = saver.restore(template).state
    assert_same_state(restored, make_state(1))
    assert all(leaf.devices() == {jax.devices()[3]} for leaf in jax.tree.leaves(restored))


def test_buffers_may_be_donated_as_soon_as_save_returns(tmp_path):
    @lambda f: jax.jit(f, donate_argnums=0)
    def step(state):
        return dataclasses.replace(state, params=jax.tree.map(lambda p: p * -3 + 1, state.params), step=state.step + 1)

    sharding = NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec())
    wide = dataclasses.replace(make_state(1), params={"w": jnp.arange(500_000.0)})
    state = jax.device_put(wide, sharding)
    with Checkpointer(tmp_path, keep_last=5) as saver:
        for number in (1, 2, 3):
            saver.save(number, state, META)
            state = step(state)
        expected = jnp.arange(500_000.0)
        for number in (1, 2, 3):
            read = load_for_evaluation(tmp_path / str(number))[1] if number < 3 else None
            assert read is None or read["step"] == number
        saver.wait()
        restored = saver.restore(state).state
    for _ in range(2):
        expected = expected * -3 + 1
    np.testing.assert_array_equal(restored.params["w"], expected)
    # Restored buffers are their own: donating them changes neither each other nor what is restored next.
    later = step(restored)
    for shard in later.params["w"].addressable_shards:
        np.testing.assert_array_equal(shard.data, expected * -3 + 1)


# ---------------------------------------------------------------------------------------------- retention


def test_keeps_the_last_and_the_best_over_reopening(tmp_path):
    scores = {2: 0.9, 4: 0.5, 6: 0.6}
    save_steps(tmp_path, 1, 2, 3, 4, scores=scores)
    assert step_folder.steps(tmp_path) == [2, 3, 4]
    save_steps(tmp_path, 5, 6, 7, 8, scores=scores)
    assert step_folder.steps(tmp_path) == [2, 7, 8]
    save_steps(tmp_path, 9, 10, 11, scores={9: 0.95})
    assert step_folder.steps(tmp_path) == [9, 10, 11]


def test_of_equally_good_checkpoints_the_newest_stay(tmp_path):
    save_steps(tmp_path, *range(1, 7), scores=dict.fromkeys(range(1, 6), 0.5), keep_last=1, keep_best=2)
    assert step_folder.steps(tmp_path) == [4, 5, 6]


def test_an_evaluation_made_later_ranks_its_step_as_one_made_before(tmp_path):
    scores = {1: 0.3, 2: 0.9, 3: 0.5, 4: 0.95, 5: 0.1}
    kept = {1: [1], 2: [2], 3: [2, 3], 4: [4], 5: [4, 5]}
    with Checkpointer(tmp_path, keep_last=1, keep_best=1) as saver:
        for step, score in scores.items():
            saver.save(step, make_state(step), META | {"evaluation_due": True})
            saver.add_metrics(step, {"eval/top1": score}, {"evaluation_due": False})
            assert saver.steps() == kept[step]
        restored = saver.restore(make_state())
    assert restored is not None
    assert_same_state(restored.state, make_state(5))
    assert restored.meta["evaluation_due"] is False
    assert restored.meta["class_names"] == META["class_names"]
    _, meta = load_for_evaluation(tmp_path, best=True)
    assert (meta["step"], meta["metrics"]) == (4, {"eval/top1": 0.95})
    with Checkpointer(tmp_path, keep_last=1, keep_best=1) as saver:  # ranks are read again
        saver.save(6, make_state(6), META)
        assert saver.steps() == [4, 6]


def test_a_record_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    save_steps(tmp_path, 1)
    record = tmp_path / "1" / step_folder.RECORD_FILE
    before = record.read_bytes()
    with Checkpointer(tmp_path) as saver:
        with pytest.raises(CheckpointError, match=r"2 cannot take its evaluation: .* is missing"):
            saver.add_metrics(2, {"eval/top1": 0.5}, {})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError("the disk is full")))
            with pytest.raises(CheckpointError, match=r"1 cannot take its evaluation: the disk is full\.$"):
                saver.add_metrics(1, {"eval/top1": 0.5}, {})
        assert record.read_bytes() == before
        assert saver.restore(make_state()).step == 1
        saver.add_metrics(1, {"eval/top1": 0.5}, {})
    assert load_for_evaluation(tmp_path)[1]["metrics"] == {"eval/top1": 0.5}


def test_without_best_only_the_last_stay_and_nan_is_no_score(tmp_path):
    save_steps(tmp_path / "a", 1, 2, 3, scores={1: 0.9, 2: 0.1, 3: 0.2}, keep_last=1, keep_best=0)
    assert step_folder.steps(tmp_path / "a") == [3]
    save_steps(tmp_path / "b", 1, 2, 3, scores={1: 0.1, 2: float("nan")}, keep_last=1)
    assert step_folder.steps(tmp_path / "b") == [1, 3]


def test_bad_counts_and_steps_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"keep_last must be >= 1, received keep_last=0\."):
        Checkpointer(tmp_path, keep_last=0)
    with pytest.raises(ValueError, match=r"keep_best must be >= 0, received keep_best=-1\."):
        Checkpointer(tmp_path, keep_best=-1)
    save_steps(tmp_path, 5)
    with Checkpointer(tmp_path) as saver:
        for step in (5, 4):
            with pytest.raises(ValueError, match=rf"step must be > 5, .* received step={step}\."):
                saver.save(step, make_state(), META)
        with pytest.raises(ValueError, match="meta must hold only what JSON knows"):
            saver.save(6, make_state(), {"array": np.zeros(2)})
        assert saver.steps() == [5]


# ---------------------------------------------------------------------------------------------- damage

DAMAGE = {
    "array bytes of params": (lambda step: flip(data_files(step / "params")), "params"),
    "array bytes of opt_state": (lambda step: flip(data_files(step / "opt_state")), "opt_state"),
    "array bytes of ema": (lambda step: flip(data_files(step / "ema")), "ema"),
    "array bytes of rest": (lambda step: flip(data_files(step / "rest")), "rest"),
    "array file cut": (
        lambda step: [os.truncate(path, 20) for path in data_files(step / "batch_stats")],
        "batch_stats",
    ),
    "array file missing": (lambda step: [path.unlink() for path in data_files(step / "params")], "params"),
    "item missing": (lambda step: shutil.rmtree(step / "opt_state"), "opt_state"),
    "manifest emptied": (lambda step: (step / "params" / "manifest.ocdbt").write_bytes(b""), "params"),
    "tree metadata broken": (lambda step: (step / "params" / "_METADATA").write_text("{"), "params"),
    "record cut": (lambda step: os.truncate(step / "jaxvid" / "metadata", 50), "jaxvid/metadata"),
    "record is binary": (lambda step: (step / "jaxvid" / "metadata").write_bytes(b"\xff\x00"), "jaxvid/metadata"),
    "record changed": (
        lambda step: (step / "jaxvid" / "metadata").write_text(
            (step / "jaxvid" / "metadata").read_text().replace('"data_position": 96', '"data_position": 97')
        ),
        "its content does not have the sha256",
    ),
    "record missing": (lambda step: (step / "jaxvid" / "metadata").unlink(), "jaxvid/metadata is missing"),
    "empty folder": (lambda step: (shutil.rmtree(step), step.mkdir()), "jaxvid/metadata is missing"),
}


@pytest.fixture(scope="module")
def steps_4_and_8(tmp_path_factory):
    """A function that puts a folder with two good checkpoints somewhere."""
    made = tmp_path_factory.mktemp("checkpoints")
    save_steps(made, 4, 8, scores={8: 0.5})
    assert sorted(path.name for path in made.iterdir()) == ["4", "8"]
    return lambda place: shutil.copytree(made, place, dirs_exist_ok=True)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_step_is_named_and_the_one_before_it_is_used(tmp_path, caplog, steps_4_and_8, kind):
    damage, named = DAMAGE[kind]
    steps_4_and_8(tmp_path)
    damage(tmp_path / "8")
    with Checkpointer(tmp_path) as saver:
        restored = saver.restore(make_state())
    assert_same_state(restored.state, make_state(4))
    assert restored.step == 4
    (message, renamed) = [record.getMessage() for record in caplog.records if record.name.startswith("jaxvid")]
    assert message.startswith(f"{tmp_path / '8'} cannot be used, because ")
    assert named in message
    assert "\n" not in message
    assert len(message) < 600
    assert renamed == f"{tmp_path / '8'} was renamed to 8.damaged and may be deleted."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "8.damaged"]


def test_after_a_fall_back_the_run_saves_the_damaged_step_again(tmp_path, steps_4_and_8):
    steps_4_and_8(tmp_path)
    flip(data_files(tmp_path / "8" / "params"))
    with Checkpointer(tmp_path) as saver:
        saver.restore(make_state())
        for step in (6, 8):
            saver.save(step, make_state(step), META)
        assert_same_state(saver.restore(make_state()).state, make_state(8))
        assert saver.steps() == [6, 8]


def test_inverted_bytes_that_orbax_does_not_see_are_seen(tmp_path, caplog):
    # Of noise, which does not compress, nearly every byte is a value's; the checksum alone tells.
    noise = dataclasses.replace(make_state(1), params={"w": jax.random.normal(jax.random.key(0), (20_000,))})
    with Checkpointer(tmp_path) as saver:
        saver.save(1, noise, META)
        saver.save(2, noise, META)
    record = step_folder.read_record(tmp_path / "2")
    values = max(data_files(tmp_path / "2" / "params"), key=lambda path: path.stat().st_size)
    clean = values.read_bytes()
    silent = 0
    for at in np.linspace(0.1, 0.9, 9):
        values.write_bytes(clean)
        flip([values], at=at, count=1)
        with pytest.raises(step_folder.UnusableError) as caught:
            step_folder.read_item(tmp_path / "2", "params", record["items"]["params"])
        silent += "the sha256 of leaf 'w' is" in str(caught.value)
    assert silent > 0


def test_two_damaged_steps_and_a_second_fall_back(tmp_path, caplog):
    save_steps(tmp_path, 1, 2, 3, keep_last=3)
    flip(data_files(tmp_path / "3" / "params"))
    (tmp_path / "2" / "jaxvid" / "metadata").unlink()
    (tmp_path / "3.damaged").mkdir()
    with Checkpointer(tmp_path) as saver:
        assert saver.restore(make_state()).step == 1
        assert saver.steps() == [1]
    assert (tmp_path / "3.damaged-2").is_dir()
    assert (tmp_path / "2.damaged").is_dir()


def test_when_none_is_usable_each_is_listed_and_nothing_is_touched(tmp_path, caplog):
    save_steps(tmp_path, 1, 2)
    for item in ("params", "ema"):
        flip(data_files(tmp_path / "1" / item))
    (tmp_path / "2" / "jaxvid" / "metadata").write_text("[]")
    with Checkpointer(tmp_path) as saver, pytest.raises(CheckpointError) as caught:
        saver.restore(make_state())
    message = str(caught.value)
    assert message.startswith(f"{tmp_path} holds no usable checkpoint (2: jaxvid/metadata cannot be read: ")
    assert "it is not a record of jaxvid; 1: in" in message or "; 1: its item params" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        load_for_evaluation(tmp_path)


def test_a_copied_step_and_foreign_folders_are_not_believed(tmp_path, caplog):
    save_steps(tmp_path, 3)
    shutil.copytree(tmp_path / "3", tmp_path / "9")
    (tmp_path / "10").write_text("a file")
    for name in ("notes", "007", "11.orbax-checkpoint-tmp-5"):
        (tmp_path / name).mkdir()
    with Checkpointer(tmp_path) as saver:
        assert saver.restore(make_state()).step == 3
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("jaxvid")]
    assert messages[0].startswith(f"{tmp_path / '11.orbax-checkpoint-tmp-5'} is what an interrupted save left")
    assert messages[1].startswith(f"{tmp_path / '9'} cannot be used, because it was saved as step 3;")
    assert not (tmp_path / "11.orbax-checkpoint-tmp-5").exists()


@pytest.mark.parametrize(
    "record",
    [
        {"format": 2},
        {"format": 1},
        {"format": 1, "meta": {"step": 3}, "metrics": None, "items": {"params": {"../../x": {}}}},
        {"format": 1, "meta": {"step": "3"}, "metrics": None, "items": {}},
    ],
)
def test_well_sealed_records_of_another_shape_are_refused(tmp_path, caplog, record):
    from jaxvid.train import checksums

    (tmp_path / "3" / "jaxvid").mkdir(parents=True)
    (tmp_path / "3" / "jaxvid" / "metadata").write_text(json.dumps(checksums.seal(record)))
    with Checkpointer(tmp_path) as saver, pytest.raises(CheckpointError, match=r"reads format 1|lacks fields"):
        saver.restore(make_state())


def test_a_whole_checkpoint_of_another_network_is_an_error_and_not_damage(tmp_path):
    save_steps(tmp_path, 1, 2)
    with Checkpointer(tmp_path) as saver:
        with pytest.raises(
            ValueError,
            match=r"params/stem/conv/kernel must be float32\[2, 3, 4\] to fit this run, received float32\[2, 3, 3\] in",
        ):
            saver.restore(make_state(width=4))
        with pytest.raises(ValueError, match=r"ema/head/bias must be absent to fit this run, received float32\[2\]"):
            saver.restore(make_state(ema=False))
        other = dataclasses.replace(make_state(), key=jax.random.key(0, impl="rbg"))
        with pytest.raises(ValueError, match=r"rest/key must be uint32\[4\] to fit this run, received uint32\[2\]"):
            saver.restore(other)
        assert saver.steps() == [1, 2]


def test_check_sees_the_meta_before_the_arrays_and_its_error_goes_through(tmp_path):
    save_steps(tmp_path, 1)
    flip(data_files(tmp_path / "1" / "params"))

    def check(meta):
        raise ValueError(f"another config than {meta['config']['model']['name']}")

    with Checkpointer(tmp_path) as saver, pytest.raises(ValueError, match="another config than srtg_r3d_18"):
        saver.restore(make_state(width=9), check=check)


# ---------------------------------------------------------------------------------------------- failing writes


def test_a_save_that_cannot_begin_is_raised_and_names_the_step(tmp_path):
    save_steps(tmp_path / "c", 1)
    saver = Checkpointer(tmp_path / "c")
    shutil.rmtree(tmp_path / "c")
    (tmp_path / "c").write_text("a file where the folder was")  # root ignores permissions, not this
    with pytest.raises(CheckpointError, match=r"checkpoint .*c/2 could not be written: .*Not a directory"):
        saver.save(2, make_state(2), META)
    saver.close()
    saver.close()
    (tmp_path / "c").unlink()


def test_a_full_disk_is_raised_by_the_next_call_once_and_without_pages_of_log(tmp_path, monkeypatch, caplog):
    import orbax.checkpoint as ocp

    def full(self, x, directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.handlers.JsonCheckpointHandler, "_save_fn", full)
    saver = Checkpointer(tmp_path)
    error = pytest.raises(CheckpointError, match=r"checkpoint .*/1 could not be written: .*No space left on device\.$")
    with error:  # by whichever of them comes after the failure in the thread
        saver.save(1, make_state(1), META)
        saver.wait()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    saver.wait()
    monkeypatch.undo()
    saver.save(2, make_state(2), META)  # there is room again
    saver.close()
    assert step_folder.steps(tmp_path) == [2]


def test_leaving_the_block_raises_the_failure_unless_something_else_failed_first(tmp_path, monkeypatch, caplog):
    saver = Checkpointer(tmp_path)
    monkeypatch.setattr(saver._manager, "wait_until_finished", lambda: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(CheckpointError, match="could not be written: disk full"), saver:
        pass
    saver = Checkpointer(tmp_path / "b")
    monkeypatch.setattr(saver._manager, "wait_until_finished", lambda: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(KeyError, match="the first error"), caplog.at_level(logging.ERROR), saver:
        raise KeyError("the first error")
    assert "disk full" in caplog.text


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"checkpoints cannot be kept in .*file/checkpoints: .*Not a directory"):
        Checkpointer(tmp_path / "file" / "checkpoints")


_KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
import numpy as np
from flax import struct
from jaxvid.train.checkpoint import Checkpointer

@struct.dataclass
class State:
    params: dict
    step: np.ndarray

with Checkpointer(sys.argv[1]) as saver:
    template = State({"w": np.zeros((4, 1000), np.float32)}, np.int32(0))
    restored = saver.restore(template)
    step = 0 if restored is None else restored.step
    if restored is not None:
        assert restored.state.step == step and (restored.state.params["w"] == step).all()
    print("started", step, flush=True)
    while True:
        step += 1
        saver.save(step, State({"w": np.full((4, 1000), step, np.float32)}, np.int32(step)), {"step_again": step})
        print(step, flush=True)
"""


def test_sigkill_while_saving_leaves_a_usable_step(tmp_path):
    root = str(Path(__file__).resolve().parents[2])
    rng = np.random.default_rng(0)
    reached = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(tmp_path / "c"), root],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        line = process.stdout.readline()
        assert line.startswith("started"), process.stderr.read()
        start = int(line.split()[1])
        assert start >= reached
        for _ in range(3):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        begun = [int(text) for text in process.communicate()[0].split()]
        assert process.returncode == -signal.SIGKILL
        reached = max(step_folder.steps(tmp_path / "c"))
        # The save that returned last may be unfinished; the one before it was waited for.
        assert reached >= max([start + 3, *begun]) - 1
        variables, meta = load_for_evaluation(tmp_path / "c")
        assert meta["step"] == meta["step_again"] == reached
        np.testing.assert_array_equal(variables["params"]["w"], np.full((4, 1000), reached, np.float32))


# ---------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("place", ["run", "checkpoints", "step"])
def test_weights_for_evaluation_need_only_the_folder(tmp_path, place, monkeypatch):
    save_steps(tmp_path / "run" / "checkpoints", 4, 8)
    path = {"run": "run", "checkpoints": "run/checkpoints", "step": "run/checkpoints/8"}[place]
    monkeypatch.chdir(tmp_path)
    variables, meta = load_for_evaluation(path)
    wanted = make_state(8)
    assert set(variables) == {"params", "batch_stats"}
    assert jax.tree.structure(variables["params"]) == jax.tree.structure(wanted.params)
    jax.tree.map(np.testing.assert_array_equal, variables["params"], wanted.ema_params)
    jax.tree.map(np.testing.assert_array_equal, variables["batch_stats"], wanted.batch_stats)
    assert (meta["step"], meta["weights"], meta["class_names"]) == (8, "ema", ["clap", "wave"])
    assert step_folder.steps(tmp_path / "run" / "checkpoints") == [4, 8]


def test_weights_without_average_and_without_statistics(tmp_path):
    state = dataclasses.replace(make_state(2, ema=False), batch_stats={})
    with Checkpointer(tmp_path) as saver:
        saver.save(2, state, META)
        assert saver.restore(state).state.batch_stats == {}
    variables, meta = load_for_evaluation(tmp_path)
    assert variables["batch_stats"] == {}
    jax.tree.map(np.testing.assert_array_equal, variables["params"], state.params)
    assert meta["weights"] == "params"


def test_the_best_checkpoint_and_what_follows_it(tmp_path, caplog):
    save_steps(tmp_path, 1, 2, 3, 4, scores={1: 0.7, 2: 0.9, 4: 0.1}, keep_last=9)
    assert load_for_evaluation(tmp_path)[1]["step"] == 4
    assert load_for_evaluation(tmp_path, best=True)[1]["step"] == 2
    flip(data_files(tmp_path / "2" / "ema"))
    assert load_for_evaluation(tmp_path, best=True)[1]["step"] == 1
    assert f"{tmp_path / '2'} cannot be used" in caplog.text
    (tmp_path / "4" / "jaxvid" / "metadata").unlink()
    assert load_for_evaluation(tmp_path)[1]["step"] == 3
    with pytest.raises(CheckpointError, match="2: "):
        load_for_evaluation(tmp_path / "2")
    assert step_folder.steps(tmp_path) == [1, 2, 3, 4]


def test_no_checkpoint_and_no_evaluated_checkpoint_are_clear_errors(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(
            FileNotFoundError, match=r"checkpoint must be a run folder .* received .* which holds none\."
        ):
            load_for_evaluation(path)
    save_steps(tmp_path, 1)
    with pytest.raises(CheckpointError, match="1: it was saved without eval/top1"):
        load_for_evaluation(tmp_path, best=True)
    shutil.move(tmp_path / "1", tmp_path / "kept for the paper")
    assert load_for_evaluation(tmp_path / "kept for the paper")[1]["step"] == 1
