"""Weights of the PyTorch networks that ours reproduce: torch's names and layouts to Flax variables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from jaxvid import models
from jaxvid.models import names_torchvision
from jaxvid.models.cost import variable_shapes
from jaxvid.models.resnet import ResNet3D
from jaxvid.models.torch_names import torch_key

_TORCH_CELLS = ("lstm", "gru", "rnn")
_LISTED = 20


def convert_state_dict(
    name: str, arrays: Mapping[str, np.ndarray], *, num_classes: int | None = None, **options: Any
) -> dict[str, Any]:
    """Turns a torch state dict into the variables of the network of that name.

    An X3D follows the names of pytorchvideo, a network named after Hara those of Hara's code, an image network those of
    torchvision, the others those of the SRTG authors' code; an SRTG's cell is found under ``sar.lstm`` (``sar.gru``,
    ``sar.rnn``). A leading ``module.`` (of ``DataParallel``) is dropped and ``num_batches_tracked`` is ignored. Every
    other array is used exactly once.

    Args:
      name: a name of :data:`jaxvid.models.MODELS`.
      arrays: ``{torch key: array}``; convolutions ``[O I T H W]`` or ``[O I H W]``, matrices ``[O I]``.
      num_classes: what the classifier must have; ``None`` takes what it has.
      **options: those of :func:`jaxvid.models.build` that change shapes. A ResNet's ``width``, and of an SRTG ``cell``
        and ``num_layers``, are read from the arrays where they are not given; ``expansion``, ``placement`` and the
        width of an X3D or a DenseNet, which rounding hides, are not.

    Returns:
      ``{"params": ..., "batch_stats": ...}``, NumPy arrays in float32.

    Raises:
      ValueError: arrays are missing, superfluous or of the wrong shape (all of them in one message), or the number of
        classes differs.
    """
    given = _strip(arrays)
    model = models.build(name, 1, **options)
    num_classes = _num_classes(given, torch_key(name, model, ("params", "head", "classifier", "kernel")), num_classes)
    model = models.build(name, num_classes, **(_inferred_options(name, model, given) | options))
    wanted: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(dict(variable_shapes(model)))
    keys = {path: torch_key(name, model, path) for path in wanted if path[0] in ("params", "batch_stats")}
    _check_keys(name, keys.values(), given)
    converted, misfits = {}, []
    for path, key in keys.items():
        array = _to_flax(given[key], wanted[path].shape)
        if array.shape == wanted[path].shape:
            converted[path] = array
        else:
            torch_shape = _to_torch_shape(wanted[path].shape, given[key].ndim)
            misfits.append(
                f"{key} {torch_shape} (ours: {'/'.join(path[1:])} {wanted[path].shape}), received {given[key].shape}"
            )
    if misfits:
        raise ValueError(f"the arrays of {name!r} must have the network's shapes: {_listing(misfits)}.")
    return flax.traverse_util.unflatten_dict(converted)


def _strip(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    stripped: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        if key.endswith("num_batches_tracked"):
            continue
        short = names_torchvision.modern(key.removeprefix("module."))
        if short in stripped:
            raise ValueError(
                f"every array must occur once, received {short!r} with and without the prefix 'module.' or spelt twice."
            )
        stripped[short] = np.asarray(array)
    return stripped


def _num_classes(given: Mapping[str, np.ndarray], classifier: str, num_classes: int | None) -> int:
    if classifier not in given:
        raise ValueError(f"the arrays must hold the classifier {classifier!r}, received none of that name.")
    found = given[classifier].shape[0]
    if num_classes is not None and num_classes != found:
        raise ValueError(
            f"num_classes must be that of the arrays, received num_classes={num_classes} and a classifier of {found} "
            f"classes ({classifier})."
        )
    return found


def _inferred_options(name: str, model: nn.Module, given: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The options that the arrays tell; what they do not tell stays as it is, and their misfit is reported later."""
    found = _inferred_width(name, model, given) if isinstance(model, ResNet3D) else {}
    recurrent = {key.partition(".sar.")[2] for key in given if ".sar." in key}
    if name.startswith("srtg_") and recurrent:
        cells = {key.partition(".")[0] for key in recurrent}
        if len(cells) == 1 and cells <= set(_TORCH_CELLS):
            found["cell"] = cells.pop()
        layers = {key.rpartition("_l")[2] for key in recurrent if "weight_hh_l" in key}
        if layers:
            found["num_layers"] = len(layers)
    return found


def _inferred_width(name: str, model: ResNet3D, given: Mapping[str, np.ndarray]) -> dict[str, Any]:
    # By the majority of the stem's four vectors, so that a damaged one is named beside the shape it should have.
    stem = [torch_key(name, model, ("params", "stem", "norm", leaf)) for leaf in ("scale", "bias", "mean", "var")]
    widths = Counter(given[key].size / model.widen for key in stem if key in given)
    if widths:
        width = widths.most_common(1)[0][0]
        if width >= 1 and width.is_integer():
            return {"width": int(width)}
    return {}


def _check_keys(name: str, wanted: Any, given: Mapping[str, np.ndarray]) -> None:
    missing = [key for key in wanted if key not in given]
    superfluous = sorted(set(given) - set(wanted))
    if not missing and not superfluous:
        return
    problems = [f"{len(keys)} {word} ({_listing(keys)})" for word, keys in
                (("missing", missing), ("superfluous", superfluous)) if keys]  # fmt: skip
    hint = ""
    if all(".sar." in key for key in missing + superfluous):
        # The authors' get_symbol("srtg_...") builds the plain network, so that this happens to published weights.
        other, kind = (name.removeprefix("srtg_"), "plain") if missing else (f"srtg_{name}", "SRTG")
        hint = f"; these are weights of the {kind} network {other!r}"
    raise ValueError(f"the arrays must be exactly those of {name!r}, received {' and '.join(problems)}{hint}.")


def _listing(entries: list[str]) -> str:
    more = f"; and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return "; ".join(entries[:_LISTED]) + more


def _to_flax(array: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """``[O I T H W] -> [T H W I O]``, ``[O I H W] -> [1 H W I O]``, ``[O I] -> [I O]``, vectors as they are."""
    if array.ndim == 4 and len(wanted) == 5:
        array = array[:, :, None]
    order = (2, 3, 4, 1, 0) if array.ndim == 5 else tuple(reversed(range(array.ndim)))
    return np.ascontiguousarray(array.transpose(order), np.float32)


def _to_torch_shape(shape: tuple[int, ...], axes: int) -> tuple[int, ...]:
    """Torch's shape for one of ours; of a 2-D kernel without time where that many ``axes`` were received."""
    if len(shape) == 5 and shape[0] == 1 and axes == 4:
        return (shape[4], shape[3], *shape[1:3])
    return (shape[4], shape[3], *shape[:3]) if len(shape) == 5 else tuple(reversed(shape))
