import os
import socket
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxvid.train import sharding
from jaxvid.train.sharding import make_mesh, put, replicate


def batch(rows):
    rng = np.random.default_rng(0)
    return {
        "video": rng.integers(0, 256, (rows, 2, 4, 4, 3), dtype=np.uint8),
        "label": np.arange(rows, dtype=np.int32),
        "id": np.arange(rows, dtype=np.int32) + 100,
        "mask": np.arange(rows) < rows - 1,
    }


def test_the_configured_mesh_takes_every_device():
    mesh = make_mesh((("data", -1),))
    assert dict(mesh.shape) == {"data": 8}
    assert mesh.axis_types == (AxisType.Auto,)
    assert set(mesh.devices.flat) == set(jax.devices())


def _devices_after(script: str, **environment: str) -> list[str]:
    """Lines that a program prints in which no device has been used before."""
    lines = "import jax; from jaxvid.train.sharding import split_cpu\n" + textwrap.dedent(script)
    clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | environment
    return subprocess.run(
        [sys.executable, "-c", lines], env=clean | {"JAX_PLATFORMS": "cpu"}, check=True, capture_output=True, text=True
    ).stdout.splitlines()


def test_a_cpu_is_split_before_its_first_use_and_not_after():
    told = _devices_after(
        """
        print(split_cpu(1), split_cpu(2), jax.device_count(), split_cpu(2))
        print(split_cpu(3), jax.device_count())
        """
    )
    sentence = "The CPU stays 2 devices, settled before train.cpu_devices=3 was read."
    assert told == ["None None 2 None", f"{sentence} 2"]


def test_devices_that_the_environment_asks_for_stay():
    flags = "--xla_force_host_platform_device_count=3"
    told = _devices_after("print(split_cpu(2), jax.device_count())", XLA_FLAGS=flags)
    assert told == ["The CPU stays 3 devices, settled before train.cpu_devices=2 was read. 3"]


def test_a_host_reads_the_share_with_its_own_index(monkeypatch):
    assert sharding.host_shard() == (0, 1)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    assert sharding.host_shard() == (1, 3)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ((("data", 4), ("model", -1)), {"data": 4, "model": 2}),
        ((("data", -1), ("model", 4)), {"data": 2, "model": 4}),
        ((("data", 2),), {"data": 2}),
        ([["data", 1]], {"data": 1}),
    ],
)
def test_sizes(axes, shape):
    assert dict(make_mesh(axes).shape) == shape


