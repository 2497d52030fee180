"""Options of the builders: what each may be, and one sentence for one that may not."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import operator
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxvid.models.residual import PLACEMENTS
from jaxvid.nn.fast import ARRANGEMENTS
from jaxvid.nn.mtconv import SELECTIONS

CONVS = ("auto", "direct", "folded")
"""Formulations of the 3-D convolution; ``auto`` is the fastest one measured on the backend."""

POOLS = ("max", "avg", "soft")
"""Pooling between the stages; ``soft`` is :func:`jaxvid.ops.softpool`."""

POOL_WINDOWS = (2, 3)
"""Lengths of the window of the pooling behind the stem; it halves in either case."""

DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class SRTGOptions:
    """What a block's SRTG is (see :class:`jaxvid.nn.srtg.SRTG`) and where it sits."""

    cell: str = "lstm"
    num_layers: int = 2
    gate: str = "none"
    gate_gradient: str = "hard"
    init: str = "identity"
    placement: str = "final"


SRTG_CHOICES: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "cell": ("lstm", "peephole_lstm", "gru", "rnn"),
        "num_layers": (1, 2),
        "gate": ("none", "cyclic"),
        "gate_gradient": ("hard", "straight_through"),
        "init": ("identity", "torch"),
        "placement": PLACEMENTS,
    }
)
"""The values of the options that only ``srtg_`` names take."""


