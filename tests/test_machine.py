"""What the machine says about itself, from recorded system files."""

import os

import jax
import pytest

from jaxvid import machine

GIB = 1024**3


@pytest.fixture
def system(monkeypatch):
    """Replaces the system's files by given texts; all others are absent."""

    def files(**texts):
        named = {name.replace("__", "/"): text for name, text in texts.items()}
        monkeypatch.setattr(machine, "_read", lambda path: named.get(path.rsplit("/", 1)[-1], ""))
        monkeypatch.setattr(machine, "_exists", lambda path: path.rsplit("/", 1)[-1] in named)
        monkeypatch.setattr(machine.glob, "glob", lambda pattern: [])
        for name in ("TPU_NAME", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID"):
            monkeypatch.delenv(name, raising=False)

    return files


def test_versions_are_those_of_the_modules():
    found = machine.versions()
    assert found["jax"] == jax.__version__
    assert set(found) <= set(machine.PACKAGES)
    assert machine.version("no-such-package-anywhere") is None


def test_cores_are_limited_by_a_containers_quota(system, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    system()
    assert machine.num_cores() == 16
    system(**{"cpu.max": "max 100000\n"})
    assert machine.num_cores() == 16
    system(**{"cpu.max": "150000 100000\n"})
    assert machine.num_cores() == 1.5


def test_memory_is_limited_by_a_containers_limit(system):
    meminfo = "MemTotal:       33554432 kB\nMemFree:         1000000 kB\nMemAvailable:   16777216 kB\n"
    system(meminfo=meminfo)
    assert machine.memory() == (32 * GIB, 16 * GIB)
    system(meminfo=meminfo, **{"memory.max": "max\n", "memory.current": "5\n"})
    assert machine.memory() == (32 * GIB, 16 * GIB)
    system(meminfo=meminfo, **{"memory.max": f"{4 * GIB}\n", "memory.current": f"{3 * GIB}\n"})
    assert machine.memory() == (4 * GIB, 1 * GIB)


def test_memory_without_proc(system):
    system()
    total, available = machine.memory()
    assert total == available > 0


def test_accelerators_by_their_device_files(system, monkeypatch):
    system()
    assert list(machine.accelerators()) == []
    driver = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Jan\nGCC version:  gcc version 12.2.0\n"
    system(nvidia0="", version=driver.format("535.104.05"))
    assert machine.nvidia_driver() == 535
    assert list(machine.accelerators()) == [("an NVIDIA GPU", "cuda12")]
    system(nvidia0="", version=driver.format("580.82.07"))
    assert list(machine.accelerators()) == [("an NVIDIA GPU", "cuda13")]
    system(dxg="")
    assert list(machine.accelerators()) == [("an NVIDIA GPU", "cuda12")]
    system()
    monkeypatch.setattr(machine.glob, "glob", lambda pattern: ["/dev/accel0"])
    assert list(machine.accelerators()) == [("a TPU", "tpu")]
    system()
    monkeypatch.setenv("TPU_NAME", "local")
    assert list(machine.accelerators()) == [("a TPU", "tpu")]


def test_the_processors_name(system):
    system(cpuinfo="processor\t: 0\nmodel name\t: AMD EPYC 7B13\nprocessor\t: 1\nmodel name\t: AMD EPYC 7B13\n")
    assert machine.cpu_name() == "AMD EPYC 7B13"
    system()
    assert machine.cpu_name() == ""


def test_system_files_that_cannot_be_read_are_empty(tmp_path):
    assert machine._read(str(tmp_path / "absent")) == ""
    assert machine._read(str(tmp_path)) == ""
    assert machine._exists(str(tmp_path))