def test_given_devices():
    devices = jax.devices()[2:5]
    assert list(make_mesh((("data", -1),), devices=devices).devices.flat) == devices


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ((("data", 3), ("model", -1)), r"must divide the number of devices.*\('data', 3\).*8 devices"),
        ((("data", 16),), r"product .* must be at most .*a product of 16, with 8 devices"),
        ((("model", -1),), "must have the axis 'data'"),
        ((("data", 2), ("data", 4)), "each axis once"),
        ((("data", -1), ("model", -1)), "at most one of them -1"),
        ((("data", 0),), ">= 1"),
        ((("data", -2),), ">= 1"),
    ],
)
def test_ill_fitting_axes(axes, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_mesh(axes)


def test_with_several_hosts_every_device_must_be_used(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"must be the number of devices.*a product of 4, with 8 devices"):
        make_mesh((("data", 4),))


def test_put_splits_rows_in_order_and_keeps_values_and_dtypes():
    mesh, host = make_mesh((("data", 4), ("model", 2))), batch(8)
    device = put(host, mesh)
    assert device.keys() == host.keys()
    for name, value in host.items():
        assert device[name].sharding.spec == PartitionSpec("data")
        assert device[name].dtype == value.dtype
        np.testing.assert_array_equal(device[name], value)
    for shard in device["video"].addressable_shards:
        assert shard.data.shape == (2, 2, 4, 4, 3)
        np.testing.assert_array_equal(shard.data, host["video"][shard.index])
    assert len(device["video"].addressable_shards) == 8


def test_put_names_the_sizes_that_do_not_fit():
    mesh = make_mesh((("data", -1),))
    with pytest.raises(ValueError, match=r"'data', received a batch of 12 clips for 8 devices"):
        put(batch(12), mesh)
    with pytest.raises(ValueError, match="a batch of 0 clips"):
        put(batch(8) and {name: value[:0] for name, value in batch(8).items()}, mesh)


def test_put_counts_the_rows_of_all_hosts(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(ValueError, match="a batch of 12 clips for 8 devices"):
        put(batch(4), make_mesh((("data", -1),)))


def test_put_wants_equal_rows():
    uneven = batch(8) | {"label": np.zeros(7, np.int32)}
    with pytest.raises(ValueError, match=r"same number of rows, received .*'label': 7"):
        put(uneven, make_mesh((("data", -1),)))


def test_what_a_batch_must_be_a_multiple_of(monkeypatch):
    mesh = make_mesh((("data", 4), ("model", 2)))
    assert sharding.batch_multiple(mesh) == 4
    monkeypatch.setattr(jax, "process_count", lambda: 6)
    assert sharding.batch_multiple(mesh) == 12
    assert [sharding.fitting_batch_size(size, mesh) for size in (1, 12, 13)] == [12, 12, 24]


def test_replicate_copies_to_every_device():
    mesh = make_mesh((("data", -1),))
    tree = {"w": jnp.arange(6.0).reshape(2, 3), "key": jax.random.key(1), "host": np.arange(3, dtype=np.int32)}
    copies = replicate(tree, mesh)
    for name in ("w", "host"):
        assert copies[name].sharding.is_fully_replicated
        assert len(copies[name].addressable_shards) == 8
        np.testing.assert_array_equal(copies[name], tree[name])
    np.testing.assert_array_equal(jax.random.key_data(copies["key"]), jax.random.key_data(tree["key"]))


def test_replicate_moves_a_state_to_another_mesh():
    eight, two = make_mesh((("data", -1),)), make_mesh((("data", 2),))
    moved = replicate(replicate({"w": jnp.arange(3.0), "key": jax.random.key(5)}, eight), two)
    assert moved["w"].sharding.device_set == set(jax.devices()[:2])
    np.testing.assert_array_equal(moved["w"], [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(jax.random.bits(moved["key"], (4,)), jax.random.bits(jax.random.key(5), (4,)))


@pytest.mark.parametrize("size", [1, 8])
def test_donating_a_replica_leaves_the_original(size):
    mesh = make_mesh((("data", size),))
    original = jnp.arange(1024.0)
    replica = replicate(original, mesh)
    jax.jit(lambda x: x + 1, donate_argnums=0, out_shardings=sharding.everywhere(mesh))(replica)
    assert replica.is_deleted()
    np.testing.assert_array_equal(original, np.arange(1024.0))


_HOST = """
    import sys

    import jax
    import numpy as np

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    index = int(sys.argv[1])
    jax.distributed.initialize(sys.argv[2], num_processes=2, process_id=index)

    import flax.linen as nn
    import optax

    from jaxvid.train.sharding import make_mesh, put, replicate
    from jaxvid.train.state import create_state
    from jaxvid.train.step import make_train_step


    class Net(nn.Module):
        @nn.compact
        def __call__(self, video, train):
            x = nn.Dense(4)(video.mean(axis=(1, 2, 3)))
            return nn.Dense(2)(nn.BatchNorm(use_running_average=not train)(x))


    mesh = make_mesh((("data", -1),))
    optimizer = optax.sgd(0.1)
    state = replicate(create_state(Net(), (1, 4, 4), optimizer, seed=0, ema=False), mesh)
    step = make_train_step(Net(), optimizer, optax.constant_schedule(0.1), mean=(0.5,) * 3, std=(0.2,) * 3,
                           label_smoothing=0.0, ema_decay=0.0, mesh=mesh)
    rng = np.random.default_rng(0)
    whole = {
        "video": rng.integers(0, 256, (8, 1, 4, 4, 3), dtype=np.uint8),
        "label": np.arange(8, dtype=np.int32) % 2,
        "id": np.arange(8, dtype=np.int32),
        "mask": np.arange(8) != 5,
    }
    count = jax.process_count()
    rows = slice(index * 8 // count, (index + 1) * 8 // count)
    for _ in range(3):
        state, metrics = step(state, put({name: value[rows] for name, value in whole.items()}, mesh))
    values = jax.device_get(metrics)
    print("RESULT", len(jax.devices()), values["id"].tolist(), float(values["loss"]), float(values["grad_norm"]))
"""


def test_two_processes_train_as_one(tmp_path):
    """Each host puts its own half of the batch; loss, gradient and ids are those of one process with all of it."""
    script = tmp_path / "host.py"
    script.write_text(textwrap.dedent(_HOST), encoding="utf-8")
    alone = tmp_path / "alone.py"
    alone.write_text(
        "\n".join(
            line for line in textwrap.dedent(_HOST).splitlines() if "distributed" not in line and "gloo" not in line
        ),
        encoding="utf-8",
    )
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    processes = [
        subprocess.Popen(
            [sys.executable, str(path), str(index), address],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for path, index in ((script, 0), (script, 1), (alone, 0))
    ]
    results = []
    for process in processes:
        try:
            output, errors = process.communicate(timeout=150)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        results.append(next(line for line in output.splitlines() if line.startswith("RESULT")))
    first, second, whole = (line.removeprefix("RESULT ").replace("]", "[").split("[") for line in results)
    assert first == second
    assert first[0].strip() == "4"
    assert first[1] == whole[1]
    np.testing.assert_allclose(np.fromstring(first[2], sep=" "), np.fromstring(whole[2], sep=" "), rtol=1e-5)
