"""Is one network better than another, or was it luck? Tests and intervals for two networks on the same clips.

Everything follows from four counts of the same ``n`` clips: ``a`` that both networks get right, ``b`` that only the
first does, ``c`` that only the second does, and ``d`` that neither does. The first is better by ``(b - c) / n``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

FEW = 25
"""Below so many clips on which the networks disagree, the chi-square distribution is a poor approximation."""


@dataclass(frozen=True)
class McNemar:
    """The result of McNemar's test that two networks are equally often right.

    Attributes:
      b: clips that only the first network gets right.
      c: clips that only the second network gets right.
      chi2: the statistic with Edwards' continuity correction.
      p_value: of ``chi2``, by the chi-square distribution with one degree of freedom.
      exact_p_value: by the binomial distribution, which holds for small counts too; two-sided.
    """

    b: int
    c: int
    chi2: float
    p_value: float
    exact_p_value: float


def mcnemar(b: int, c: int) -> McNemar:
    r"""McNemar's test: would two equally good networks disagree as unevenly as this?

    .. math:: \chi^2 = \frac{(|b - c| - 1)^2}{b + c}

    (McNemar 1947 with the correction of Edwards 1948; Stergiou's thesis, eq. 6.1.) The exact p-value is the chance that
    ``b + c`` tosses of a fair coin fall at least as unevenly.

    Args:
      b: clips that only the first network gets right, at least 0.
      c: clips that only the second one gets right, at least 0.

    Returns:
      Statistic and p-values; they are the same for ``(c, b)``. With ``b = c`` nothing speaks for a difference: 0, 1, 1.

    Raises:
      ValueError: a negative count.

    Note:
      The correction moves ``|b - c|`` towards 0 and not beyond. As printed, ``b = c`` would give ``1 / (b + c)``.

    >>> test = mcnemar(659, 576)  # ResNet-50 3D with and without Class Regularisation, thesis, table 6.6a
    >>> round(test.chi2, 3), round(test.p_value, 4), round(test.exact_p_value, 4)
    (5.445, 0.0196, 0.0196)
    """
    b, c = operator.index(b), operator.index(c)
    if b < 0 or c < 0:
        raise ValueError(f"b and c must be counts of clips >= 0, received b={b}, c={c}.")
    corrected = max(abs(b - c) - 1, 0)
    chi2 = corrected**2 / (b + c) if b + c else 0.0
    tail = float(special.bdtr(min(b, c), b + c, 0.5))
    return McNemar(b, c, chi2, float(special.chdtrc(1, chi2)), min(1.0, 2 * tail))


def difference_interval(b: int, c: int, num_clips: int, *, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of ``(b - c) / num_clips``, by how much the first network is better.

    A resample draws ``num_clips`` of the clips with replacement, each with what both networks said about it. Its
    difference is then a sum of independent terms 1, -1 and 0 with the probabilities ``b/n``, ``c/n`` and the rest; the
    distribution of that sum is computed (as powers of its Fourier transform) instead of drawn. So the interval is that
    of infinitely many resamples: it needs no seed, and the other way round it is the same with the opposite sign.

    Args:
      b: clips that only the first network gets right.
      c: clips that only the second one gets right.
      num_clips: all clips, at least 1 and at least ``b + c``.
      level: in (0, 1).

    Returns:
      Lower and upper end, both in [-1, 1]. Where the networks agree on every clip it has no width; what such clips
      cannot tell, resampling them cannot tell either.

    Raises:
      ValueError: counts or a level that do not fit.

    >>> difference_interval(1, 0, 10)
    (0.0, 0.3)
    """
    _check_counts(b, c, num_clips)
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), received level={level}.")
    tail = (1 - level) / 2
    upper = -_lower_end(c, b, num_clips, tail)
    return _lower_end(b, c, num_clips, tail) / num_clips, upper / num_clips


def _lower_end(b: int, c: int, n: int, tail: float) -> int:
    """The smallest sum of ``n`` terms whose cumulative probability reaches ``tail``."""
    size = 1 << (2 * n).bit_length()  # sums -n .. n fit in without wrapping onto each other
    turn = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    transform = ((n - b - c) + b * turn + c * turn.conj()) / n
    chance = np.fft.irfft(transform**n, size)
    chance = np.concatenate([chance[-n:], chance[: n + 1]])  # the negative sums lie at the end
    return int(np.argmax(np.cumsum(chance) >= tail)) - n


def clips_needed(b: int, c: int, num_clips: int, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    r"""How many clips would be needed to call a difference like this one significant.

    With the shares :math:`\psi = (b + c) / n` of clips on which the networks disagree and
    :math:`\delta = (b - c) / n` by which they differ,

    .. math:: N = \left( \frac{z_{1-\alpha/2} \sqrt{\psi} + z_{power} \sqrt{\psi - \delta^2}}{\delta} \right)^2

    (Connor, "Sample size for testing differences in proportions for the paired-sample design", Biometrics 43, 1987,
    pp. 207-211.)

    Args:
      b: clips that only the first network gets right.
      c: clips that only the second one gets right.
      num_clips: all clips, at least 1 and at least ``b + c``.
      alpha: two-sided level of the test, in (0, 1).
      power: wanted chance that the test finds the difference, in (0, 1).

    Returns:
      Clips, rounded up; ``None`` where ``b = c``, a difference that no number of clips would show.

    Raises:
      ValueError: counts, a level or a power that do not fit.

    Note:
      For the test without continuity correction and by the normal approximation: with a handful of clips on which the
      networks disagree the exact test needs more of them. It takes the rates that were seen for the true ones.

    >>> clips_needed(20, 10, 100)
    234
    """
    _check_counts(b, c, num_clips)
    if not (0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"alpha and power must be in (0, 1), received alpha={alpha}, power={power}.")
    if b == c:
        return None
    disagree, differ = (b + c) / num_clips, (b - c) / num_clips
    sides = float(special.ndtri(1 - alpha / 2)) * math.sqrt(disagree)
    found = float(special.ndtri(power)) * math.sqrt(max(disagree - differ**2, 0.0))
    return math.ceil(((sides + found) / differ) ** 2)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values corrected for being many (Holm 1979): the chance of one wrong finding or more stays below the level.

    The smallest of ``m`` is multiplied by ``m``, the next by ``m - 1`` and so on; none becomes smaller than the one
    before it or larger than 1.

    Args:
      p_values: ``float[m]`` in [0, 1].

    Returns:
      ``float[m]`` in the same order.

    Raises:
      ValueError: a value that is not in [0, 1].

    >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    values = np.asarray(p_values, np.float64)
    wrong = ~((values >= 0) & (values <= 1))  # NaN too
    if values.ndim != 1 or wrong.any():
        raise ValueError(
            f"p_values must be float[m] in [0, 1], received {values[wrong][:5] if wrong.any() else values}."
        )
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return corrected


def _check_counts(b: int, c: int, num_clips: int) -> None:
    if b < 0 or c < 0 or num_clips < max(b + c, 1):
        raise ValueError(
            f"b and c must be >= 0 and num_clips >= 1 and >= b + c, received b={b}, c={c}, num_clips={num_clips}."
        )
