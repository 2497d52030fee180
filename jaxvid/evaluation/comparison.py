"""Two networks on the same clips: who is right where, and whether that is more than luck."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxvid.evaluation.stats import McNemar, clips_needed, difference_interval, holm, mcnemar
from jaxvid.evaluation.text import printable
from jaxvid.files import NPZ_ERRORS

ALPHA = 0.05
"""Level of all tests; the intervals hold ``1 - ALPHA``."""
POWER = 0.8
"""Chance to find the difference with the number of clips that is said to be needed."""

_ARRAYS = ("names", "labels", "decoded", "scores", "class_names")


@dataclass(frozen=True, eq=False)
class Judged:
    """What a comparison needs of one evaluation.

    Attributes:
      run: what a person calls it.
      class_names: the ``K`` names, all different.
      clip_names: of the ``n`` clips. A name may come again: its clips are told apart by their order.
      labels: ``int[n]`` in ``[0, K)``, the true classes.
      decoded: ``bool[n]``.
      correct: ``bool[n]``, as ``top1`` counts: ``False`` for a clip that could not be decoded.
    """

    run: str
    class_names: tuple[str, ...]
    clip_names: tuple[str, ...]
    labels: np.ndarray
    decoded: np.ndarray
    correct: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Run A beside run B; every difference is A's share of right clips less B's.

    Attributes:
      run_a: what a person calls the first run.
      run_b: the second.
      num_clips: ``n``.
      num_missing: those that could not be decoded, in either run; both are wrong there.
      both: clips that both get right (``a`` of the contingency table).
      neither: clips that neither gets right (``d``).
      test: McNemar's test, with ``b``, the clips that only A gets right, and ``c``, those that only B does.
      interval: of the difference, at ``1 - ALPHA``, by bootstrap over the clips.
      needed: clips that would be needed to call this difference significant; ``None`` where it is 0.
      classes: a dictionary for each class, in the order of A's classes, with ``class``, ``num_clips``, ``accuracy_a``,
        ``accuracy_b``, ``difference``, ``b``, ``c``, ``exact_p`` and ``holm_p``, which is corrected for the number of
        classes; shares and p-values are ``None`` for a class without clips.
    """

    run_a: str
    run_b: str
    num_clips: int
    num_missing: int
    both: int
    neither: int
    test: McNemar
    interval: tuple[float, float]
    needed: int | None
    classes: tuple[dict[str, Any], ...]

    @property
    def accuracy_a(self) -> float:
        """Share of the clips that A gets right."""
        return (self.both + self.test.b) / self.num_clips

    @property
    def accuracy_b(self) -> float:
        """Share of the clips that B gets right."""
        return (self.both + self.test.c) / self.num_clips

    @property
    def difference(self) -> float:
        """``accuracy_a - accuracy_b``."""
        return (self.test.b - self.test.c) / self.num_clips

    @property
    def significant(self) -> bool:
        """Whether the exact test calls the networks different."""
        return self.test.exact_p_value < ALPHA

    def to_json(self) -> dict[str, Any]:
        """Plain values by name, which strict JSON can hold."""
        return {
            "run_a": self.run_a,
            "run_b": self.run_b,
            "num_clips": self.num_clips,
            "num_missing": self.num_missing,
            "accuracy_a": self.accuracy_a,
            "accuracy_b": self.accuracy_b,
            "a": self.both,
            "b": self.test.b,
            "c": self.test.c,
            "d": self.neither,
            "chi2": self.test.chi2,
            "p": self.test.p_value,
            "exact_p": self.test.exact_p_value,
            "difference": self.difference,
            "interval": list(self.interval),
            "alpha": ALPHA,
            "power": POWER,
            "clips_needed": self.needed,
            "classes": [dict(row) for row in self.classes],
        }


def compare_runs(run_a: str | os.PathLike[str], run_b: str | os.PathLike[str]) -> Comparison:
    """Compares what two evaluations wrote; see :func:`read_judged` and :func:`compare_judged`."""
    return compare_judged(read_judged(run_a), read_judged(run_b))


def read_judged(run: str | os.PathLike[str]) -> Judged:
    """Reads which clips an evaluation got right; see :func:`read_scored`."""
    return read_scored(run)[0]


