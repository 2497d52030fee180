"""Weights of the networks that ours reproduce: another code's names and layouts to Flax variables."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import flax.linen as nn
import flax.traverse_util
import numpy as np

from jaxvid import models
from jaxvid.models import names_torchvision
from jaxvid.models.cost import variable_shapes
from jaxvid.models.csn import CSN
from jaxvid.models.i3d import I3D
from jaxvid.models.mtnet_reference import MTNetReference
from jaxvid.models.names_mtnet import width_and_delta
from jaxvid.models.names_tsn import num_frames
from jaxvid.models.resnet import ResNet3D
from jaxvid.models.schemes import Scheme
from jaxvid.models.slow import SlowOnly
from jaxvid.models.slowfast import SlowFast
from jaxvid.models.tam import TANet
from jaxvid.models.torch_names import schemes_of, torch_key
from jaxvid.models.tsm import TSM

__all__ = ["Converted", "convert", "convert_state_dict", "torch_key"]

_Shapes: TypeAlias = Callable[[], dict[tuple[str, ...], tuple[int, ...]]]
"""The shapes of a network's variables by path, computed at the first call."""

_TORCH_CELLS = ("lstm", "gru", "rnn")
_CLASSIFIER = ("params", "head", "classifier", "kernel")
_LISTED = 20
_FULL_WIDTH = 64
_FRAMES = 16
_STEM_NORMS: Mapping[type[nn.Module], tuple[str, ...]] = MappingProxyType(
    {
        ResNet3D: ("stem", "norm"),
        I3D: ("stem", "norm"),
        CSN: ("stem", "norm"),
        SlowFast: ("stem", "slow", "norm"),
        SlowOnly: ("stem", "norm"),
        TSM: ("stem", "norm"),
        TANet: ("stem", "norm"),
    }
)
"""Where the networks whose width can be read from their arrays have the stem's BatchNorm."""


@dataclass(frozen=True)
class Converted:
    """Weights of another code as ours.

    Attributes:
      variables: ``{"params": ..., "batch_stats": ...}``, NumPy arrays in float32.
      scheme: whose names the arrays have.
      options: of :func:`jaxvid.models.build`: those that were given, and those that the arrays told.
      num_classes: outputs of the network.
      num_frames: of the clips that the arrays were made for; ``None`` where they do not tell, as all but TAM's.
      filled: our arrays that the other code does not have, each full of one number, and those of a new head.
      ignored: their arrays that are not used: counters, and the old head where it is replaced.
    """

    variables: dict[str, Any]
    scheme: Scheme
    options: dict[str, Any]
    num_classes: int
    num_frames: int | None
    filled: tuple[str, ...]
    ignored: tuple[str, ...]


def convert_state_dict(
    name: str, arrays: Mapping[str, Any], *, num_classes: int | None = None, **options: Any
) -> dict[str, Any]:
    """The variables of :func:`convert`, whose arguments and errors it has."""
    return convert(name, arrays, num_classes=num_classes, **options).variables


