"""The doctor passes what is sound, and names what is not with one sentence on how to mend it."""

import os
import shutil
from collections import namedtuple

import jax
import numpy as np
import pytest

from jaxvid import doctor, machine

GIB = 1024**3
Usage = namedtuple("Usage", "total used free")


def run(name):
    return doctor._guarded(name, doctor.CHECKS[name])


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXVID_CACHE", str(tmp_path / "xla"))
    monkeypatch.setenv("JAXVID_DATA", str(tmp_path / "data"))


def test_this_machine_can_train():
    checks = doctor.diagnose()
    assert [check.name for check in checks] == list(doctor.CHECKS)
    assert [check for check in checks if check.status == "FAIL"] == []
    for check in checks:
        assert check.detail
        assert (check.fix == "") == (check.status == "PASS")


def test_the_sound_machine_is_described():
    found = {check.name: check.detail for check in doctor.diagnose()}
    assert f"jax {jax.__version__}" in found["packages"]
    assert "8 x cpu" in found["devices"]
    assert "libavcodec" in found["decoders"]
    assert "h264, mpeg4, vp9" in found["decoders"]


def test_a_check_that_breaks_is_a_failure_and_the_others_run(monkeypatch):
    def broken():
        raise OSError("libx264.so: wrong ELF class")

    monkeypatch.setitem(doctor.CHECKS, "decoders", broken)
    checks = {check.name: check for check in doctor.diagnose()}
    assert checks["decoders"].status == "FAIL"
    assert "wrong ELF class" in checks["decoders"].detail
    assert checks["python"].status == "PASS"


def test_python(monkeypatch):
    assert run("python").status == "PASS"
    monkeypatch.setattr(doctor.sys, "maxsize", 2**31 - 1)
    assert run("python").status == "FAIL"


def test_missing_and_old_packages_are_named_with_the_command(monkeypatch):
    installed = machine.version
    monkeypatch.setattr(machine, "version", lambda name: {"av": None, "optax": "0.1.9"}.get(name, installed(name)))
    check = run("packages")
    assert check.status == "FAIL"
    assert check.detail == "av is missing; optax 0.1.9 is older than 0.2.6"
    assert check.fix == 'Run: pip install "av>=18.0" "optax>=0.2.6".'


def test_jax_and_jaxlib_belong_together(monkeypatch):
    installed = machine.version
    monkeypatch.setattr(machine, "version", lambda name: "0.9.1" if name == "jaxlib" else installed(name))
    assert run("packages").status == "FAIL"


@pytest.mark.parametrize(
    ("version", "numbers"), [("0.10.2", (0, 10, 2)), ("0.11.0.dev3", (0, 11, 0)), ("14", (14,)), ("", ())]
)
def test_versions_compare_as_numbers(version, numbers):
    assert doctor._numbers(version) == numbers
    assert doctor._numbers("0.10.2") > doctor._numbers("0.9.13")


def test_an_unused_accelerator_is_a_warning(monkeypatch):
    monkeypatch.setattr(machine, "version", lambda name: None)
    monkeypatch.setattr(machine, "accelerators", lambda: iter([("an NVIDIA GPU", "cuda13")]))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    check = run("devices")
    assert (check.status, check.fix) == ("WARN", 'Run: pip install "jaxvid[cuda13]".')
    assert "an NVIDIA GPU is not used: this jax is CPU-only" in check.detail

    monkeypatch.setattr(machine, "version", lambda name: "0.10.2" if name == "jax-cuda13-plugin" else None)
    check = run("devices")
    assert check.status == "WARN"
    assert "JAX_PLATFORMS=cuda python" in check.fix

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    check = run("devices")
    assert (check.status, check.fix) == ("WARN", "Run: unset JAX_PLATFORMS.")

    monkeypatch.setattr(machine, "accelerators", lambda: iter([]))
    assert run("devices").status == "PASS"
    monkeypatch.setattr(machine, "accelerators", lambda: iter([("a TPU", "tpu")]))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert run("devices").status == "PASS"


def test_a_device_that_computes_nonsense_fails(monkeypatch):
    monkeypatch.setattr(jax.numpy, "full", lambda shape, value, device: np.zeros(shape))
    assert run("devices").status == "FAIL"


