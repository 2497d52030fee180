"""Operators: how long each formulation takes, and what share of this machine's own peak that is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.benchmarks.op_problems import PROBLEMS
from jaxvid.benchmarks.op_shapes import OpCase, cases
from jaxvid.benchmarks.timing import Timing, describe_machine, measure
from jaxvid.ops.choices import require_choice

MIN_RUN_SECONDS = 0.02
"""A run holds so many calls of a short operator that the clock and the launch of one call do not count."""
MAX_CALLS = 200
LONG_SECONDS = 3
"""What takes longer than this is measured once: it is a formulation to avoid, and the whole should stay minutes."""
MAX_CPU_ENTRIES = 2**22
"""On a CPU the batch is cut to inputs of this many numbers; the line's ``shape`` says what was measured."""


def bench_ops(
    *, op: str | None = None, quick: bool = False, runs: int = 5, dtypes: tuple[str, ...] | None = None
) -> Iterator[dict[str, Any]]:
    """Times every formulation of every operator on the shapes of :mod:`jaxvid.benchmarks.op_shapes`, on one device.

    A line is one formulation in one direction. ``bytes`` are the least that it moves (each input, result, cotangent and
    gradient once), ``flops`` the arithmetic that the definition asks for. ``fraction_of_peak`` is the larger one of
    ``bytes`` a second over the bandwidth of a large copy in place, and ``flops`` a second over the rate of a large
    matrix product of the same dtype, both measured first; what fits into a cache may pass 1. ``ratio_to_reference`` is
    the time over that of the plain formula, so below 1 is faster; ``spread`` holds the quartiles, in ms; ``is_default``
    tells whether the operator does just this when no implementation is named. A formulation that this machine refuses
    has ``median_ms`` null and the sentence in ``skipped``.

    Args:
      op: one operator; all by default.
      quick: small shapes, which show that everything runs and not how fast.
      runs: counted runs; fewer of what takes seconds.
      dtypes: of the inputs; by default float32, and bfloat16 too where it is not a CPU.

    Raises:
      ValueError: there is no operator or dtype of that name, or ``runs`` is below 1.
    """
    chosen = [_cut(case) for case in cases(op, quick=quick)]
    for name in dtypes or ():
        require_choice("dtype", name, ("float32", "bfloat16", "float16"))
    for dtype in dtypes or (("float32",) if jax.default_backend() == "cpu" else ("float32", "bfloat16")):
        peaks = measure_peaks(jnp.dtype(dtype), quick=quick, runs=runs)
        for case in chosen:
            yield from _bench_case(case, jnp.dtype(dtype), peaks, runs)


def measure_peaks(dtype: Any, *, quick: bool, runs: int) -> dict[str, float]:
    """The fastest of some copies (bytes read and written a second) and of some square matrix products (flops)."""
    large, side = (2**20, 256) if quick else (2**26, 2048 if jax.default_backend() == "cpu" else 8192)
    array, matrix = jnp.zeros(large, jnp.float32), jnp.ones((side, side), dtype)
    nbytes = 2 * array.nbytes
    runs = runs if quick else max(runs, 12)  # everything else is compared with these two
    # In place: on a CPU a new large array is mapped page by page, which takes several times longer than the copy.
    increment = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy() -> Any:
        nonlocal array
        array = increment(array)
        return array

    product = jax.jit(jnp.matmul)
    copies, _ = _measure(copy, (), runs)
    products, _ = _measure(product, (matrix, matrix), runs)
    return {
        "copy_bytes_per_second": nbytes / min(copies.seconds),
        "matrix_flops_per_second": 2 * side**3 / min(products.seconds),
    }


