"""Significance of paired differences: exact sign-flip and Wilcoxon p, Holm, intervals, probability of outperforming.

    sign-flip  p = #{s in {-1, 1}^n : |mean(s d)| >= |mean(d)|} / 2^n                (Fisher 1935; Pitman 1937)
    P(A > B) = mean of 1{d_i > 0} + 0.5 1{d_i = 0}                                  (Bouthillier et al. 2021,
    2103.03098)

The least possible two-sided p of both exact tests is 2 / 2^n, so k comparisons at level alpha under Holm (1979) need
n >= 1 + log2(k / alpha) seeds: 6 for one comparison at 0.05, 7 for three, 9 for ten.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

Array = NDArray[np.float64]
BOOTSTRAP_FROM, EXACT_UP_TO, DRAWS = 10, 16, 99_999


def floor_of_seeds(comparisons: int, alpha: float) -> int:
    """The fewest seeds with which an exact test can be significant in the first step of Holm."""
    return math.ceil(1 + math.log2(max(1, comparisons) / alpha) - 1e-12)


@lru_cache(maxsize=16)
def _signs(n: int) -> Array:
    return np.array(list(itertools.product((-1.0, 1.0), repeat=n)))


def sign_flip_rows(differences: Array) -> Array:
    """Two-sided p of the sign-flip test on the mean for each row of [rows, n]; exact, n at most 16."""
    d = np.atleast_2d(differences)
    signs = _signs(d.shape[1])
    observed = np.abs(d.sum(axis=1))
    return np.asarray((np.abs(signs @ d.T) >= observed * (1 - 1e-12)).mean(axis=0))


def sign_flip(d: Array) -> float:
    """Two-sided p of the sign-flip permutation test on the mean; exact up to 16 differences, else 99 999 draws."""
    if len(d) <= EXACT_UP_TO:
        return float(sign_flip_rows(d)[0])
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(DRAWS, len(d)))
    reached = int((np.abs(signs @ d) >= abs(float(d.sum())) * (1 - 1e-12)).sum())
    return (reached + 1) / (DRAWS + 1)


def wilcoxon(d: Array) -> float:
    """Two-sided p of the signed-rank test (zeros left out), exact also with ties up to 16 differences; 1 when all
    zero.
    """
    moving = d[d != 0]
    if not len(moving):
        return 1.0
    if len(moving) > EXACT_UP_TO:
        return float(stats.wilcoxon(moving).pvalue)
    ranks = stats.rankdata(np.abs(moving))
    return float(sign_flip_rows(np.sign(moving) * ranks)[0])


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p of each comparison (Holm 1979)."""
    return [float(p) for p in multipletests(ps, method="holm")[1]]


def interval(d: Array, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean: t under 10 values, else BCa (9 999 draws, fixed seed); a point when all are equal."""
    if all_equal(d):
        return float(d[0]), float(d[0])
    if len(d) < BOOTSTRAP_FROM:
        found = stats.ttest_1samp(d, 0.0).confidence_interval(confidence)
        return float(found.low), float(found.high)
    boot = stats.bootstrap((d,), np.mean, confidence_level=confidence, method="BCa", rng=np.random.default_rng(0))
    return float(boot.confidence_interval.low), float(boot.confidence_interval.high)


def all_equal(d: Array) -> bool:
    """Whether the differences are one and the same number, up to rounding."""
    return float(np.ptp(d)) <= 1e-12 * float(np.abs(d).max())


def outperforming(d: Array, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """P(A > B) over the seeds, ties counted half, with its percentile bootstrap interval. `d` > 0 favours A."""
    wins = np.where(d > 0, 1.0, np.where(d == 0, 0.5, 0.0))
    draws = np.random.default_rng(0).choice(wins, size=(9_999, len(wins))).mean(axis=1)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(wins.mean()), (float(low), float(high))


def standard_deviation(d: Any) -> float:
    """Sample standard deviation."""
    return float(np.std(d, ddof=1))