def read_scored(run: str | os.PathLike[str]) -> tuple[Judged, np.ndarray]:
    """Reads what an evaluation said about each clip.

    Args:
      run: a run folder (``RUN/eval/predictions.npz`` is read), the folder of a cross-validation or of the ``--output``
        of an evaluation (``predictions.npz`` in it), or such a file itself.

    Returns:
      What a comparison needs, and the scores, ``float[n K]``.

    Raises:
      ValueError: no such file, more than one, or one that no evaluation wrote.
    """
    path = _find(Path(run))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [name for name in _ARRAYS if name not in arrays]
            if missing:
                raise ValueError(f"it has no {missing[0]}: 'jaxvid eval' writes them")
            names, labels, decoded, scores, class_names = (arrays[name] for name in _ARRAYS)
        _check_arrays(names, labels, decoded, scores, class_names)
    except NPZ_ERRORS as error:
        why = "it is damaged, or no npz file" if "pickle" in str(error) or "protocol" in str(error) else error
        raise ValueError(
            f"a run must hold the predictions of an evaluation, received {printable(str(path))}, which does not "
            f"({why})."
        ) from error
    correct = decoded & (scores.argmax(axis=1) == labels)
    return Judged(str(run), tuple(class_names.tolist()), tuple(names.tolist()), labels, decoded, correct), scores


def compare_judged(a: Judged, b: Judged) -> Comparison:
    """Counts and tests where two networks differ on the same clips.

    Clips are paired by name, so their order does not matter (a name that comes again is paired in order), and classes
    too. A clip that could not be decoded in either run is wrong in both, as it is for ``top1``.

    Args:
      a: the first run.
      b: the second.

    Raises:
      ValueError: the runs have other classes or clips, a clip has another class, or was decoded in one run only.
    """
    order, _ = pair(a, b)
    right_a, right_b = a.correct, b.correct[order]
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n = len(a.labels)
    return Comparison(
        run_a=a.run,
        run_b=b.run,
        num_clips=n,
        num_missing=int((~a.decoded).sum()),
        both=int((right_a & right_b).sum()),
        neither=int((~right_a & ~right_b).sum()),
        test=mcnemar(only_a, only_b),
        interval=difference_interval(only_a, only_b, n, level=1 - ALPHA),
        needed=clips_needed(only_a, only_b, n, alpha=ALPHA, power=POWER),
        classes=tuple(_classes(a, right_a, right_b)),
    )


