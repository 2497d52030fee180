"""The deterministic fill of full-size networks, and what it takes to compare one with torch's numbers."""

import functools
import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.models import cost
from jaxvid.models.torch_names import schemes_of


def hash_fill(position: int, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Uniform-looking numbers from the element's flat index and the tensor's position in the sorted list of keys."""
    with np.errstate(over="ignore"):
        h = np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(2654435761)
        h += np.uint32((position * 40503 + 12345) % 2**32)
        h ^= h >> np.uint32(16)
        h *= np.uint32(2246822519)
        h ^= h >> np.uint32(13)
        h *= np.uint32(3266489917)
        h ^= h >> np.uint32(16)
    return (low + (high - low) * (h / 2**32)).astype(np.float32).reshape(shape)


def _range(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if key.endswith("running_var"):
        return 0.5, 1.5
    if key.endswith("running_mean"):
        return -0.1, 0.1
    if "lstm" in key or ".op." in key:
        bound = 1.5 * math.sqrt(3 / shape[-1])
        return (-bound, bound) if len(shape) > 1 else (-0.2, 1.6)
    if len(shape) == 1:
        return (0.8, 1.2) if key.endswith("weight") else (-0.1, 0.1)
    bound = math.sqrt(6 / math.prod(shape[1:]))
    return -bound, bound


CLIP = (16, 32, 32)  # only TAM has other parameters at another number of frames


def torch_shapes(name: str, model, clip=CLIP) -> dict[str, tuple[int, ...]]:
    """The torch state dict of a network: key -> shape, with the counters that torch's BatchNorm keeps.

    A 2-D kernel has the axis of time here, which torch's has not.
    """
    shapes, (scheme, *_) = {}, schemes_of(name, model)
    for path, leaf in flax.traverse_util.flatten_dict(dict(cost.variable_shapes(model, clip))).items():
        key = scheme.key(name, model, path)
        axes = 5 if key.endswith("conv3d.weight") else None  # where others have a matrix, I3D has a 1x1x1 convolution
        shapes[key] = scheme.stored_shape(leaf.shape, axes)
        if key.endswith("running_mean"):
            shapes[key.replace("running_mean", "num_batches_tracked")] = ()
    return shapes


@pytest.fixture(scope="session")
def fill():
    return hash_fill


@pytest.fixture(scope="session")
def shapes_of():
    return torch_shapes


@pytest.fixture(scope="session")
def hashed_arrays():
    """``(name, model, clip) -> torch state dict`` in which every tensor is hashed."""

    def make(name: str, model, clip=CLIP) -> dict[str, np.ndarray]:
        shapes = torch_shapes(name, model, clip)
        return {
            key: hash_fill(position, shapes[key], *_range(key, shapes[key]))
            for position, key in enumerate(sorted(shapes))
            if not key.endswith("num_batches_tracked")
        }

    return make


@pytest.fixture(scope="session")
def video_from_torch():
    """``[N C T H W] -> [N T H W C]``."""
    return lambda array: jnp.asarray(np.ascontiguousarray(np.moveaxis(array, 1, -1)))


@pytest.fixture(scope="session")
def jit():
    """``jax.jit`` without LLVM's optimisations, which take three quarters of the time to compile."""
    return functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def drawn():
    """``model, clip -> variables`` of every shape, drawn by NumPy: faster than compiling the network's own start."""

    def draw(path, leaf):
        name, rng = path[-1].key, np.random.default_rng(leaf.size)
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        if "kernel" in name:
            fan_in = leaf.size // leaf.shape[-1]
            return (rng.normal(size=leaf.shape) * math.sqrt(2 / fan_in)).astype(leaf.dtype)
        if path[-2].key.startswith("sr"):  # keeps h positive, so that signals pass
            return np.ones(leaf.shape, leaf.dtype)
        return rng.uniform(-0.2, 0.2, leaf.shape).astype(leaf.dtype)

    return lambda model, clip=CLIP: jax.tree_util.tree_map_with_path(draw, dict(cost.variable_shapes(model, clip)))
