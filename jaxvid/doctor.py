"""Is this machine ready? One check per line, and one sentence on how to mend what is not.

``FAIL`` means that training cannot work, ``WARN`` that it will be slow or that a part is missing. The checks do what
training will do, in small: they compute on every device, encode and decode a clip, and write into the folders.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxvid import machine, paths

Status = Literal["PASS", "WARN", "FAIL"]
GIB = 1024**3

_SOFTWARE_DECODERS = {
    "h264": ("h264",),
    "mpeg4": ("mpeg4",),
    "vp9": ("vp9", "libvpx-vp9"),
    "av1": ("libdav1d", "libaom-av1", "libgav1"),  # the decoder named "av1" only drives hardware
    "hevc": ("hevc",),
}


@dataclass(frozen=True)
class Check:
    """What was looked at, how it stands, what was found and, unless it passed, how to mend it."""

    name: str
    status: Status
    detail: str
    fix: str = ""


def diagnose() -> list[Check]:
    """Runs every check, in a few seconds. No check raises: one that breaks is a ``FAIL`` with the exception's text."""
    return [_guarded(name, check) for name, check in CHECKS.items()]


def _guarded(name: str, check: Callable[[], tuple[Status, str, str]]) -> Check:
    try:
        return Check(name, *check())
    except Exception as error:
        return Check(
            name, "FAIL", f"{type(error).__name__}: {error}", "Reinstall jaxvid: pip install --upgrade jaxvid."
        )


def check_python() -> tuple[Status, str, str]:
    """The interpreter is a 64-bit one: jax has no other."""
    detail = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.maxsize < 2**32:
        return "FAIL", f"{detail}, 32-bit", "Install a 64-bit Python and make a new virtual environment with it."
    return "PASS", detail, ""


def check_packages() -> tuple[Status, str, str]:
    """Every requirement of jaxvid is installed, in a version that is new enough; jax and jaxlib belong together."""
    wrong = []
    for name, minimum in _requirements():
        version = machine.version(name)
        if version is None:
            wrong.append((f"{name} is missing", f"{name}>={minimum}"))
        elif _numbers(version) < _numbers(minimum):
            wrong.append((f"{name} {version} is older than {minimum}", f"{name}>={minimum}"))
    if wrong:
        needed = " ".join(f'"{requirement}"' for _, requirement in wrong)
        return "FAIL", "; ".join(text for text, _ in wrong), f"Run: pip install {needed}."
    detail = ", ".join(f"{name} {number}" for name, number in machine.versions().items())
    if _numbers(machine.version("jax") or "")[:2] != _numbers(machine.version("jaxlib") or "")[:2]:
        return "FAIL", detail, "jax and jaxlib differ in version; run: pip install --upgrade jax jaxlib."
    return "PASS", detail, ""


def check_devices() -> tuple[Status, str, str]:
    """Arrays are computed on every device, and no accelerator of the machine is left unused."""
    import jax
    import jax.numpy as jnp

    devices = jax.local_devices()
    for device in devices:
        product = jnp.full((8, 8), 2.0, device=device) @ jnp.full((8, 8), 3.0, device=device)
        if float(product[0, 0]) != 48.0:
            return "FAIL", f"{device} computed 8 * 2 * 3 = {float(product[0, 0])}", "Restart the machine or its driver."
    kinds = [device.device_kind for device in devices]
    detail = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    if jax.default_backend() != "cpu":
        return "PASS", detail, ""
    unused = list(machine.accelerators())
    if not unused:
        return "PASS", f"{detail} (no accelerator found)", ""
    name, extra = unused[0]
    if os.environ.get("JAX_PLATFORMS", "").lower() == "cpu":
        return "WARN", f"{detail}; {name} is hidden by JAX_PLATFORMS=cpu", "Run: unset JAX_PLATFORMS."
    backend, plugin = ("tpu", "libtpu") if extra == "tpu" else ("cuda", f"jax-{extra}-plugin")
    if machine.version(plugin):
        fix = f"""See why: JAX_PLATFORMS={backend} python -c "import jax; jax.devices()"."""
        return "WARN", f"{detail}; {name} is there and {plugin} is installed, but jax does not use it", fix
    return "WARN", f"{detail}; {name} is not used: this jax is CPU-only", f'Run: pip install "jaxvid[{extra}]".'


def check_decoders() -> tuple[Status, str, str]:
    """PyAV decodes the codecs that action data sets come in, and encodes H.264 for the embedded ones."""
    import av
    import av.codec

    libraries = ", ".join(
        f"{name} {'.'.join(map(str, av.library_versions[name]))}"
        for name in ("libavcodec", "libavformat", "libswscale")
    )
    missing = [codec for codec, names in _SOFTWARE_DECODERS.items() if not any(_codec(name, "r") for name in names)]
    have = ", ".join(codec for codec in _SOFTWARE_DECODERS if codec not in missing)
    encoder = "libx264 encoder" if _codec("libx264", "w") else "no libx264 encoder"
    detail = f"PyAV {av.__version__} ({libraries}); decoders {have or 'none'}; {encoder}"
    fix = 'Install PyAV from its wheel, which brings ffmpeg: pip install --force-reinstall --only-binary av "av>=14".'
    if "h264" in missing or encoder.startswith("no"):
        return "FAIL", detail, fix
    return ("WARN", f"{detail}; missing: {', '.join(missing)}", fix) if missing else ("PASS", detail, "")


