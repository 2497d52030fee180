"""Where jaxvid keeps what it makes by itself: compiled programs and downloaded or generated data.

| what | environment variable | default |
|---|---|---|
| compiled XLA programs | ``JAXVID_CACHE`` | ``~/.cache/jaxvid/xla`` |
| embedded data sets | ``JAXVID_DATA`` | ``~/.cache/jaxvid/data`` |

Nothing here creates a folder, except :func:`enable_compilation_cache`, which creates the one it enables.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

_LOG = logging.getLogger(__name__)


def cache_dir() -> Path:
    """The folder of compiled programs: ``$JAXVID_CACHE``, else ``~/.cache/jaxvid/xla``."""
    return _folder("JAXVID_CACHE", "xla")


def data_dir() -> Path:
    """The folder of embedded data sets: ``$JAXVID_DATA``, else ``~/.cache/jaxvid/data``."""
    return _folder("JAXVID_DATA", "data")


def enable_compilation_cache() -> Path | None:
    """Makes jax keep every compiled program on disk, so that the next run of the same program starts at once.

    A cache that was already chosen (``jax_compilation_cache_dir`` or ``JAX_COMPILATION_CACHE_DIR``) is left as it is.

    Returns:
      The folder in use, or ``None`` when the folder cannot be written; that is logged as a warning, because a run
      without the cache is correct and only starts more slowly.
    """
    import jax

    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if chosen:
        return Path(chosen)
    folder = cache_dir()
    problem = why_not_writable(folder)
    if problem:
        _LOG.warning("Compiled programs are not kept: %s. Set JAXVID_CACHE to a folder that can be written.", problem)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def why_not_writable(folder: Path) -> str:
    """Creates the folder, writes a small file in it and removes the file.

    Returns:
      The reason why that failed, with the folder's name; empty when it worked.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"jaxvid")
        probe.unlink()
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror or error})"
    return ""


def _folder(variable: str, name: str) -> Path:
    """The folder that the environment names, or the default; an empty variable counts as unset."""
    chosen = os.environ.get(variable, "")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "jaxvid" / name
