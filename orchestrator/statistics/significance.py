"""Significance of paired differences d_1 ... d_n, one per unit (a study or a seed).

    sign-flip    p = #{s in {-1, 1}^n : |mean(s d)| >= |mean(d)|} / 2^n              (Fisher 1935; Pitman 1937)
    beyond       the same of d - margin or d + margin, whichever the mean lies beyond: is |E d| above the margin?
    equivalence  p = 2 max(P(T <= (mean - margin) / se), P(T >= (mean + margin) / se))   T ~ t_{n - 1}
                 twice the larger of the two one-sided tests' p (Schuirmann 1987)
    P(A > B)     mean of 1{d_i > 0} + 0.5 1{d_i = 0}                       (Bouthillier et al. 2021, 2103.03098)

The sign-flip test is exact when d is distributed symmetrically about the margin: always when both arms have the same
distribution, whatever it is. Skewed differences with mean zero, from arms that differ only in shape, are declared
different too often: exponential ones at 5% in 7 to 11% of samples of 6 to 12.

p of equivalence is below alpha exactly when the 1 - alpha interval of the mean lies inside the margin. It is doubled so
that, whatever the truth, 'better' and 'equivalent' together are wrong in at most alpha of all cases.

The smallest possible two-sided p of an exact test is 2 / 2^n, so k comparisons at level alpha under Holm (1979) need n
>= 1 + log2(k / alpha) units: 6 for one comparison at 0.05, 7 for three, 9 for ten.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from orchestrator.statistics.intervals import Array, all_equal, share_interval

EXACT_UP_TO, DRAWS, ROUNDING = 16, 99_999, 1e-10
AT_ONCE = 2**20
"""Means under sign patterns that are in memory at once: 8 MB. More would not fit into a processor's cache."""


def floor_of_seeds(comparisons: int, alpha: float) -> int:
    """The smallest number of units, studies or seeds, with which an exact test can be significant in Holm's first
    step.
    """
    return math.ceil(1 + math.log2(max(1, comparisons) / alpha) - 1e-12)


@lru_cache(maxsize=16)
def _signs(n: int) -> Array:
    """Half of all sign patterns; the other half gives the same absolute means."""
    return np.array(list(itertools.product((1.0,), *[(-1.0, 1.0)] * (n - 1))))


def sign_flip_rows(differences: Array) -> Array:
    """Two-sided p of the sign-flip test on the mean for each row of [rows, n]; exact, n at most 16."""
    d = np.atleast_2d(differences)
    signs = _signs(d.shape[1])
    reached = np.abs(d.sum(axis=1)) - ROUNDING * np.abs(d).sum(axis=1)
    count, rows = np.empty(len(d)), max(1, AT_ONCE // len(signs))
    for at in range(0, len(d), rows):
        means = signs @ d[at : at + rows].T
        count[at : at + rows] = np.count_nonzero(np.abs(means, out=means) >= reached[at : at + rows], axis=0)
    return count / len(signs)


def sign_flip(d: Array) -> float:
    """Two-sided p of the sign-flip permutation test on the mean; exact up to 16 differences, else 99 999 draws."""
    if len(d) <= EXACT_UP_TO:
        return float(sign_flip_rows(d)[0])
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(DRAWS, len(d)))
    reached = abs(float(d.sum())) - ROUNDING * float(np.abs(d).sum())
    return (int((np.abs(signs @ d) >= reached).sum()) + 1) / (DRAWS + 1)


def beyond(d: Array, margin: float) -> Array | None:
    """The differences relative to the edge of the margin beyond which their mean lies; None when it lies within."""
    mean = float(d.mean())
    if margin == 0:
        return d
    return None if abs(mean) <= margin else d - math.copysign(margin, mean)


def equivalence(d: Array, margin: float) -> float:
    """The p of the null that the true mean lies outside -+ margin, as above; in [0, 1]."""
    from scipy.special import stdtr

    mean, se = float(d.mean()), standard_deviation(d) / math.sqrt(len(d))
    if all_equal(d):
        return 0.0 if abs(mean) <= margin else 1.0
    return min(1.0, 2 * float(stdtr(len(d) - 1, (abs(mean) - margin) / se)))


def wilcoxon(d: Array) -> float:
    """Two-sided p of the signed-rank test (zeros left out), exact also with ties up to 16 differences; 1 if all are
    zero.
    """
    moving = d[d != 0]
    if not len(moving):
        return 1.0
    if len(moving) > EXACT_UP_TO:
        from scipy import stats  # takes half a second, not needed for fewer differences

        return float(stats.wilcoxon(moving).pvalue)
    return float(sign_flip_rows(np.sign(moving) * ranks(np.abs(moving)))[0])


def ranks(values: Array) -> Array:
    """Ranks from 1 for the smallest; ties get the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p of each of k comparisons: for the i-th smallest, the largest (k + 1 - j) p_(j) with j <= i, at most 1.

    Holm (1979). statsmodels has the same, but runs a garbage collection at every call, 0.1 s with torch in memory.
    """
    p = np.asarray(ps, dtype=float)
    order, adjusted = p.argsort(kind="stable"), np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]).clip(max=1.0)
    return [float(one) for one in adjusted]


def outperforming(d: Array, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """P(A > B) over the units, ties counted half, with its interval. `d` > 0 favors A."""
    wins = float((d > 0).sum() + 0.5 * (d == 0).sum())
    return wins / len(d), share_interval(wins, len(d), confidence)


def standard_deviation(d: Any) -> float:
    """Sample standard deviation."""
    return float(np.std(d, ddof=1))