def check_round_trip() -> tuple[Status, str, str]:
    """A small H.264 clip is encoded and decoded, and comes back."""
    import numpy as np

    across = np.linspace(0, 255, 64)[None, :, None]
    frames = np.stack([np.broadcast_to((across + 8 * t) % 256, (64, 64, 3)) for t in range(8)]).astype(np.uint8)
    decoded = _decode(_encode(frames))
    if decoded.shape != frames.shape:
        return "FAIL", f"encoded {list(frames.shape)}, decoded {list(decoded.shape)}", "Reinstall PyAV from its wheel."
    error = float(np.median(np.abs(decoded.astype(int) - frames)))
    if error > 8:
        return "FAIL", f"decoded frames differ by {error:.0f} of 255 levels", "Reinstall PyAV from its wheel."
    return "PASS", f"8 frames of 64x64 in H.264 came back within {error:.0f} of 255 levels", ""


def check_shared_memory() -> tuple[Status, str, str]:
    """Decoding processes hand their batches over in shared memory."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return "PASS", f"{platform.system()} has no /dev/shm; nothing to check", ""
    usage = shutil.disk_usage(folder)
    detail = f"/dev/shm holds {_gib(usage.total)}, {_gib(usage.free)} free"
    if usage.free < 0.5 * GIB:
        fix = "Give a container more (docker run --shm-size=4g) or set data.num_workers=0."
        return "WARN", detail, fix
    return "PASS", detail, ""


def check_compile_cache() -> tuple[Status, str, str]:
    """Compiled programs can be kept, so that the second start is fast."""
    return _folder_check(paths.cache_dir(), "JAXVID_CACHE", "WARN")


def check_data_cache() -> tuple[Status, str, str]:
    """Embedded data sets can be made."""
    return _folder_check(paths.data_dir(), "JAXVID_DATA", "FAIL")


def check_disk() -> tuple[Status, str, str]:
    """There is room for checkpoints here, and for data."""
    places = {"current folder": Path.cwd(), "data cache": paths.data_dir()}
    free = {name: shutil.disk_usage(_existing(folder)).free for name, folder in places.items()}
    detail = ", ".join(f"{_gib(size)} free for the {name}" for name, size in free.items())
    if min(free.values()) < 0.5 * GIB:
        return "FAIL", detail, "Free some disk space, or choose another place by --workdir and JAXVID_DATA."
    if min(free.values()) < 5 * GIB:
        return "WARN", detail, "Checkpoints of large networks need several GiB; free some, or choose another --workdir."
    return "PASS", detail, ""


def check_cpu() -> tuple[Status, str, str]:
    """Cores that this process may use: decoding needs them."""
    usable = machine.num_cores()
    detail = f"{usable:g} of {os.cpu_count()} cores usable"
    if usable < 2:
        return "WARN", detail, "With one core, decoding and training take turns; give the container or job two or more."
    return "PASS", detail, ""


def check_memory() -> tuple[Status, str, str]:
    """Memory that this process may use."""
    total, available = machine.memory()
    detail = f"{_gib(available)} of {_gib(total)} available"
    if available < 1 * GIB:
        return "FAIL", detail, "Close other programs, or give the container or job at least 4 GiB."
    if available < 4 * GIB:
        return "WARN", detail, "Keep train.batch_size and data.num_workers small, or close other programs."
    return "PASS", detail, ""


def check_open_files() -> tuple[Status, str, str]:
    """The limit on open files: each decoding process and checkpoint shard takes some."""
    try:
        import resource
    except ImportError:
        return "PASS", f"{platform.system()} has no such limit", ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return "PASS", "no limit", ""
    detail = f"{soft} files may be open at once"
    if soft < 1024:
        return "WARN", detail, f"Run: ulimit -n {4096 if hard == resource.RLIM_INFINITY else min(4096, hard)}."
    return "PASS", detail, ""


CHECKS: dict[str, Callable[[], tuple[Status, str, str]]] = {
    "python": check_python,
    "packages": check_packages,
    "devices": check_devices,
    "decoders": check_decoders,
    "video round trip": check_round_trip,
    "shared memory": check_shared_memory,
    "compile cache": check_compile_cache,
    "data cache": check_data_cache,
    "disk": check_disk,
    "cpu": check_cpu,
    "memory": check_memory,
    "open files": check_open_files,
}


def _requirements() -> Iterator[tuple[str, str]]:
    """``(name, minimum version)`` of every requirement that is not an extra's."""
    for requirement in importlib.metadata.requires("jaxvid") or ():
        if "extra ==" not in requirement:
            name, _, rest = requirement.partition(">=")
            yield re.split(r"[\[ ;]", name)[0], re.split(r"[,; ]", rest)[0]


def _numbers(version: str) -> tuple[int, ...]:
    """``"0.10.2.dev3" -> (0, 10, 2)``: the leading numbers."""
    return tuple(int(part) for part in re.match(r"[\d.]*", version).group().split(".") if part)  # type: ignore[union-attr]


def _codec(name: str, mode: Literal["r", "w"]) -> bool:
    import av.codec
    import av.error

    try:
        av.codec.Codec(name, mode)
    except (av.codec.codec.UnknownCodecError, av.error.FFmpegError):
        return False
    return True


def _encode(frames) -> bytes:
    """``uint8[T H W 3]`` as an MP4 file with one H.264 stream."""
    import av

    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


def _decode(video: bytes):
    """Every frame of a file, ``uint8[T H W 3]``."""
    import av
    import numpy as np

    with av.open(io.BytesIO(video), "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _folder_check(folder: Path, variable: str, otherwise: Status) -> tuple[Status, str, str]:
    problem = paths.why_not_writable(folder)
    if problem:
        return otherwise, problem, f"Set {variable} to a folder that can be written."
    return "PASS", f"{folder} can be written", ""


def _existing(folder: Path) -> Path:
    """The folder or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