def _bench_case(case: OpCase, dtype: Any, peaks: Mapping[str, float], runs: int) -> Iterator[dict[str, Any]]:
    problem = PROBLEMS[case.op](case)
    arrays = [_noise(shape, dtype, seed) for seed, shape in enumerate(problem.shapes)]
    result = jax.eval_shape(problem.implementations[problem.reference], *arrays, *problem.extra)
    wanted = range(len(arrays)) if problem.gradients_of is None else problem.gradients_of
    moved = {"forward": _nbytes([*arrays, result])}
    moved["forward+backward"] = moved["forward"] + _nbytes([result, *(arrays[k] for k in wanted)])
    for direction in moved:
        if direction != "forward" and not jnp.issubdtype(result.dtype, jnp.floating):
            continue  # a decision has no gradient
        work = {
            "bytes": moved[direction],
            "flops": problem.flops if direction == "forward" else problem.flops + problem.backward_flops,
        }
        rest: tuple = (problem.extra,)
        if direction != "forward":
            rest += (_noise(result.shape, result.dtype, 99),)
        inputs = (arrays, *rest)
        default = _lowered(problem.default, inputs, wanted)
        reference = None
        # The reference comes first, since the others are compared with it.
        for name in sorted(problem.implementations, key=lambda name: name != problem.reference):
            line = {
                "benchmark": "ops",
                "op": case.op,
                "shape": list(case.shape),
                "options": {key: list(v) if isinstance(v, tuple) else v for key, v in case.options.items()},
                "dtype": dtype.name,
                "implementation": name,
                "direction": direction,
                **work,
                "reference": problem.reference,
                **peaks,
            }
            own, chosen = inputs, wanted
            if name in problem.layouts:
                own = (list(problem.layouts[name](*arrays)), *rest)
                chosen = range(len(own[0]))
            try:
                lowered = _lowered(problem.implementations[name], own, chosen)
                timing, calls = _measure(lowered.compile(), own, runs)
            except (ValueError, NotImplementedError, RuntimeError) as error:
                skipped = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                yield line | {"median_ms": None, "fraction_of_peak": None, "skipped": skipped} | describe_machine()
                continue
            reference = timing.median if name == problem.reference else reference
            yield {
                **line,
                "is_default": lowered.as_text() == default.as_text(),
                **_figures(timing, work, peaks, reference),
                "calls_per_run": calls,
                **describe_machine(),
            }


def _cut(case: OpCase) -> OpCase:
    """The case with as much of its batch as a CPU does in a moment; other devices take it whole."""
    per_clip = math.prod(case.shape[1:])
    if jax.default_backend() != "cpu" or case.shape[0] * per_clip <= MAX_CPU_ENTRIES:
        return case
    return dataclasses.replace(case, shape=(max(1, MAX_CPU_ENTRIES // per_clip), *case.shape[1:]))


def _figures(timing: Timing, work: dict, peaks: Mapping[str, float], reference: float | None) -> dict[str, Any]:
    summary = timing.summary()
    shares = {
        "bytes": work["bytes"] / timing.median / peaks["copy_bytes_per_second"],
        "flops": work["flops"] / timing.median / peaks["matrix_flops_per_second"],
    }
    bound = max(shares, key=lambda name: shares[name])
    return {
        "median_ms": 1e3 * timing.median,
        "spread": [1e3 * value for value in summary["seconds_quartiles"]],
        "fraction_of_peak": shares[bound],
        "bound": bound,
        "ratio_to_reference": reference and timing.median / reference,
        "runs": summary["runs"],
        "warmup": summary["warmup"],
    }


def _lowered(function: Callable, inputs: tuple, wanted: Sequence[int]) -> Any:
    """``function`` of arrays and extra inputs, or with a cotangent its value and gradients, ready to compile."""

    def forward(arrays: list, extra: tuple) -> Any:
        return function(*arrays, *extra)

    def both(arrays: list, extra: tuple, cotangent: jax.Array) -> Any:
        def of_wanted(*chosen: jax.Array) -> Any:
            replaced = dict(zip(wanted, chosen, strict=True))
            return forward([replaced.get(k, array) for k, array in enumerate(arrays)], extra)

        y, pull = jax.vjp(of_wanted, *(arrays[k] for k in wanted))
        return y, pull(cotangent)

    return jax.jit(forward if len(inputs) == 2 else both).lower(*inputs)


def _measure(function: Callable, inputs: tuple, runs: int) -> tuple[Timing, int]:
    """Times calls, several to a run where they are short; the times are of one call, the number is that of a run."""
    jax.block_until_ready(function(*inputs))  # with whatever happens only once
    second = measure(lambda: jax.block_until_ready(function(*inputs)), runs=1, warmup=0)
    if second.median > LONG_SECONDS:
        return dataclasses.replace(second, warmup=1), 1
    once = second.median
    calls = min(MAX_CALLS, math.ceil(MIN_RUN_SECONDS / max(once, 1e-9)))
    one_by_one = jax.default_backend() == "cpu"  # an accelerator has its next call ready while it works

    def run() -> None:
        for _ in range(calls):
            result = function(*inputs)
            if one_by_one:
                jax.block_until_ready(result)
        jax.block_until_ready(result)

    timing = measure(run, runs=min(runs, 3) if once > 1 else runs, warmup=int(once <= 1))
    one = (tuple(s / calls for s in seconds) for seconds in (timing.seconds, timing.cpu_seconds))
    return Timing(*one, warmup=2 + timing.warmup * calls), calls


def _noise(shape: tuple[int, ...], dtype: Any, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32) / 4, dtype)


def _nbytes(arrays: list) -> int:
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)
