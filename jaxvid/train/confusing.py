"""What a U2S network is told of its classes: which ones are confused with which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from jaxvid.files import NPZ_ERRORS
from jaxvid.models.universal_to_specific import VARIANTS
from jaxvid.train.state import TrainState

_PLACE = ("u2s", "confusing")


def with_confusing(state: TrainState, path: str | Path, variant: str, class_names: tuple[str, ...]) -> TrainState:
    """The state of a U2S network with the matrix of a file, see :func:`confusing_matrix`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it does not fit.
    """
    statistics: dict[tuple[str, ...], Any] = dict(flax.traverse_util.flatten_dict(state.batch_stats))
    statistics[_PLACE] = jnp.asarray(confusing_matrix(path, variant, class_names))
    return state.replace(batch_stats=flax.traverse_util.unflatten_dict(statistics))


def confusing_matrix(path: str | Path, variant: str, class_names: tuple[str, ...]) -> np.ndarray:
    """What the network is told of its classes: ``float32[K K]``, the similarities where ``variant`` is ``soft``.

    Args:
      path: a ``similarity.npz``; one of your own making needs ``similarity``, ``confusing`` and ``class_names``.
      variant: of U2S.
      class_names: the ``K`` names, in the order of the run.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is of other classes, or no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"model.u2s.similarity must be a file, received {str(path)!r}, which does not exist.")
    name = "similarity" if VARIANTS[variant].soft else "confusing"
    try:
        with np.load(path, allow_pickle=False) as stored:
            theirs, matrix = [str(each) for each in stored["class_names"]], stored[name].astype(np.float32)
    except NPZ_ERRORS as error:
        raise ValueError(
            f"model.u2s.similarity must be an npz with {name!r} and 'class_names', received {str(path)!r}, which is "
            "another file or damaged."
        ) from error
    if theirs != list(class_names):
        raise ValueError(
            f"model.u2s.similarity must be of this run's {len(class_names)} classes, received {str(path)!r} with "
            f"{len(theirs)} that are other ones or in another order."
        )
    K = len(class_names)
    if matrix.shape != (K, K) or not np.isfinite(matrix).all() or matrix.min() < 0 or (np.diag(matrix) != 1).any():
        raise ValueError(
            f"model.u2s.similarity must hold {name!r} as [{K} {K}], at least 0 and 1 on the diagonal, received "
            f"{str(path)!r} with {list(matrix.shape)}, {matrix.min(initial=np.inf)} and more, and a diagonal of "
            f"{np.diag(matrix).min(initial=np.inf)} and more."
        )
    return matrix
