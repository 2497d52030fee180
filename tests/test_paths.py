"""Default folders, and the compilation cache that really fills one of them."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxvid import paths


def test_defaults_are_under_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("JAXVID_CACHE", raising=False)
    monkeypatch.setenv("JAXVID_DATA", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.cache_dir() == tmp_path / ".cache" / "jaxvid" / "xla"
    assert paths.data_dir() == tmp_path / ".cache" / "jaxvid" / "data"
    assert list(tmp_path.iterdir()) == []


def test_the_environment_decides_and_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JAXVID_CACHE", "~/programs")
    monkeypatch.setenv("JAXVID_DATA", "relative/data")
    assert paths.cache_dir() == tmp_path / "programs"
    assert paths.data_dir() == Path("relative/data")


def test_a_folder_that_is_a_file_is_not_writable(tmp_path):
    (tmp_path / "taken").write_text("x")
    assert str(tmp_path / "taken") in paths.why_not_writable(tmp_path / "taken")
    assert paths.why_not_writable(tmp_path / "free" / "deep") == ""
    assert list((tmp_path / "free" / "deep").iterdir()) == []


def test_a_cache_that_was_already_chosen_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXVID_CACHE", str(tmp_path / "other"))
    before = jax.config.jax_compilation_cache_dir
    assert before, "the tests' own cache is set in conftest.py"
    assert paths.enable_compilation_cache() == Path(before)
    assert jax.config.jax_compilation_cache_dir == before
    assert not (tmp_path / "other").exists()


def test_an_unwritable_cache_is_a_warning_and_no_cache(monkeypatch, tmp_path, caplog):
    (tmp_path / "taken").write_text("x")
    monkeypatch.setenv("JAXVID_CACHE", str(tmp_path / "taken"))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        with caplog.at_level(logging.WARNING, logger="jaxvid.paths"):
            assert paths.enable_compilation_cache() is None
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert "JAXVID_CACHE" in caplog.text


@pytest.mark.parametrize("variable", ["JAXVID_CACHE", "JAX_COMPILATION_CACHE_DIR"])
def test_a_fresh_process_fills_the_cache(tmp_path, variable):
    folder = tmp_path / "programs"
    folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("JAXVID_CACHE", "JAX_COMPILATION_CACHE_DIR")}
    environment |= {variable: str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    program = (
        "import jax; from jaxvid.paths import enable_compilation_cache as enable; print(enable()); "
        "jax.jit(lambda x: x * 3 + 1)(2.0)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder)
    assert any(folder.iterdir())