def convert(
    name: str,
    arrays: Mapping[str, Any],
    *,
    num_classes: int | None = None,
    replace_head: bool = False,
    inflate: bool = False,
    **options: Any,
) -> Converted:
    """Turns the arrays of another code into the variables of the network of that name.

    Of the codes that have published such a network (:data:`jaxvid.models.torch_names.SCHEMES`) the one whose names
    explain most of the arrays is taken. An SRTG's cell is found under ``sar.lstm`` (``sar.gru``, ``sar.rnn``). A
    leading ``module.`` (of ``DataParallel``) or ``model.`` (of PySlowFast around pytorchvideo's networks) is dropped
    and ``num_batches_tracked`` is ignored. Every other array is used exactly once.

    Args:
      name: a name of :data:`jaxvid.models.MODELS`.
      arrays: ``{key: array}``, of NumPy or :class:`jaxvid.models.readers.StoredArray`; of a torch code, convolutions
        ``[O I T H W]`` or ``[O I H W]`` and matrices ``[O I]``.
      num_classes: what the classifier must have; ``None`` takes what it has.
      replace_head: a classifier of another number of classes is left out, and a new one drawn from N(0, 0.01), its bias
        0.
      inflate: a 2-D kernel becomes a 3-D one: it is repeated along time and divided by the number of its frames, so
        that a video of equal frames gives what the image gave (Carreira and Zisserman 2017, section 2.4).
      **options: those of :func:`jaxvid.models.build` that change shapes. What is not given is read from the arrays:
        ``width`` (but for the networks whose numbers of channels are rounded), ``fusion_frames`` of a SlowFast,
        ``delta`` of an MTNet, and of an SRTG ``cell`` and ``num_layers``; ``expansion`` and ``placement`` are not.

    Returns:
      A :class:`Converted`.

    Raises:
      ValueError: arrays are missing, superfluous, of the wrong shape or not finite (all of them in one message), or the
        number of classes differs.
    """
    given, ignored = _strip(arrays)
    model = models.build(name, 1, **options)
    own = functools.cache(functools.partial(_variables, model))  # traced once, and only where somebody asks
    scheme = _scheme(name, model, own, given)
    classifier = scheme.key(name, model, _CLASSIFIER)
    found = _num_classes(given, scheme, classifier)
    num_classes = found if num_classes is None else num_classes
    if num_classes != found and not replace_head:
        raise ValueError(
            f"num_classes must be that of the arrays, received num_classes={num_classes} and a classifier of {found} "
            f"classes ({classifier})."
        )
    options = _inferred_options(name, model, scheme, own, given) | options
    model = models.build(name, num_classes, **options)
    frames = num_frames(given)
    wanted = _variables(model, frames)
    keys = {path: scheme.key(name, model, path) for path in wanted}
    filled = {
        path: np.full(wanted[path], scheme.defaults[path[-1]], np.float32)
        for path, key in keys.items()
        if _is_left_out(scheme, path, key, given)
    }
    if num_classes != found:
        replaced = [path for path in wanted if path[:-1] == _CLASSIFIER[:-1]]
        filled |= {path: _new_head(wanted[path]) for path in replaced}
        ignored += [keys[path] for path in replaced if given.pop(keys[path], None) is not None]
    theirs = {path: key for path, key in keys.items() if path not in filled}
    _check_keys(name, model, scheme, list(theirs.values()), given)
    misfits = [
        f"{key} {scheme.stored_shape(wanted[path], len(given[key].shape))} (ours: {'/'.join(path[1:])} "
        f"{wanted[path]}), received {tuple(given[key].shape)}"
        for path, key in theirs.items()
        if not scheme.fits(given[key].shape, wanted[path], inflate=inflate)
    ]
    if misfits:
        raise ValueError(f"the arrays of {name!r} must have the network's shapes: {_listing(misfits)}.")
    # One after the other: of a mapped file no more is in memory than what is converted already.
    converted = filled | {path: scheme.to_flax(given[key], wanted[path]) for path, key in theirs.items()}
    if unsound := [
        f"{keys[path]} ({count} of {array.size})"
        for path, array in converted.items()
        if (count := array.size - np.count_nonzero(np.isfinite(array)))
    ]:
        raise ValueError(
            f"the arrays of {name!r} must be finite, received NaN or infinite numbers in {_listing(unsound)}."
        )
    return Converted(
        variables=flax.traverse_util.unflatten_dict(converted),
        scheme=scheme,
        options=options,
        num_classes=num_classes,
        num_frames=frames,
        filled=tuple("/".join(path) for path in filled),
        ignored=tuple(ignored),
    )


