"""The sha256 of arrays, and a JSON record that carries its own: what makes damage on disk visible.

Orbax and TensorStore keep no checksum over array data: a checkpoint with inverted bytes restores without an error and
with wrong numbers. So each leaf's digest is taken from the host copy that is saved, and compared after reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


def describe(leaves: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """``{path: {"dtype", "shape", "sha256"}}``; the digest is over the bytes in C order.

    >>> describe({"step": np.int32(7)})["step"]["sha256"] == hashlib.sha256(bytes([7, 0, 0, 0])).hexdigest()
    True
    """
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashlib frees the GIL
        digests = list(pool.map(_sha256, leaves.values()))
    return {
        path: {"dtype": str(leaf.dtype), "shape": list(leaf.shape), "sha256": digest}
        for (path, leaf), digest in zip(leaves.items(), digests, strict=True)
    }


def first_difference(leaves: Mapping[str, np.ndarray], described: Mapping[str, Mapping[str, Any]]) -> str:
    """Half a sentence about the first leaf that is not as described; empty when all are.

    >>> first_difference({}, {"a": {"dtype": "int32", "shape": [], "sha256": "0"}})
    "leaf 'a' is missing"
    """
    missing = sorted(set(described) - set(leaves))
    if missing:
        return f"leaf {missing[0]!r} is missing" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
    now = describe({path: leaves[path] for path in described})
    for path, then in described.items():
        for what in ("dtype", "shape", "sha256"):
            if now[path][what] != then[what]:
                return f"the {what} of leaf {path!r} is {now[path][what]} and was {then[what]} when it was saved"
    return ""


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """``{"sha256", "record"}``: a JSON-able record with the digest of its canonical text.

    Raises:
      TypeError: a value is none that JSON knows.
    """
    text = _canonical(record)
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "record": json.loads(text)}


def unseal(sealed: Any) -> dict[str, Any]:
    """The record that :func:`seal` took.

    Raises:
      ValueError: it is no sealed record, or it was changed after it was sealed.
    """
    if not isinstance(sealed, dict) or set(sealed) != {"sha256", "record"} or not isinstance(sealed["record"], dict):
        raise ValueError("it is not a record of jaxvid")
    if hashlib.sha256(_canonical(sealed["record"]).encode()).hexdigest() != sealed["sha256"]:
        raise ValueError("its content does not have the sha256 that it states")
    return sealed["record"]


def _canonical(record: Any) -> str:
    # Numbers that are not finite stay as Python's NaN and Infinity: such a metric must come back as it was.
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _sha256(leaf: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data).hexdigest()
