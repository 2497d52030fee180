"""What each operator's cases consist of: inputs, formulations, and the arithmetic that the definition asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import jax

from jaxvid import ops
from jaxvid.benchmarks import flax_cells
from jaxvid.benchmarks.op_shapes import OpCase, frozen_options
from jaxvid.ops import convolution, soft_pooling
from jaxvid.ops.recurrence import NUM_GATES


@dataclass(frozen=True)
class Problem:
    """One case, ready to be measured.

    Attributes:
      shapes: of the inputs of the benchmark's dtype.
      implementations: name -> function of those inputs and of ``extra``.
      reference: the name of the plain formula among them.
      default: what the operator does when nothing is chosen.
      flops: of the forward pass: additions, multiplications, functions and comparisons.
      backward_flops: of the backward pass alone.
      extra: other inputs.
      gradients_of: positions in ``shapes`` of what the backward pass differentiates; ``None`` means all.
      layouts: name of an implementation with inputs of its own -> what makes them of the common ones, before the clock
        runs; then ``gradients_of`` is ``None``.
    """

    shapes: tuple[tuple[int, ...], ...]
    implementations: Mapping[str, Callable]
    reference: str
    default: Callable
    flops: int
    backward_flops: int
    extra: tuple = ()
    gradients_of: tuple[int, ...] | None = None
    layouts: Mapping[str, Callable] = field(default_factory=dict)


def _conv3d(case: OpCase) -> Problem:
    options, kernel = frozen_options(case), case.options["kernel"]
    depthwise = case.options.get("groups", 1) == case.shape[-1] == kernel[-1]
    names = {
        name: partial(ops.conv3d, **options, implementation=name)
        for name in convolution.IMPLEMENTATIONS
        if depthwise or name not in ("shifted", "pallas")
    }
    default = partial(ops.conv3d, **options)
    shapes = (case.shape, kernel)
    macs = math.prod(_result(default, shapes)) * math.prod(kernel[:4])
    wanted = (1,) if case.shape[-1] == 3 else (0, 1)  # nobody asks for the gradient of a video
    return Problem(shapes, names, "direct", default, 2 * macs, 2 * macs * len(wanted), gradients_of=wanted)


def _softpool(case: OpCase) -> Problem:
    default = partial(ops.softpool, **case.options)
    names = {name: partial(ops.softpool, **case.options, implementation=name) for name in soft_pooling.IMPLEMENTATIONS}
    names["reference"] = partial(ops.softpool_reference, **case.options)
    # An entry of a window: a comparison, a difference, an exponential, a product and two sums; backward as many.
    work = 6 * math.prod(_result(default, (case.shape,))) * math.prod(case.options["window"])
    return Problem((case.shape,), names, "reference", default, work, work)


def _pool(name: str, flops_per_tap: int, case: OpCase, extra: tuple = ()) -> Problem:
    """A pooling and its reference; the arithmetic is so much per entry of a window."""
    default, reference = (_pooling(f"{name}{suffix}", case) for suffix in ("", "_reference"))
    taps = math.prod(_result(default, (case.shape,), extra)) * math.prod(case.options["window"])
    work = flops_per_tap * taps
    names = {"default": default, "reference": reference}
    return Problem((case.shape,), names, "reference", default, work, work, extra)


def _pooling(name: str, case: OpCase) -> Callable:
    return lambda x, *key: getattr(ops, name)(x, **case.options, **({"key": key[0]} if key else {}))


def _stochastic_pool3d(case: OpCase) -> Problem:
    return _pool("stochastic_pool3d", 4, case, (jax.random.key(0),))


def _recur(case: OpCase) -> Problem:
    cell, num_layers, channels = case.options["cell"], case.options["num_layers"], case.shape[-1]
    wide = NUM_GATES[cell] * channels
    of_layer = ((channels, wide), (channels, wide), (wide,), (wide,))

    def stack(x: Any, *weights: Any) -> tuple[Any, list[ops.LayerWeights]]:
        return x, [ops.LayerWeights(*weights[k : k + 4]) for k in range(0, len(weights), 4)]

    def run(function: Callable, *inputs: Any) -> Any:
        return function(*stack(*inputs), cell=cell)

    def to_flax(name: str, *inputs: Any) -> list[Any]:
        x, layers = stack(*inputs)
        return [x, *(flax_cells.to_params(name, layer) for layer in layers)]

    names = {"default": partial(run, ops.recur), "reference": partial(run, ops.recur_reference)}
    of_flax = flax_cells.NAMES.get(cell, ())
    names |= {f"flax {name}": partial(flax_cells.run, name) for name in of_flax}
    layouts = {f"flax {name}": partial(to_flax, name) for name in of_flax}
    flops = math.prod(case.shape[:2]) * num_layers * 2 * 2 * channels * wide
    shapes = (case.shape, *of_layer * num_layers)
    return Problem(shapes, names, "reference", names["default"], flops, 2 * flops, layouts=layouts)


def _select_frames(case: OpCase) -> Problem:
    run = partial(ops.select_frames, **case.options)
    return Problem((case.shape,), {"default": run}, "default", run, math.prod(case.shape), 0)


def _resize_trilinear(case: OpCase) -> Problem:
    names = {
        "default": partial(ops.resize_trilinear, **case.options),
        "reference": partial(ops.resize_trilinear_reference, **case.options),
    }
    flops = 6 * math.prod(_result(names["default"], (case.shape,)))  # three interpolations, the last one at least
    return Problem((case.shape,), names, "reference", names["default"], flops, flops)


def _temporal_shift(case: OpCase) -> Problem:
    names = {
        "default": partial(ops.temporal_shift, **case.options),
        "reference": partial(ops.temporal_shift_reference, **case.options),
    }
    return Problem((case.shape,), names, "reference", names["default"], 0, 0)


def _cyclic_consistency(case: OpCase) -> Problem:
    N, T, C = case.shape
    names = {"default": ops.cyclic_consistency}
    # In both directions: distances, weighted means, distances.
    return Problem((case.shape,) * 2, names, "default", ops.cyclic_consistency, 2 * N * T * T * C * (3 + 2 + 3), 0)


PROBLEMS: Mapping[str, Callable[[OpCase], Problem]] = MappingProxyType(
    {
        "conv3d": _conv3d,
        "softpool": _softpool,
        "max_pool3d": partial(_pool, "max_pool3d", 1),
        "avg_pool3d": partial(_pool, "avg_pool3d", 1),
        "stochastic_pool3d": _stochastic_pool3d,
        "recur": _recur,
        "select_frames": _select_frames,
        "resize_trilinear": _resize_trilinear,
        "temporal_shift": _temporal_shift,
        "cyclic_consistency": _cyclic_consistency,
    }
)
"""Name of an operator -> its case as a problem."""


def _result(function: Callable, shapes: tuple, extra: tuple = ()) -> tuple[int, ...]:
    arrays = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    return jax.eval_shape(function, *arrays, *extra).shape
