"""Set-up that every test shares: eight simulated devices, strict dtypes' friends, and the shared golden files."""

import json
import os
from pathlib import Path

# Before jax is imported anywhere: sharding is tested on eight simulated CPU devices, and programs that run once or
# twice are not worth optimising (the suite is three times as fast without).
_FLAGS = ("--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0")
_GIVEN = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([_GIVEN, *(flag for flag in _FLAGS if flag not in _GIVEN)]).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"
SHARED = Path(os.environ.get("JAXVID_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache(tmp_path_factory):
    """All workers of one test run share their compilations."""
    import jax

    root = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    jax.config.update("jax_compilation_cache_dir", str(root / "jax_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def shared():
    """The folder of golden files, real videos and weights, or a skip that says what is missing."""

    def find(*parts: str) -> Path:
        path = SHARED.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"needs {path}, which is absent; set JAXVID_SHARED to the folder that holds {parts[0]}/")
        return path

    return find


@pytest.fixture(scope="session")
def golden(shared):
    """``golden(name)`` loads ``name.npz`` or ``name.json`` from tests/golden, else from the shared folder."""

    def load(name: str):
        for suffix in (".npz", ".json"):
            local = GOLDEN / f"{name}{suffix}"
            if local.exists():
                return _read(local)
        for suffix in (".npz", ".json"):
            path = SHARED / "golden" / f"{name}{suffix}"
            if path.exists():
                return _read(path)
        return _read(shared("golden", f"{name}.npz"))

    return load


def _read(path: Path):
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with np.load(path) as arrays:
        return dict(arrays)
