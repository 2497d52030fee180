"""The table of shapes: complete, every case is one that its operator takes, and quick ones are small."""

import math

import jax
import pytest

from jaxvid import ops
from jaxvid.benchmarks.op_problems import PROBLEMS
from jaxvid.benchmarks.op_shapes import CASES, cases, frozen_options


def test_every_operator_has_both_kinds_of_shapes_and_no_case_twice():
    assert {case.op for case in CASES} == set(PROBLEMS)
    for op in PROBLEMS:
        assert hasattr(ops, op)
        assert list(cases(op))
        assert list(cases(op, quick=True))
    keys = [(case.op, case.shape, str(case.options)) for case in CASES]
    assert len(set(keys)) == len(keys)
    assert len(list(cases())) + len(list(cases(quick=True))) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.shape}")
def test_every_formulation_of_every_case_has_the_same_result_shape(case):
    problem = PROBLEMS[case.op](case)
    arrays = [jax.ShapeDtypeStruct(shape, "float32") for shape in problem.shapes]
    shapes = set()
    for name, function in {"": problem.default, **problem.implementations}.items():
        own = jax.eval_shape(problem.layouts[name], *arrays) if name in problem.layouts else arrays
        try:
            shapes.add(jax.eval_shape(function, *own, *problem.extra).shape)
        except ValueError:  # a formulation that is not made for this case says so, but never these two
            if name in ("", problem.reference):
                raise
    assert len(shapes) == 1
    assert problem.shapes[0] == case.shape
    assert not case.quick or math.prod(case.shape) < 4000


def test_options_leave_the_kernel_out():
    case = next(cases("conv3d"))
    assert "kernel" in case.options
    assert "kernel" not in frozen_options(case)


def test_an_unknown_operator_is_refused():
    with pytest.raises(ValueError, match="did you mean 'conv3d'"):
        cases("conv3")
