"""Weights of the networks that ours reproduce: another code's names and layouts to Flax variables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from jaxvid import models
from jaxvid.models.cost import variable_shapes
from jaxvid.models.i3d import I3D
from jaxvid.models.resnet import ResNet3D
from jaxvid.models.schemes import Scheme
from jaxvid.models.torch_names import schemes_of, torch_key

__all__ = ["convert_state_dict", "torch_key"]

_TORCH_CELLS = ("lstm", "gru", "rnn")
_CLASSIFIER = ("params", "head", "classifier", "kernel")
_LISTED = 20


def convert_state_dict(
    name: str, arrays: Mapping[str, np.ndarray], *, num_classes: int | None = None, **options: Any
) -> dict[str, Any]:
    """Turns the arrays of another code into the variables of the network of that name.

    Of the codes that have published such a network (:data:`jaxvid.models.torch_names.SCHEMES`) the one whose names
    explain most of the arrays is taken: an X3D has pytorchvideo's, an I3D piergiaj's or TensorFlow Hub's, an MF-Net its
    authors', a ResNeXt and a network named after Hara those of Hara's code, the others those of the SRTG authors'; an
    SRTG's cell is found under ``sar.lstm`` (``sar.gru``, ``sar.rnn``). A leading ``module.`` (of ``DataParallel``) is
    dropped and ``num_batches_tracked`` is ignored. Every other array is used exactly once.

    Args:
      name: a name of :data:`jaxvid.models.MODELS`.
      arrays: ``{key: array}``; of a torch code, convolutions ``[O I T H W]`` or ``[O I H W]`` and matrices ``[O I]``.
      num_classes: what the classifier must have; ``None`` takes what it has.
      **options: those of :func:`jaxvid.models.build` that change shapes. The ``width`` of a ResNet or an I3D, and of an
        SRTG ``cell`` and ``num_layers``, are read from the arrays where they are not given; ``expansion``,
        ``placement`` and the width of an X3D or an MF-Net, which rounding hides, are not.

    Returns:
      ``{"params": ..., "batch_stats": ...}``, NumPy arrays in float32.

    Raises:
      ValueError: arrays are missing, superfluous or of the wrong shape (all of them in one message), or the number of
        classes differs.
    """
    given = _strip(arrays)
    model = models.build(name, 1, **options)
    scheme = _scheme(name, model, given)
    num_classes = _num_classes(given, scheme, scheme.key(name, model, _CLASSIFIER), num_classes)
    model = models.build(name, num_classes, **(_inferred_options(name, model, scheme, given) | options))
    wanted = _variables(model)
    keys = {path: scheme.key(name, model, path) for path in wanted}
    filled = {path: scheme.defaults[path[-1]] for path, key in keys.items() if _is_left_out(scheme, path, key, given)}
    _check_keys(name, model, scheme, [key for path, key in keys.items() if path not in filled], given)
    converted, misfits = {path: np.full(wanted[path], number, np.float32) for path, number in filled.items()}, []
    for path, key in keys.items():
        if path in filled:
            continue
        array = scheme.to_flax(given[key], wanted[path])
        if array is not None:
            converted[path] = array
        else:
            misfits.append(
                f"{key} {scheme.stored_shape(wanted[path], given[key].ndim)} (ours: {'/'.join(path[1:])} "
                f"{wanted[path]}), received {given[key].shape}"
            )
    if misfits:
        raise ValueError(f"the arrays of {name!r} must have the network's shapes: {_listing(misfits)}.")
    return flax.traverse_util.unflatten_dict(converted)


def _variables(model: nn.Module) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Path -> shape of everything that is converted."""
    leaves: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(dict(variable_shapes(model)))
    return {path: leaf.shape for path, leaf in leaves.items() if path[0] in ("params", "batch_stats")}


def _scheme(name: str, model: nn.Module, given: Mapping[str, np.ndarray]) -> Scheme:
    """The scheme of the network that knows most of the arrays, the first of equals."""
    schemes = schemes_of(model)
    if len(schemes) == 1:
        return schemes[0]
    paths = _variables(model)
    return max(schemes, key=lambda scheme: sum(scheme.key(name, model, path) in given for path in paths))


def _is_left_out(scheme: Scheme, path: tuple[str, ...], key: str, given: Mapping[str, np.ndarray]) -> bool:
    return path[-1] in scheme.defaults and key not in given


def _strip(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    stripped: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        if key.endswith("num_batches_tracked"):
            continue
        short = key.removeprefix("module.")
        if short in stripped:
            raise ValueError(f"every array must occur once, received {short!r} with and without the prefix 'module.'.")
        stripped[short] = np.asarray(array)
    return stripped


def _num_classes(given: Mapping[str, np.ndarray], scheme: Scheme, classifier: str, num_classes: int | None) -> int:
    if classifier not in given:
        raise ValueError(f"the arrays must hold the classifier {classifier!r}, received none of that name.")
    found = scheme.num_outputs(given[classifier])
    if num_classes is not None and num_classes != found:
        raise ValueError(
            f"num_classes must be that of the arrays, received num_classes={num_classes} and a classifier of {found} "
            f"classes ({classifier})."
        )
    return found


def _inferred_options(name: str, model: nn.Module, scheme: Scheme, given: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The options that the arrays tell; what they do not tell stays as it is, and their misfit is reported later."""
    found = _inferred_width(name, model, scheme, given)
    recurrent = {key.partition(".sar.")[2] for key in given if ".sar." in key}
    if name.startswith("srtg_") and recurrent:
        cells = {key.partition(".")[0] for key in recurrent}
        if len(cells) == 1 and cells <= set(_TORCH_CELLS):
            found["cell"] = cells.pop()
        layers = {key.rpartition("_l")[2] for key in recurrent if "weight_hh_l" in key}
        if layers:
            found["num_layers"] = len(layers)
    return found


def _inferred_width(name: str, model: nn.Module, scheme: Scheme, given: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if not isinstance(model, (ResNet3D, I3D)):
        return {}
    # By the majority of the stem's four vectors, so that a damaged one is named beside the shape it should have.
    widen = model.widen if isinstance(model, ResNet3D) else 1
    stem = [("params", "stem", "norm", leaf) for leaf in ("scale", "bias")]
    stem += [("batch_stats", "stem", "norm", leaf) for leaf in ("mean", "var")]
    keys = [scheme.key(name, model, path) for path in stem]
    widths = Counter(given[key].size / widen for key in keys if key in given)
    if widths:
        width = widths.most_common(1)[0][0]
        if width >= 1 and width.is_integer():
            return {"width": int(width)}
    return {}


def _check_keys(
    name: str, model: nn.Module, scheme: Scheme, wanted: list[str], given: Mapping[str, np.ndarray]
) -> None:
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
    code = f" by the names of {scheme.code}" if len(schemes_of(model)) > 1 else ""
    raise ValueError(f"the arrays must be exactly those of {name!r}{code}, received {' and '.join(problems)}{hint}.")


def _listing(entries: list[str]) -> str:
    more = f"; and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return "; ".join(entries[:_LISTED]) + more
