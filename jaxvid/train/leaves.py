"""A state as leaves by path, and back: what is stored knows nothing of containers, key types and devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

State = TypeVar("State", bound="DataclassInstance")

Leaves = dict[str, np.ndarray]
"""``{"stem/conv/kernel": array}``."""

_ITEM_OF_FIELD = {"params": "params", "batch_stats": "batch_stats", "opt_state": "opt_state", "ema_params": "ema"}
ITEMS = (*_ITEM_OF_FIELD.values(), "rest")
"""The parts that a state is stored in; ``rest`` holds the fields that have no part of their own."""


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of any pytree; dictionary keys, field names and positions are joined by ``/``.

    >>> by_path({"a": (1, {"b": 2}), "empty": None})
    {'a/0': 1, 'a/1/b': 2}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(_name(entry) for entry in path): leaf for path, leaf in leaves}


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries from leaves by path.

    >>> nest({"a/0": 1, "a/1/b": 2})
    {'a': {'0': 1, '1': {'b': 2}}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def split(state: Any) -> dict[str, dict[str, Any]]:
    """The leaves of a flax.struct dataclass by item and path."""
    items: dict[str, dict[str, Any]] = {item: {} for item in ITEMS}
    for name, item in _fields(state):
        value = getattr(state, name)
        items[item] |= by_path({name: value} if item == "rest" else value)
    return items


def join(template: State, items: Mapping[str, Leaves]) -> State:
    """The inverse of :func:`split`: the template's tree, with the given leaves placed as the template's are."""
    wanted = split(template)
    placed = {item: {path: _place(items[item][path], leaf) for path, leaf in wanted[item].items()} for item in wanted}
    fields = {}
    for name, item in _fields(template):
        value = getattr(template, name)
        paths = by_path({name: value} if item == "rest" else value)
        fields[name] = jax.tree.unflatten(jax.tree.structure(value), [placed[item][path] for path in paths])
    return dataclasses.replace(template, **fields)


def to_host(leaves: Mapping[str, Any]) -> Leaves:
    """The leaves as NumPy arrays; typed keys as their data. On CPU they may be views of the device's buffers.

    Raises:
      ValueError: a leaf is spread over processes.
    """
    data = {path: jax.random.key_data(leaf) if is_key(leaf) else leaf for path, leaf in leaves.items()}
    for path, leaf in data.items():
        if isinstance(leaf, jax.Array):
            if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
                raise ValueError(f"leaves of a state must be whole on every process, received {path} in parts.")
            leaf.copy_to_host_async()  # all transfers at once
    return {path: np.asarray(leaf) for path, leaf in data.items()}


class Unchanging(np.ndarray):
    """An array that nobody writes to any more: a copy of it is itself.

    Orbax copies host arrays before it writes them in the background; weights that are only read would be twice in
    memory for nothing.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Unchanging:
        del memo
        return self


def unchanging(leaves: Leaves) -> Leaves:
    """The leaves as :class:`Unchanging` arrays, which share their memory."""
    return {path: leaf.view(Unchanging) for path, leaf in leaves.items()}


def check_fits(template: Any, described: Mapping[str, Mapping[str, Any]], source: object) -> None:
    """Raises a ValueError that names the first leaf of which the template and a stored description disagree.

    Args:
      template: the state that is to be filled.
      described: for each item ``{path: {"shape", "dtype", ...}}``.
      source: where the description is from, for the message.
    """
    for item, leaves in split(template).items():
        wanted = {path: _shape_and_dtype(leaf) for path, leaf in leaves.items()}
        stored = {path: (tuple(leaf["shape"]), leaf["dtype"]) for path, leaf in described[item].items()}
        for path in [*wanted, *stored]:
            if wanted.get(path) != stored.get(path):
                raise ValueError(
                    f"{item}/{path} must be {_in_words(wanted.get(path))} to fit this run, "
                    f"received {_in_words(stored.get(path))} in {source}."
                )


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed PRNG key (or an abstract one)."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _fields(state: Any) -> list[tuple[str, str]]:
    names = [field.name for field in dataclasses.fields(state) if field.metadata.get("pytree_node", True)]
    return [(name, _ITEM_OF_FIELD.get(name, "rest")) for name in names]


def _place(host: np.ndarray, template: Any) -> Any:
    sharding = getattr(template, "sharding", None)
    if sharding is None:
        return host
    # Each device gets memory of its own: on CPU a buffer may otherwise share the host's, and the trainer donates it.
    data = jax.make_array_from_callback(host.shape, sharding, lambda index: np.array(host[index]))
    return jax.random.wrap_key_data(data, impl=_key_impl(template)) if is_key(template) else data


def _key_impl(key: Any) -> Any:
    found = []  # key_impl takes arrays and tracers, and a template may be abstract
    jax.eval_shape(lambda traced: found.append(jax.random.key_impl(traced)), key)
    return found[0]


def _shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], str]:
    if is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    elif not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return tuple(leaf.shape), str(leaf.dtype)


def _in_words(described: tuple[tuple[int, ...], str] | None) -> str:
    return "absent" if described is None else f"{described[1]}{list(described[0])}"


def _name(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):  # of a dictionary, of an object or a named tuple, of a sequence
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    raise TypeError(f"leaves must be reached by keys, names or positions, received {entry!r}.")
