"""Flax's cells compute what ours do, so that their times may be compared."""

import jax
import numpy as np
import pytest

from jaxvid.benchmarks.flax_cells import NAMES
from jaxvid.benchmarks.op_problems import PROBLEMS
from jaxvid.benchmarks.op_shapes import OpCase


@pytest.mark.parametrize(("cell", "name"), [(cell, name) for cell, names in NAMES.items() for name in names])
def test_flax_cell_of_the_same_weights_gives_the_same_numbers(cell, name):
    problem = PROBLEMS["recur"](OpCase("recur", (2, 5, 3), {"cell": cell, "num_layers": 2}))
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape, np.float32) for shape in problem.shapes]
    name = f"flax {name}"
    received = problem.implementations[name](*problem.layouts[name](*arrays))
    expected = problem.implementations["default"](*arrays)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected).max() > 0.1
    leaves = jax.tree.leaves(problem.layouts[name](*arrays))
    # All kernels, and all biases that Flax keeps.
    assert sum(leaf.size for leaf in leaves) == sum(a.size for a in arrays) - 2 * 3 * (4 if cell == "lstm" else 2)
