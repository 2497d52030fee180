import subprocess
import sys

import pytest

from jaxvid import train


def test_every_public_name_is_found_in_its_file():
    assert set(train._HOMES) == set(train.__all__) <= set(dir(train))
    for name in train.__all__:
        assert getattr(train, name).__module__ == f"jaxvid.train.{train._HOMES[name]}", name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'jaxvid\.train' has no attribute 'trian'"):
        _ = train.trian


def test_importing_the_package_brings_in_nothing_heavy():
    code = "import sys, jaxvid.train; print([n for n in ('jax', 'flax', 'av', 'orbax', 'grain') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
