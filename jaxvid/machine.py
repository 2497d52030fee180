"""What this machine is: cores, memory, accelerators and versions. Facts only; ``doctor`` judges them."""

from __future__ import annotations

import glob
import importlib.metadata
import os
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "jaxvid",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "av",
    "numpy",
)
"""The packages whose versions decide what a run does."""


def versions() -> dict[str, str]:
    """Installed versions of :data:`PACKAGES` by name; a package that is not installed is left out."""
    found = {name: version(name) for name in PACKAGES}
    return {name: number for name, number in found.items() if number is not None}


def version(package: str) -> str | None:
    """The installed version of a package, ``None`` when it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def num_cores() -> float:
    """Cores that this process may use, a container's quota included; a quota may be a fraction."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        return min(float(cores), int(quota) / int(period))
    return float(cores)


def cpu_name() -> str:
    """The processor's name as the system gives it; empty when it gives none."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), flags=re.MULTILINE)
    return found.group(1).strip() if found else ""


def memory() -> tuple[int, int]:
    """``(total, available)`` bytes, and not more than a container's limit."""
    known = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read("/proc/meminfo"), flags=re.MULTILINE))
    if "MemAvailable" in known:
        total, available = int(known["MemTotal"]) * 1024, int(known["MemAvailable"]) * 1024
    else:  # not Linux: what is installed is all that the standard library tells
        total = available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        total, available = min(total, int(limit)), min(available, int(limit) - int(used))
    return total, available


def accelerators() -> Iterator[tuple[str, str]]:
    """``(what is there, the extra of jaxvid that uses it)``, judged by device files and the environment, not by jax."""
    if _exists("/dev/nvidia0") or _exists("/dev/dxg"):  # dxg: a GPU under Windows' Linux
        yield "an NVIDIA GPU", "cuda13" if nvidia_driver() >= 580 else "cuda12"  # CUDA 13 needs driver 580
    if any(os.environ.get(name) for name in ("TPU_NAME", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID")) or glob.glob(
        "/dev/accel[0-9]*"
    ):
        yield "a TPU", "tpu"


def nvidia_driver() -> int:
    """The major version of NVIDIA's driver; 0 when there is none or it cannot be read."""
    found = re.search(r"\s(\d{3,})\.\d+", _read("/proc/driver/nvidia/version"))
    return int(found.group(1)) if found else 0


def _exists(path: str) -> bool:
    return Path(path).exists()


def _read(path: str) -> str:
    """The text of a system file; empty when there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