@pytest.mark.parametrize(
    ("missing", "status"), [({"libdav1d", "libaom-av1", "libgav1"}, "WARN"), ({"h264"}, "FAIL"), ({"libx264"}, "FAIL")]
)
def test_missing_codecs(monkeypatch, missing, status):
    there = doctor._codec
    monkeypatch.setattr(doctor, "_codec", lambda name, mode: name not in missing and there(name, mode))
    check = run("decoders")
    assert check.status == status
    assert "av>=14" in check.fix


def test_codecs_are_asked_for_by_name():
    assert doctor._codec("libx264", "w")
    assert not doctor._codec("libx264", "r")
    assert not doctor._codec("no_such_codec", "r")


def test_a_clip_that_does_not_come_back_fails(monkeypatch):
    assert run("video round trip").status == "PASS"
    real = doctor._decode
    monkeypatch.setattr(doctor, "_decode", lambda video: real(video)[:-1])
    assert run("video round trip").status == "FAIL"
    monkeypatch.setattr(doctor, "_decode", lambda video: np.zeros((8, 64, 64, 3), np.uint8))
    assert "differ by" in run("video round trip").detail


@pytest.mark.parametrize(("free", "status"), [(64 * 1024**2, "WARN"), (8 * GIB, "PASS")])
def test_little_shared_memory_is_a_warning(monkeypatch, free, status):
    monkeypatch.setattr(doctor.Path, "is_dir", lambda self: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(8 * GIB, 0, free))
    assert run("shared memory").status == status


def test_a_system_without_shared_memory_passes(monkeypatch):
    monkeypatch.setattr(doctor.Path, "is_dir", lambda self: False)
    assert run("shared memory").status == "PASS"


def test_folders_that_cannot_be_written(monkeypatch, tmp_path):
    assert (run("compile cache").status, run("data cache").status) == ("PASS", "PASS")
    (tmp_path / "file").write_text("x")
    for name, variable, status in (("compile cache", "JAXVID_CACHE", "WARN"), ("data cache", "JAXVID_DATA", "FAIL")):
        monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
        check = run(name)
        assert check.status == status
        assert str(tmp_path / "file") in check.detail
        assert check.fix == f"Set {variable} to a folder that can be written."


@pytest.mark.parametrize(("free", "status"), [(0.1, "FAIL"), (2, "WARN"), (100, "PASS")])
def test_free_disk_of_a_folder_that_does_not_exist_yet(monkeypatch, tmp_path, free, status):
    monkeypatch.setenv("JAXVID_DATA", str(tmp_path / "not" / "yet"))
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or Usage(1, 1, int(free * GIB)))
    assert run("disk").status == status
    assert tmp_path in asked


@pytest.mark.parametrize(("cores", "status"), [(0.5, "WARN"), (1, "WARN"), (2, "PASS"), (96, "PASS")])
def test_cores(monkeypatch, cores, status):
    monkeypatch.setattr(machine, "num_cores", lambda: cores)
    assert run("cpu").status == status


@pytest.mark.parametrize(("available", "status"), [(0.5, "FAIL"), (3, "WARN"), (12, "PASS")])
def test_memory(monkeypatch, available, status):
    monkeypatch.setattr(machine, "memory", lambda: (16 * GIB, int(available * GIB)))
    assert run("memory").status == status


@pytest.mark.parametrize(
    ("limits", "status", "fix"),
    [((256, 4096), "WARN", "Run: ulimit -n 4096."), ((256, 512), "WARN", "Run: ulimit -n 512."),
     ((1024, 4096), "PASS", ""), ((-1, -1), "PASS", ""), ((256, -1), "WARN", "Run: ulimit -n 4096.")],
)  # fmt: skip
def test_open_files(monkeypatch, limits, status, fix):
    resource = pytest.importorskip("resource")
    limits = tuple(resource.RLIM_INFINITY if value == -1 else value for value in limits)
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    check = run("open files")
    assert (check.status, check.fix) == (status, fix)


def test_a_system_without_limits_on_files_passes(monkeypatch):
    monkeypatch.setitem(doctor.sys.modules, "resource", None)
    assert run("open files").status == "PASS"


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    doctor.diagnose()
    assert sorted(os.listdir(tmp_path)) == ["data", "xla"]
    assert os.listdir(tmp_path / "data") == os.listdir(tmp_path / "xla") == []
