"""What the README shows runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_python_block_gives_finite_logits_for_every_clip():
    """With a narrower network and a smaller clip than it shows, and nothing else changed."""
    (block,) = BLOCKS  # a further block needs a test of its own
    small = block.replace("16, 112, 112, 3", "8, 32, 32, 3").replace("num_classes=400", "num_classes=400, width=4")
    assert small.count("8, 32, 32, 3") == small.count("width=4") == 1
    names = {}
    exec(compile(small, "README.md", "exec"), names)
    assert names["logits"].shape == (names["video"].shape[0], 400)
    assert names["logits"].dtype == jnp.float32
    assert jnp.isfinite(names["logits"]).all()


@pytest.mark.slow
def test_the_python_block_runs_in_a_fresh_interpreter_as_it_stands():
    (block,) = BLOCKS
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", f"{block}\nprint(logits.shape, bool(jax.numpy.isfinite(logits).all()))"],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=README.parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "(1, 400) True"
