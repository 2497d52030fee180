"""Devices as a mesh with named axes, and how batches and states are laid over it.

Training is data parallel: a batch is split along its first axis over the mesh axis ``data``, a state lies whole on
every device. The compiled step sees global arrays, so that a mean over the batch is a mean over all devices.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxvid.types import Array

DATA_AXIS = "data"
T = TypeVar("T")


def make_mesh(axes: Sequence[tuple[str, int]], *, devices: Sequence[Any] | None = None) -> Mesh:
    """Arranges the devices of all hosts along named axes.

    Args:
      axes: ``(name, size)`` pairs, ``"data"`` among them; one size may be -1, which takes all devices that are left.
      devices: the ``jax.Device`` objects to arrange; all by default. Where every size is given and their product is
        smaller, the first ones are used (one process only).

    Returns:
      A mesh with Auto axes: the compiler chooses the sharding of intermediate values.

    Raises:
      ValueError: the axes are ill-formed or do not fit the number of devices.

    >>> make_mesh((("data", 1),)).shape["data"]
    1
    """
    devices = list(jax.devices() if devices is None else devices)
    names, sizes = [name for name, _ in axes], [size for _, size in axes]
    if DATA_AXIS not in names or len(set(names)) != len(names):
        raise ValueError(f"the mesh must have the axis {DATA_AXIS!r} and each axis once, received axes={tuple(axes)}.")
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"the mesh's sizes must be >= 1, at most one of them -1, received axes={tuple(axes)}.")
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if len(devices) % known:
            raise ValueError(
                f"the mesh's sizes must divide the number of devices, "
                f"received axes={tuple(axes)} with {len(devices)} devices."
            )
        sizes[sizes.index(-1)] = len(devices) // known
    elif known > len(devices) or (known < len(devices) and jax.process_count() > 1):
        rule = "be at most the number of devices" if jax.process_count() == 1 else "be the number of devices"
        raise ValueError(
            f"the product of the mesh's sizes must {rule}, "
            f"received axes={tuple(axes)}, a product of {known}, with {len(devices)} devices."
        )
    used = devices[: math.prod(sizes)]
    return jax.make_mesh(tuple(sizes), tuple(names), axis_types=(AxisType.Auto,) * len(names), devices=used)


def split_cpu(count: int) -> str | None:
    """Makes ``count`` devices of this host's CPU; call it before anything else uses a device.

    XLA computes much of a network on one core a device, so that on several devices more cores work. It changes nothing
    on a GPU or TPU.

    Args:
      count: at least 1; 1 leaves everything as it is.

    Returns:
      One sentence, when the number of devices was settled earlier and is another one; else ``None``.
    """
    if count == 1 or jax.config.jax_num_cpu_devices == count:  # type: ignore[attr-defined]
        return None
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # devices are in use already
            jax.config.update("jax_num_cpu_devices", count)
            return None
    if jax.default_backend() != "cpu" or jax.local_device_count() == count:
        return None
    return f"The CPU stays {jax.local_device_count()} devices, settled before train.cpu_devices={count} was read."


def host_shard() -> tuple[int, int]:
    """``(index, count)`` of this host: which share of every batch it reads. Shares follow each other as in :func:`put`.

    >>> host_shard()
    (0, 1)
    """
    return jax.process_index(), jax.process_count()


def batch_multiple(mesh: Mesh) -> int:
    """What the size of a global batch must be a multiple of: of the devices along ``data``, and of the hosts.

    >>> batch_multiple(make_mesh((("data", 1),)))
    1
    """
    return math.lcm(mesh.shape[DATA_AXIS], jax.process_count())


def fitting_batch_size(size: int, mesh: Mesh) -> int:
    """The smallest number of clips, at least ``size``, that can be split over the devices."""
    multiple = batch_multiple(mesh)
    return -(-size // multiple) * multiple


def over_data(mesh: Mesh) -> NamedSharding:
    """The layout of batches: the first axis split over ``data``."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def everywhere(mesh: Mesh) -> NamedSharding:
    """The layout of states and metrics: whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Array]:
    """Puts this host's rows of a batch on its devices, as part of a global batch over all hosts.

    Args:
      batch: arrays with one row per clip, the same number in every array and on every host. They must not be written
        to afterwards: on a CPU the device array may share their memory.
      mesh: from :func:`make_mesh`.

    Returns:
      The global arrays, split over ``data``; hosts follow each other in the order of their index.

    Raises:
      ValueError: the rows are unequal, or the devices along ``data`` do not divide their number.
    """
    rows = {name: len(value) for name, value in batch.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(f"every array of a batch must have the same number of rows, received {rows}.")
    hosts, size = jax.process_count(), mesh.shape[DATA_AXIS]
    total = next(iter(rows.values())) * hosts
    if total % size or total == 0:
        raise ValueError(
            f"batch_size must be a multiple of the number of devices along the mesh axis {DATA_AXIS!r}, "
            f"received a batch of {total} clips for {size} devices."
        )
    layout = over_data(mesh)
    return {
        name: jax.make_array_from_process_local_data(layout, np.asarray(value), (total, *np.shape(value)[1:]))
        for name, value in batch.items()
    }


def replicate(tree: T, mesh: Mesh) -> T:
    """Copies a pytree to every device of the mesh; every host must hold the same values.

    The copies have buffers of their own, so donating them leaves ``tree`` as it is. The way leads through the host,
    from wherever the leaves lie: another mesh, one device, or NumPy.
    """
    layout = everywhere(mesh)

    def copy(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(copy(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        # An array that is on no device by choice is the only kind that device_put spreads over several hosts.
        return jax.device_put(jnp.array(np.asarray(leaf)), layout)

    return jax.tree.map(copy, tree)