def _new_head(shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    return (0.01 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def _variables(model: nn.Module, num_frames: int | None = None) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Path -> shape of everything that is converted."""
    clip = (num_frames or _FRAMES, 32, 32)
    leaves: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(dict(variable_shapes(model, clip)))
    return {path: leaf.shape for path, leaf in leaves.items() if path[0] in ("params", "batch_stats")}


def _scheme(name: str, model: nn.Module, own: _Shapes, given: Mapping[str, Any]) -> Scheme:
    """The scheme of the network that knows most of the arrays, the first of equals."""
    schemes = schemes_of(name, model)
    if len(schemes) == 1:
        return schemes[0]
    return max(schemes, key=lambda scheme: sum(scheme.key(name, model, path) in given for path in own()))


def _is_left_out(scheme: Scheme, path: tuple[str, ...], key: str, given: Mapping[str, Any]) -> bool:
    return path[-1] in scheme.defaults and key not in given


def _strip(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The arrays by their names without prefix, and the names of the counters, which are left out."""
    stripped: dict[str, Any] = {}
    counters = []
    for key, array in arrays.items():
        if key.endswith("num_batches_tracked"):
            counters.append(key)
            continue
        short = names_torchvision.modern(key.removeprefix("module.").removeprefix("model."))
        if short in stripped:
            raise ValueError(f"every array must occur once, received {short!r} twice, spelt or prefixed differently.")
        stripped[short] = array if hasattr(array, "shape") else np.asarray(array)
    return stripped, counters


def _num_classes(given: Mapping[str, Any], scheme: Scheme, classifier: str) -> int:
    if classifier not in given or not given[classifier].shape:
        raise ValueError(f"the arrays must hold the classifier {classifier!r}, received none of that name.")
    return scheme.num_outputs(given[classifier].shape)


def _inferred_options(
    name: str, model: nn.Module, scheme: Scheme, own: _Shapes, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The options that the arrays tell; what they do not tell stays as it is, and their misfit is reported later."""
    found = dict(scheme.options) | _inferred_width(name, model, scheme, own, given)
    if isinstance(model, SlowFast):
        fusion = given.get(scheme.key(name, model, ("params", "stage1", "fusion", "conv", "kernel")))
        if fusion is not None and len(fusion.shape) == 5:
            found["fusion_frames"] = fusion.shape[2]
    if isinstance(model, MTNetReference):
        found |= width_and_delta(given)
    recurrent = {key.partition(".sar.")[2] for key in given if ".sar." in key}
    if name.startswith("srtg_") and recurrent:
        cells = {key.partition(".")[0] for key in recurrent}
        if len(cells) == 1 and cells <= set(_TORCH_CELLS):
            found["cell"] = cells.pop()
        layers = {key.rpartition("_l")[2] for key in recurrent if "weight_hh_l" in key}
        if layers:
            found["num_layers"] = len(layers)
    return found


def _inferred_width(
    name: str, model: nn.Module, scheme: Scheme, own: _Shapes, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The width by the stem's channels, where the network has as many times ``width`` as they are."""
    norm = _STEM_NORMS.get(type(model))
    if norm is None:
        return {}
    shapes = own()
    # By the majority of the stem's four vectors, so that a damaged one is named beside the shape it should have.
    stem = [path for path in shapes if path[1:-1] == norm]
    widths = Counter(
        _FULL_WIDTH * given[key].size / math.prod(shapes[path])
        for path in stem
        if (key := scheme.key(name, model, path)) in given
    )
    if widths:
        width = widths.most_common(1)[0][0]
        if width >= 1 and width.is_integer():
            return {"width": int(width)}
    return {}


def _check_keys(name: str, model: nn.Module, scheme: Scheme, wanted: list[str], given: Mapping[str, Any]) -> None:
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
    code = f" by the names of {scheme.code}" if len(schemes_of(name, model)) > 1 else ""
    raise ValueError(f"the arrays must be exactly those of {name!r}{code}, received {' and '.join(problems)}{hint}.")


def _listing(entries: list[str]) -> str:
    more = f"; and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return "; ".join(entries[:_LISTED]) + more