def network_fields(
    name: str,
    own: Sequence[str],
    num_classes: Any,
    *,
    convs: Sequence[str] = CONVS,
    residual: bool = True,
    dropout: Any = 0.0,
    dtype: Any = "float32",
    conv: Any = "auto",
    remat: Any = False,
    window: Any = None,
    **srtg: Any,
) -> dict[str, Any]:
    """The fields that every network has, checked.

    Args:
      name: the network's name; one that begins with ``srtg_`` has SRTG in every block.
      own: the options that its builder takes beside these.
      num_classes: outputs, at least 1.
      convs: what ``conv`` may be.
      residual: whether its blocks are residual ones; the others have no SRTG.
      dropout: share of the features dropped before the classifier, in [0, 1).
      dtype: of the activations: float32, bfloat16 or float16.
      conv: formulation of the convolutions.
      remat: whether the backward pass computes the activations inside of the blocks again instead of keeping them.
      window: for fully-convolutional evaluation, see :class:`jaxvid.models.stages.Head`.
      **srtg: fields of :class:`SRTGOptions`, for ``srtg_`` names only.

    Returns:
      ``num_classes``, ``dropout``, ``dtype``, ``conv``, ``remat``, ``window`` and, with ``residual``, ``srtg``.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    known = (*own, "dropout", "dtype", "conv", "remat", "window")
    if residual:
        fields = {"srtg": srtg_options(name, known, srtg)}
    else:
        refuse_options(name, known, srtg)
        fields = {}
    require_choice("conv", conv, tuple(convs))
    if window is not None:
        if isinstance(window, (str, bytes)) or not isinstance(window, Sequence) or len(window) != 3:
            raise ValueError(f"window must be None or three numbers (T, H, W), received window={window!r}.")
        window = tuple(count("window", length) for length in window)
    return {
        "num_classes": count("num_classes", num_classes),
        "dropout": share("dropout", dropout),
        "dtype": activation_dtype(dtype),
        "conv": conv,
        "remat": flag("remat", remat),
        "window": window,
    } | fields


def srtg_options(name: str, known: Sequence[str], options: Mapping[str, Any]) -> SRTGOptions | None:
    """The SRTG of a network: that of ``options`` where its name begins with ``srtg_``, else ``None``.

    Args:
      name: the network's name.
      known: the options that its builder takes beside these.
      options: fields of :class:`SRTGOptions`; whatever the builder did not know ends up here too.
      residual: whether there is a network of that name with SRTG.

    Raises:
      ValueError: an option is unknown, does not belong to this name, or has an impossible value.
    """
    recurrent = [f.name for f in dataclasses.fields(SRTGOptions)]
    refuse_options(name, (*known, *recurrent), [option for option in options if option not in recurrent])
    for option, value in options.items():
        if not name.startswith("srtg_"):
            raise ValueError(
                f"{option} may only be set for a model whose name starts with srtg_, received {option}={value!r} "
                f"for {name!r} (the one with SRTG is 'srtg_{name}')."
            )
        require_choice(option, value, SRTG_CHOICES[option])
    if options.get("gate_gradient", "hard") != "hard" and options.get("gate", "none") != "cyclic":
        raise ValueError(
            f"gate_gradient may only be set with gate='cyclic', received gate_gradient={options['gate_gradient']!r} "
            f"with gate={options.get('gate', 'none')!r}."
        )
    return SRTGOptions(**options) if name.startswith("srtg_") else None


def refuse_options(name: str, known: Sequence[str], unknown: Collection[str]) -> None:
    """Raises ``ValueError`` for the first of the options that a network does not have, if there is one."""
    for option in unknown:
        raise ValueError(
            f"the options of {name!r} must be among {', '.join(known)}, received {option!r}{closest(option, known)}."
        )


def fast_arrangement(name: str, fast: Any) -> str | None:
    """How the FAST convolutions of a ``fast_`` network stand, by default one after another; ``None`` for the others.

    Raises:
      ValueError: the arrangement is unknown, or given for another network.
    """
    if not name.removeprefix("srtg_").startswith("fast_"):
        if fast is not None:
            raise ValueError(f"fast may only be set for a fast_ model, received fast={fast!r} for {name!r}.")
        return None
    require_choice("fast", "sequential" if fast is None else fast, ARRANGEMENTS)
    return "sequential" if fast is None else str(fast)


def mtconv_choices(name: str, delta: Any, selection: Any) -> dict[str, Any]:
    """Those of ``delta`` and ``selection`` that are given for a network of MTConvs, checked.

    Raises:
      ValueError: one is impossible, or given for another network.
    """
    given = {option: value for option, value in (("delta", delta), ("selection", selection)) if value is not None}
    if given and not name.removeprefix("srtg_").startswith("mtconv_"):
        option, value = next(iter(given.items()))
        raise ValueError(f"{option} may only be set for an mtconv_ model, received {option}={value!r} for {name!r}.")
    if "delta" in given:
        given["delta"] = local_share(delta)
    if "selection" in given:
        require_choice("selection", selection, SELECTIONS)
    return given


def local_share(value: Any) -> float:
    """The share of the channels that the local branch of an MTConv has, a number in (0, 1]."""
    delta = positive("delta", value)
    if delta > 1:
        raise ValueError(f"delta must be in (0, 1], received delta={delta}.")
    return delta


def pool_window(value: Any) -> int:
    """The length of the window of the pooling behind the stem, one of :data:`POOL_WINDOWS`."""
    require_choice("pool_window", value, POOL_WINDOWS)
    return int(value)


def closest(word: Any, choices: Collection[Any]) -> str:
    """The end of an error message that names the nearest valid words, or nothing where none is near.

    >>> closest("r3d18", ["r3d_18", "i3d", "slowfast"])
    "; did you mean 'r3d_18' or 'i3d'"
    """
    near = difflib.get_close_matches(str(word), [str(choice) for choice in choices], n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}" if near else ""


def count(option: str, value: Any) -> int:
    """A whole number of any type, NumPy's too, as Python's own: fields of modules are hashed and compared."""
    try:
        number = 0 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{option} must be a whole number >= 1, received {option}={value!r}.")
    return number


def flag(option: str, value: Any) -> bool:
    """True or False, NumPy's too, as Python's own."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{option} must be True or False, received {option}={value!r}.")
    return bool(value)


def share(option: str, value: Any) -> float:
    """A number in [0, 1) of any type as Python's own."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
        raise ValueError(f"{option} must be in [0, 1), received {option}={value!r}.")
    return float(value)


def positive(option: str, value: Any) -> float:
    """A finite number > 0 of any type as Python's own."""
    real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if not real or not 0 < float(value) < float("inf"):
        raise ValueError(f"{option} must be a finite number > 0, received {option}={value!r}.")
    return float(value)


def require_choice(option: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raises ``ValueError`` with the nearest valid values where ``value`` is none of ``choices``."""
    # `in` alone would take True for 1.
    if value not in choices or isinstance(value, bool):
        raise ValueError(
            f"{option} must be one of {', '.join(map(str, choices))}, "
            f"received {option}={value!r}{closest(value, choices)}."
        )


def activation_dtype(dtype: Any) -> np.dtype:
    """The dtype of the activations, given by its name or as one of NumPy's or jax's types; one of :data:`DTYPES`."""
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    require_choice("dtype", name, DTYPES)
    return jnp.dtype(name)
