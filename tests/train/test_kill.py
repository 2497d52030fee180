"""Real processes, really killed: a resumed run is the uninterrupted one, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEYS = ("step", "loss", "grad_norm", "batch_sha256")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small `motion` in it; compilations are shared by all runs below."""
    from jaxvid.data.datasets.motion import make_motion

    folder = tmp_path_factory.mktemp("kill")
    make_motion(folder / "motion", num_train_per_class=10, num_val_per_class=2, num_workers=0)
    return folder


def start(place: Path, name: str, *overrides: str, config: str = "motion_smoke") -> subprocess.Popen:
    environment = {**os.environ, "JAXVID_CACHE": str(place / "xla"), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "jaxvid.cli", "train", f"--config=configs/{config}.py"]
    command += [f"--workdir={place / name}"]
    if config == "motion_smoke":
        command += [f"--config.data.root={place / 'motion'}", "--config.train.max_steps=40"]
        command += ["--config.train.num_epochs=9", "--config.eval.every_epochs=1"]  # 120 clips: 15 steps an epoch
    log = (place / f"{name}.log").open("a")
    return subprocess.Popen([*command, *overrides], cwd=ROOT, env=environment, stdout=log, stderr=log)


def finish(place: Path, name: str, *overrides: str, config: str = "motion_smoke") -> None:
    code = start(place, name, *overrides, config=config).wait(timeout=300)
    assert code == 0, (place / f"{name}.log").read_text()[-3000:]


def lines(workdir: Path) -> list[dict]:
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def steps(workdir: Path) -> list[tuple]:
    return [tuple(line[key] for key in KEYS) for line in lines(workdir) if "loss" in line]


def evaluations(workdir: Path) -> list[tuple]:
    return [(line["step"], line["eval/top1"], line["eval/loss"]) for line in lines(workdir) if "eval/top1" in line]


@pytest.fixture(scope="module")
def undisturbed(place):
    finish(place, "undisturbed")
    return place / "undisturbed"


def wait_until(condition, process: subprocess.Popen, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run did not come so far in time"
        time.sleep(0.002)


def num_steps(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_text(encoding="utf-8").count('"batch_sha256"') if path.exists() else 0


def test_sigkill_at_three_moments_changes_nothing(place, undisturbed):
    name, workdir = "killed", place / "killed"
    rng = random.Random(0)

    process = start(place, name)
    at = rng.randint(2, 4)
    wait_until(lambda: num_steps(workdir) >= at, process)  # before the first checkpoint
    process.kill()
    process.wait()

    process = start(place, name)
    saving = lambda: any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))  # noqa: E731
    wait_until(saving, process)  # while a checkpoint is being written
    process.kill()
    process.wait()

    process = start(place, name, "--config.data.num_workers=1")
    at = rng.randint(18, 30)
    wait_until(lambda: num_steps(workdir) >= at, process)  # in the middle
    process.kill()
    process.wait()

    finish(place, name)
    assert steps(workdir) == steps(undisturbed)
    assert [step for step, *_ in steps(workdir)] == list(range(1, 41))
    assert [step for step, *_ in evaluations(workdir)] == [15, 30, 40]
    assert evaluations(workdir) == evaluations(undisturbed)


def test_sigterm_saves_and_exits_cleanly(place, undisturbed):
    name, workdir = "terminated", place / "terminated"
    process = start(place, name, "--config.checkpoint.every_steps=0", "--config.eval.every_epochs=9.0")
    wait_until(lambda: num_steps(workdir) >= 7, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    written = num_steps(workdir)
    saved = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()]
    assert saved == [written]
    finish(place, name)
    assert steps(workdir) == steps(undisturbed)


def test_sigkill_in_each_stage_changes_nothing(place):
    """Of U2S, on images: the losses of every stage, and the similarity of the classes between them."""
    overrides = ("--config.model.width=2", "--config.train.max_steps=12", "--config.checkpoint.every_steps=4")
    overrides += ("--config.train.batch_size=128", "--config.eval.batch_size=128", "--config.train.tensorboard=false")
    fields = {"config": "digits_u2s"}
    finish(place, "stages", *overrides, **fields)
    whole, killed = place / "stages", place / "stages-killed"
    for stage, at in (("universal", 6), ("specific", 2), ("specific", 9), ("joint", 6)):
        process = start(place, killed.name, *overrides, **fields)
        wait_until(lambda stage=stage, at=at: num_steps(killed / stage) >= at, process)
        process.kill()
        process.wait()
        if (stage, at) == ("specific", 2):  # as if it had come before the similarity was whole
            (killed / "similarity" / "similarity.npz").unlink()
    finish(place, killed.name, *overrides, **fields)
    for stage in ("universal", "specific", "joint"):
        assert [step for step, *_ in steps(killed / stage)] == list(range(1, 13))
        assert steps(killed / stage) == steps(whole / stage)
        assert evaluations(killed / stage) == evaluations(whole / stage)
    name = Path("similarity") / "similarity.npz"
    assert (killed / name).read_bytes() == (whole / name).read_bytes()
