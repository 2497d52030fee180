from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.train import leaves


class Moments(NamedTuple):
    count: jax.Array
    mu: dict


@flax.struct.dataclass
class State:
    params: dict
    opt_state: tuple
    ema_params: dict | None
    step: jax.Array
    key: jax.Array
    name: str = flax.struct.field(pytree_node=False, default="static")


def make_state(value=1.0):
    params = {"stem": {"kernel": jnp.full((2, 3), value)}}
    return State(params, (Moments(jnp.int32(4), params), ()), None, jnp.int32(7), jax.random.key(5))


def test_a_state_is_split_by_item_and_path():
    items = leaves.split(make_state())
    assert {item: list(found) for item, found in items.items()} == {
        "params": ["stem/kernel"],
        "batch_stats": [],
        "opt_state": ["0/count", "0/mu/stem/kernel"],
        "ema": [],
        "rest": ["step", "key"],
    }


def test_join_is_the_inverse_of_split_and_to_host():
    state = make_state(3.0)
    items = {item: leaves.to_host(found) for item, found in leaves.split(state).items()}
    assert isinstance(items["rest"]["key"], np.ndarray)
    assert items["rest"]["key"].dtype == np.uint32
    joined = leaves.join(make_state(0.0), items)
    assert jax.tree.structure(joined) == jax.tree.structure(state)
    assert type(joined.opt_state[0]) is Moments
    np.testing.assert_array_equal(joined.opt_state[0].mu["stem"]["kernel"], np.full((2, 3), 3.0))
    assert (joined.step, joined.opt_state[0].count, joined.name) == (7, 4, "static")
    assert joined.key == state.key


def test_leaves_without_a_sharding_come_back_as_numpy():
    state = make_state()
    template = jax.tree.map(lambda leaf: leaf if leaves.is_key(leaf) else np.asarray(leaf), state)
    items = {item: leaves.to_host(found) for item, found in leaves.split(state).items()}
    joined = leaves.join(template, items)
    assert type(joined.params["stem"]["kernel"]) is np.ndarray
    leaves.check_fits(template, {item: _shapes(found) for item, found in items.items()}, "here")


def _shapes(found):
    return {path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for path, leaf in found.items()}


MISFITS = [
    ("params", "stem/kernel", ([2, 4], "float32"), r"float32\[2, 3\] to fit this run, received float32\[2, 4\]"),
    ("rest", "step", ([], "int64"), r"int32\[\] to fit this run, received int64\[\]"),
    ("opt_state", "0/nu/x", ([1], "float32"), r"absent to fit this run, received float32\[1\]"),
    ("params", "stem/kernel", None, r"float32\[2, 3\] to fit this run, received absent"),
]


@pytest.mark.parametrize(("item", "path", "change", "message"), MISFITS)
def test_the_first_leaf_that_does_not_fit_is_named(item, path, change, message):
    state = make_state()
    described = {name: _shapes(leaves.to_host(found)) for name, found in leaves.split(state).items()}
    leaves.check_fits(state, described, "there")
    if change is None:
        del described[item][path]
    else:
        described[item][path] = {"shape": change[0], "dtype": change[1]}
    with pytest.raises(ValueError, match=rf"^{item}/{path} must be {message} in there\.$"):
        leaves.check_fits(state, described, "there")


def test_every_kind_of_path_and_no_other():
    tree = {"a": [1, Moments(2, {"b": 3})], "n": None}
    assert leaves.by_path(tree) == {"a/0": 1, "a/1/count": 2, "a/1/mu/b": 3}
    assert leaves.nest(leaves.by_path({"x": {"y": 1, "z": {"w": 2}}})) == {"x": {"y": 1, "z": {"w": 2}}}

    class Odd:
        pass

    jax.tree_util.register_pytree_with_keys(Odd, lambda odd: (((object(), 1),), None), lambda _, children: Odd())
    with pytest.raises(TypeError, match="reached by keys, names or positions, received <object"):
        leaves.by_path(Odd())
