"""The pass over the training videos that finds which classes a network confuses."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxvid.data.quarantine import Quarantine
from jaxvid.train import assemble, load_run, train
from jaxvid.train.similarity import class_sparsity


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return load_run(train(tiny(**{"train.max_steps": 1}), tmp_path_factory.mktemp("run")).workdir)


def measure(run):
    return class_sparsity(run, assemble.open_dataset(run.config, "train"), Quarantine(None, 1.0))


@pytest.fixture(scope="module")
def found(run):
    return measure(run)


def test_it_counts_the_zeros_behind_the_last_stage(found):
    assert found.zeros.shape == (3, 16)
    assert found.positions.tolist() == [5] * 3  # five clips of each class, of one position there
    np.testing.assert_array_equal(found.shares, found.zeros / 5)
    assert 0 < found.zeros.sum() < 15 * 16


def test_eight_devices_count_the_same(run, found):
    other = measure(load_run(run.checkpoint, {"train.mesh": (("data", 8),)}))
    np.testing.assert_array_equal(other.zeros, found.zeros)
    np.testing.assert_array_equal(other.positions, found.positions)


def test_a_clip_that_cannot_be_decoded_does_not_count(run, found, videos, tmp_path):
    """Here one class has no clip that can."""
    for split in ("train", "val"):
        for path in (videos / split).glob("*/*.mp4"):
            target = tmp_path / path.relative_to(videos)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"" if (split, path.parent.name) == ("train", "clap") else path.read_bytes())
    fields = {"data.root": str(tmp_path), "data.max_bad_fraction": 1.0}
    part = measure(load_run(run.checkpoint, fields))
    assert part.positions.tolist() == [5, 0, 5]
    np.testing.assert_array_equal(part.zeros[[0, 2]], found.zeros[[0, 2]])
    assert np.isnan(part.shares[1]).all()


def test_a_network_that_never_returns_a_zero_is_refused(run):
    def lifted(path, leaf):
        return leaf + 1e6 if path[-1].key == "bias" and path[0].key == "stage4" else leaf

    params = jax.tree_util.tree_map_with_path(lifted, run.variables["params"])
    with pytest.raises(ValueError, match="must return zeros now and then"):
        measure(dataclasses.replace(run, variables={**run.variables, "params": params}))
