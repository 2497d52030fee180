"""Every public function obeys its own annotations: shapes and dtypes, by jaxtyping and beartype.

The package does not import jaxtyping; its annotations are text. Here they are evaluated and enforced.
"""

import inspect
import sys
import types
import typing

import beartype
import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from jaxvid import ops
from jaxvid.types import Size3

_NAMES = {**{name: getattr(jaxtyping, name) for name in ("Bool", "Float", "Int", "UInt8")}, "Array": jax.Array}


def _checked(function):
    """A copy of the function that raises when an argument or the result contradicts its annotation."""
    scope = vars(sys.modules[function.__module__]) | _NAMES | {"Size3": Size3}
    # NamedTuples keep their annotations as text as well; they are the weights, whose shapes recur checks itself.
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = typing.get_type_hints(function, scope)
    return jaxtyping.jaxtyped(copy, typechecker=beartype.beartype)


X, H = jnp.ones((2, 3, 4, 4, 6)), jnp.ones((2, 3, 6))
LSTM = [ops.LayerWeights(jnp.zeros((6, 24)), jnp.zeros((6, 24)), jnp.zeros(24), jnp.zeros(24))]
POOL = (X, (3, 3, 3), (2, 2, 2), (1, 1, 1))
CALLS = {
    "avg_pool3d": (POOL, {}),
    "avg_pool3d_reference": (POOL, {}),
    "class_factors": ((H[:, 0], jnp.ones((5, 6))), {"affection_rate": 0.9, "scope": "all"}),
    "class_regularize": ((X, jnp.ones((5, 6))), {"affection_rate": 0.9, "class_choice": "elementwise"}),
    "conv3d": ((X, jnp.ones((3, 3, 3, 6, 5))), {"strides": (1, 2, 2), "padding": (1, (1, 0), 1)}),
    "cyclic_consistency": ((H, H), {}),
    "frame_triplet_similarity": ((X,), {"select": "largest_squared"}),
    "gate_product": ((X, H, jnp.array([True, False])), {"gradient": "hard"}),
    "max_pool3d": (POOL, {}),
    "max_pool3d_reference": (POOL, {}),
    "normalize_video": ((jnp.zeros((2, 3, 4, 4, 3), jnp.uint8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), {}),
    "recur": ((H, LSTM), {"cell": "lstm"}),
    "recur_reference": ((H, LSTM), {"cell": "lstm"}),
    "resize_trilinear": ((X, (2, 5, 3)), {}),
    "resize_trilinear_reference": ((X, (2, 5, 3)), {}),
    "select_frames": ((X, 1), {"select": "lowest"}),
    "soft_nearest_neighbor": ((H, H[:, :2]), {}),
    "softpool": ((X, (2, 2, 2)), {"strides": (1, 2, 2), "padding": "SAME", "implementation": "xla"}),
    "softpool_reference": ((X[0], (3, 3)), {"padding": ((1, 1), (1, 0))}),
    "stochastic_pool3d": (POOL, {"key": jax.random.key(0)}),
    "stochastic_pool3d_reference": (POOL, {"key": None}),
    "temporal_shift": ((X, 3), {}),
    "temporal_shift_reference": ((X, 3), {}),
}
FUNCTIONS = {name: getattr(ops, name) for name in ops.__all__ if inspect.isfunction(getattr(ops, name))}


def test_every_public_function_is_called_here():
    assert set(CALLS) == set(FUNCTIONS)


@pytest.mark.parametrize("name", CALLS)
def test_annotations_hold(name):
    arguments, options = CALLS[name]
    _checked(FUNCTIONS[name])(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("soft_nearest_neighbor", (H, H[..., :5])),
        ("gate_product", (X, H, jnp.array([1.0, 0.0]))),
        ("cyclic_consistency", (H.astype(jnp.int32), H)),
    ],
)
def test_the_check_itself_catches_a_wrong_shape_or_dtype(name, arguments):
    with pytest.raises(jaxtyping.TypeCheckError):
        _checked(FUNCTIONS[name])(*arguments)
