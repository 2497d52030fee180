"""Convolutions and their gradients over a sharded batch, which XLA's partitioner gathers or gets wrong."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import jax
from jax import lax
from jax.custom_batching import sequential_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

if TYPE_CHECKING:
    from jaxtyping import Array, Float

X, KERNEL, Y = range(3)
AXES = ("n t h w i", "a b c j o", "n u v y p")
"""Of the three arrays that meet in a convolution; ``n``, the batch, is the only one that may be divided."""


def convolve_in_place(
    convolve: Callable[[Any, Any], Any], x: Float[Array, "N T H W I"], kernel: Float[Array, "kT kH kW J O"]
) -> Float[Array, "N To Ho Wo O"]:
    """Computes ``convolve(x, kernel)``, and its gradients, with every sample on the device that holds it.

    For a convolution of groups wider than one channel, and for its input's gradient, XLA gathers a sharded batch (issue
    47945 of openxla/xla). The kernel's gradient of any grouped convolution comes out too large where a mesh has a
    second axis: times the number of devices that hold the same samples (seen with jax 0.10.2 and 0.11.2). So this says
    by hand what each device computes: the convolution of its own samples, and for the kernel's gradient a sum over
    devices. On one device nothing changes.

    Args:
        convolve: Linear in each argument; sample ``n`` of its result is made of ``x[n]`` and the kernel alone.
        x: Activations.
        kernel: Every device needs all of it. Of the dtype of ``x``.

    Returns:
        ``convolve(x, kernel)``, with derivatives of any order in reverse mode and none in forward mode. ``vmap`` is a
        loop; ``jax.export`` takes it for one device only.
    """
    return solve(Meeting(convolve, x.shape[1:], kernel.shape), Y, x, kernel)


class Trilinear(Protocol):
    """The sum of ``y * convolve(x, kernel)``: linear in all three, so any two give the gradient of the third.

    The result of the convolution is the gradient of ``y``. Hashable.
    """

    @property
    def divisible(self) -> bool:
        """Whether XLA's partitioner may be trusted with it."""
        ...

    def solve(self, wanted: int, first: Array, second: Array) -> Array:
        """The gradient of the wanted one of ``x, kernel, y`` from the two others, in this order."""
        ...


@dataclasses.dataclass(frozen=True)
class Meeting:
    """XLA's grouped convolution as a :class:`Trilinear`."""

    divisible: ClassVar[bool] = False

    convolve: Callable[[Any, Any], Any]
    sizes: tuple[int, ...]
    kernel_shape: tuple[int, ...]

    def solve(self, wanted: int, first: Array, second: Array) -> Array:
        """See :class:`Trilinear`."""
        if wanted == Y:
            return self.convolve(first, second)
        if wanted == X:
            kernel, y, shape = first, second, (second.shape[0], *self.sizes)
            transpose = jax.linear_transpose(lambda x: self.convolve(x, kernel), jax.ShapeDtypeStruct(shape, y.dtype))
        else:
            x, y, shape = first, second, self.kernel_shape
            transpose = jax.linear_transpose(lambda k: self.convolve(x, k), jax.ShapeDtypeStruct(shape, y.dtype))
        return transpose(y)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def solve(meeting: Trilinear, wanted: int, first: Array, second: Array) -> Array:
    """:meth:`Trilinear.solve` with derivatives of any order in reverse mode, every sample staying on its device."""
    if meeting.divisible:
        return meeting.solve(wanted, first, second)
    return sequential_vmap(keeping_samples(meeting, wanted))(first, second)


def _forward(meeting: Trilinear, wanted: int, *given: Array) -> tuple[Array, tuple[Array, ...]]:
    return solve(meeting, wanted, *given), given


def _backward(meeting: Trilinear, wanted: int, given: tuple[Array, ...], cotangent: Array) -> tuple[Array, ...]:
    # The cotangent takes the place of what was wanted.
    three = [*given[:wanted], cotangent, *given[wanted:]]
    return tuple(solve(meeting, k, *three[:k], *three[k + 1 :]) for k in (X, KERNEL, Y) if k != wanted)


solve.defvjp(_forward, _backward)


def keeping_samples(meeting: Trilinear, wanted: int) -> Callable[[Array, Array], Array]:
    """:meth:`Trilinear.solve` for the wanted one, with what the partitioner of XLA must know about it."""
    given = [k for k in (X, KERNEL, Y) if k != wanted]

    def partition(mesh: Any, arguments: Any, result: Any) -> tuple[Any, ...]:
        spec = arguments[given.index(X if wanted != X else Y)].sharding.spec
        batch = spec[0] if spec else None

        def of_one_device(first: Array, second: Array) -> Array:
            part = meeting.solve(wanted, first, second)
            return lax.psum(part, batch) if wanted == KERNEL and batch else part

        shardings = [NamedSharding(mesh, PartitionSpec(None if k == KERNEL else batch)) for k in (X, KERNEL, Y)]
        return mesh, of_one_device, shardings[wanted], tuple(shardings[k] for k in given)

    call = custom_partitioning(lambda first, second: meeting.solve(wanted, first, second))
    rule = f"{AXES[given[0]]}, {AXES[given[1]]} -> {AXES[wanted]}"
    call.def_partition(
        partition,
        sharding_rule=rule,
        reduction_factors=("n",) if wanted == KERNEL else (),
        need_replication_factors=tuple(dict.fromkeys(axis for axis in rule if axis.isalpha() and axis != "n")),
    )
    return call