def pair(a: Judged, b: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Where one run's clips and classes are in another.

    Returns:
      ``int[n]``, B's position of each of A's clips, and ``int[K]``, A's class for each of B's.

    Raises:
      ValueError: the runs have other classes or clips, a clip has another class, or was decoded in one run only.
    """
    class_of_b = _pair_classes(a, b)
    order = _pair_clips(a, b)
    _check_labels(a, b, order, class_of_b)
    _check_decoded(a, b, order)
    return order, class_of_b


def _classes(a: Judged, right_a: np.ndarray, right_b: np.ndarray) -> list[dict[str, Any]]:
    K = len(a.class_names)
    chosen = (np.ones_like(right_a), right_a, right_b, right_a & ~right_b, right_b & ~right_a)
    counts = (np.bincount(a.labels[clips], minlength=K).tolist() for clips in chosen)
    rows = []
    for name, n, num_a, num_b, only_a, only_b in zip(a.class_names, *counts, strict=True):
        shares = {"accuracy_a": num_a, "accuracy_b": num_b, "difference": only_a - only_b}
        row = {"class": name, "num_clips": n} | {key: count / n if n else None for key, count in shares.items()}
        row |= {"b": only_a, "c": only_b, "exact_p": mcnemar(only_a, only_b).exact_p_value if n else None}
        rows.append(row | {"holm_p": None})
    tested = [row for row in rows if row["num_clips"]]
    for row, corrected in zip(tested, holm([row["exact_p"] for row in tested]).tolist(), strict=True):
        row["holm_p"] = corrected
    return rows


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    found = [place for place in (path / "predictions.npz", path / "eval" / "predictions.npz") if place.is_file()]
    if not found:
        raise ValueError(
            f"a run must hold predictions.npz or eval/predictions.npz, received {printable(str(path))}, which holds "
            f"neither: 'jaxvid eval --checkpoint=RUN' writes them."
        )
    if len(found) > 1:
        raise ValueError(
            f"a run must hold one evaluation, received {printable(str(path))}, which holds predictions.npz and "
            f"eval/predictions.npz: name one of the files."
        )
    return found[0]


def _check_arrays(names: Any, labels: Any, decoded: Any, scores: Any, class_names: Any) -> None:
    n, K = len(labels), len(class_names)
    shapes = [array.shape for array in (names, labels, decoded, scores, class_names)]
    if shapes != [(n,), (n,), (n,), (n, K), (K,)] or n < 1:
        raise ValueError(f"its arrays must have the shapes [n], [n], [n], [n K] and [K], received {shapes}")
    kinds = {"names": (names, "U"), "labels": (labels, "iu"), "decoded": (decoded, "b"), "scores": (scores, "f"),
             "class_names": (class_names, "U")}  # fmt: skip
    for name, (array, kind) in kinds.items():
        if array.dtype.kind not in kind:
            what = {"U": "text", "iu": "integers", "b": "bool", "f": "floating-point numbers"}[kind]
            raise ValueError(f"{name} must be {what}, received {array.dtype}")
    if labels.min() < 0 or labels.max() >= K:
        raise ValueError(f"labels must be in [0, {K}), received {labels.min()} to {labels.max()}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    if len(set(class_names.tolist())) < K:
        raise ValueError("class_names must differ from each other")


def _pair_classes(a: Judged, b: Judged) -> np.ndarray:
    """``int[K]``, A's class for each of B's."""
    lonely = [
        [name for name in one.class_names if name not in set(other.class_names)] for one, other in ((a, b), (b, a))
    ]
    if any(lonely):
        raise ValueError(f"both runs must have the same classes, received {_only(lonely, a, b)}.")
    places = {name: k for k, name in enumerate(a.class_names)}
    return np.array([places[name] for name in b.class_names])


def _pair_clips(a: Judged, b: Judged) -> np.ndarray:
    """``int[n]``, B's position of each of A's clips."""
    keys_a, keys_b = _numbered(a.clip_names), _numbered(b.clip_names)
    places = {key: i for i, key in enumerate(keys_b)}
    known = set(keys_a)
    lonely = [[name for name, i in keys_a if (name, i) not in places], [key[0] for key in keys_b if key not in known]]
    if any(lonely):
        raise ValueError(f"both runs must have been evaluated on the same clips, received {_only(lonely, a, b)}.")
    return np.array([places[key] for key in keys_a])


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Each name with how often it came before."""
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys


def _check_labels(a: Judged, b: Judged, order: np.ndarray, class_of_b: np.ndarray) -> None:
    others = class_of_b[b.labels[order]]
    (wrong,) = np.nonzero(a.labels != others)
    if wrong.size:
        i = wrong[0]
        raise ValueError(
            f"a clip must have the same class in both runs, received {a.clip_names[i]!r}, which is "
            f"{a.class_names[a.labels[i]]!r} in {printable(a.run)} and {a.class_names[others[i]]!r} in "
            f"{printable(b.run)}{f', and {wrong.size - 1} more such clips' * (wrong.size > 1)}."
        )


def _check_decoded(a: Judged, b: Judged, order: np.ndarray) -> None:
    # The difference would be that of two machines or two copies of the files, not that of two networks.
    decoded_b = b.decoded[order]
    lonely = [
        [a.clip_names[i] for i in np.nonzero(only)[0]] for only in (a.decoded & ~decoded_b, decoded_b & ~a.decoded)
    ]
    if any(lonely):
        raise ValueError(f"a clip must have been decoded in both runs or in neither, received {_only(lonely, a, b)}.")


def _only(lonely: Sequence[Sequence[str]], a: Judged, b: Judged, limit: int = 5) -> str:
    """``2 only in runs/a ('x', 'y') and 1 only in runs/b ('z')``."""
    told = []
    for names, run in zip(lonely, (a.run, b.run), strict=True):
        more = f" and {len(names) - limit} more" if len(names) > limit else ""
        if names:
            told.append(f"{len(names)} only in {printable(run)} ({', '.join(map(repr, names[:limit]))}{more})")
    return " and ".join(told)
