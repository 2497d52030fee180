"""Weights of the PyTorch networks that ours reproduce: torch's names and layouts to Flax variables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import flax.traverse_util
import numpy as np

from jaxvid import models
from jaxvid.models.cost import variable_shapes
from jaxvid.models.resnet import ResNet3D, SRTGOptions

_LEAVES: Mapping[str, str] = MappingProxyType(
    {
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    }
)
_RECURRENT_LEAVES: Mapping[str, str] = MappingProxyType(
    {
        "input_kernel": "weight_ih",
        "recurrent_kernel": "weight_hh",
        "input_bias": "bias_ih",
        "recurrent_bias": "bias_hh",
    }
)
_TORCH_CELLS = ("lstm", "gru", "rnn")
_SHORTCUT: Mapping[str, str] = MappingProxyType({"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"})
_LISTED = 20


def convert_state_dict(
    name: str, arrays: Mapping[str, np.ndarray], *, num_classes: int | None = None, **options: Any
) -> dict[str, Any]:
    """Turns a torch state dict into the variables of the network of that name.

    Networks named after Hara follow the names of Hara's code, the others those of the SRTG authors' code; an SRTG's
    cell is found under ``sar.lstm`` (``sar.gru``, ``sar.rnn``). A leading ``module.`` (of ``DataParallel``) is dropped
    and ``num_batches_tracked`` is ignored. Every other array is used exactly once.

    Args:
      name: a name of :data:`jaxvid.models.MODELS`.
      arrays: ``{torch key: array}``; convolutions ``[O I T H W]``, matrices ``[O I]``.
      num_classes: what the classifier must have; ``None`` takes what it has.
      **options: those of :func:`jaxvid.models.build` that change shapes. ``width``, and of an SRTG ``cell`` and
        ``num_layers``, are read from the arrays where they are not given; ``expansion`` and ``placement`` are not.

    Returns:
      ``{"params": ..., "batch_stats": ...}``, NumPy arrays in float32.

    Raises:
      ValueError: arrays are missing, superfluous or of the wrong shape (all of them in one message), or the number of
        classes differs.
    """
    given = _strip(arrays)
    num_classes = _num_classes(given, num_classes)
    model = cast(ResNet3D, models.build(name, num_classes, **options))
    model = cast(ResNet3D, models.build(name, num_classes, **(_inferred_options(name, model, given) | options)))
    wanted: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(dict(variable_shapes(model)))
    keys = {path: torch_key(name, model, path) for path in wanted if path[0] in ("params", "batch_stats")}
    _check_keys(name, keys.values(), given)
    converted, misfits = {}, []
    for path, key in keys.items():
        array = _to_flax(given[key])
        if array.shape == wanted[path].shape:
            converted[path] = array
        else:
            misfits.append(
                f"{key} {_to_torch_shape(wanted[path].shape)} (ours: {'/'.join(path[1:])} {wanted[path].shape}), "
                f"received {given[key].shape}"
            )
    if misfits:
        raise ValueError(f"the arrays of {name!r} must have the network's shapes: {_listing(misfits)}.")
    return flax.traverse_util.unflatten_dict(converted)


def torch_key(name: str, model: ResNet3D, path: tuple[str, ...]) -> str:
    """The torch name of one variable.

    Args:
      name: the network's name, which chooses between the two codes' ways of naming.
      model: the network.
      path: of the variable, collection first: ``("params", "stage1", "block0", "conv1", "kernel")``.

    >>> torch_key("r3d_18", models.build("r3d_18", 10), ("params", "stage1", "block0", "norm2", "scale"))
    'layer1.0.conv2.1.weight'
    """
    block, module, leaf = path[1], path[2:-1], path[-1]
    if block == "head":
        return f"fc.{_LEAVES[leaf]}"
    rename = _hara_name if name.endswith("_hara") else _srtg_name
    if block == "stem":
        return f"{rename('stem', module, model)}.{_LEAVES[leaf]}"
    prefix = f"layer{block.removeprefix('stage')}.{module[0].removeprefix('block')}"
    if module[1] == "srtg":
        return f"{prefix}.sar.{_recurrent_name(model, leaf)}"
    inner = _SHORTCUT.get(module[1]) or rename("block", module[1:], model)
    return f"{prefix}.{inner}.{_LEAVES[leaf]}"


def _srtg_name(place: str, module: tuple[str, ...], model: ResNet3D) -> str:
    """The SRTG authors' names: numbered entries of nested Sequentials."""
    entry = {"spatial": 0, "norm": 1, "temporal": 3}
    if place == "stem":
        # One Sequential: conv, BN, ReLU, or spatial, BN, ReLU, temporal, BN, ReLU.
        if len(module) == 2:
            return f"stem.{entry[module[1]]}"
        return "stem.0" if module[0] == "conv" else f"stem.{4 if model.factorised else 1}"
    kind, number = module[0][:-1], module[0][-1]
    if kind == "norm":
        return f"conv{number}.1"
    if len(module) == 2:
        return f"conv{number}.0.{entry[module[1]]}"
    pointwise = model.bottleneck and number != "2"
    return f"conv{number}.0" if pointwise else f"conv{number}.0.0"


def _hara_name(place: str, module: tuple[str, ...], model: ResNet3D) -> str:
    """Hara's names: ``conv1``, ``bn1``, and ``conv1_s``, ``bn1_s``, ``conv1_t``, ``bn1_t`` where factorised."""
    kind, number = (
        ("conv" if module[0] == "conv" else "norm", "1") if place == "stem" else (module[0][:-1], module[0][-1])
    )
    torch_kind = "bn" if kind == "norm" or module[-1] == "norm" else "conv"
    if len(module) == 2:
        return f"{torch_kind}{number}{'_t' if module[1] == 'temporal' else '_s'}"
    pointwise = place == "block" and model.bottleneck and number != "2"
    return f"{torch_kind}{number}{'_t' if model.factorised and not pointwise else ''}"


def _recurrent_name(model: ResNet3D, leaf: str) -> str:
    cell = cast(SRTGOptions, model.srtg).cell
    kind, layer = leaf.rsplit("_", 1)
    if kind not in _RECURRENT_LEAVES:
        raise ValueError(f"cell must be lstm, gru or rnn, the cells that torch has, received cell={cell!r}.")
    return f"{cell}.{_RECURRENT_LEAVES[kind]}_l{layer}"


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


def _num_classes(given: Mapping[str, np.ndarray], num_classes: int | None) -> int:
    if "fc.weight" not in given:
        raise ValueError("the arrays must hold the classifier 'fc.weight', received none of that name.")
    found = given["fc.weight"].shape[0]
    if num_classes is not None and num_classes != found:
        raise ValueError(
            f"num_classes must be that of the arrays, received num_classes={num_classes} and a classifier of {found} "
            "classes (fc.weight)."
        )
    return found


def _inferred_options(name: str, model: ResNet3D, given: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The options that the arrays tell; what they do not tell stays as it is, and their misfit is reported later."""
    found: dict[str, Any] = {}
    # By the majority of the stem's four vectors, so that a damaged one is named beside the shape it should have.
    stem = [torch_key(name, model, ("params", "stem", "norm", leaf)) for leaf in ("scale", "bias", "mean", "var")]
    widths = Counter(given[key].size / model.widen for key in stem if key in given)
    if widths:
        width = widths.most_common(1)[0][0]
        if width >= 1 and width.is_integer():
            found["width"] = int(width)
    recurrent = {key.partition(".sar.")[2] for key in given if ".sar." in key}
    if model.srtg is not None and recurrent:
        cells = {key.partition(".")[0] for key in recurrent}
        if len(cells) == 1 and cells <= set(_TORCH_CELLS):
            found["cell"] = cells.pop()
        layers = {key.rpartition("_l")[2] for key in recurrent if "weight_hh_l" in key}
        if layers:
            found["num_layers"] = len(layers)
    return found


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


def _to_flax(array: np.ndarray) -> np.ndarray:
    """``[O I T H W] -> [T H W I O]``, ``[O I] -> [I O]``, vectors as they are."""
    order = (2, 3, 4, 1, 0) if array.ndim == 5 else tuple(reversed(range(array.ndim)))
    return np.ascontiguousarray(array.transpose(order), np.float32)


def _to_torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[4], shape[3], *shape[:3]) if len(shape) == 5 else tuple(reversed(shape))
