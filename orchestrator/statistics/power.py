"""Power of a paired design: the chance that it finds a difference of a given size, and the seeds that this takes.

The rule is the one of `paired.compare`: the smallest p is multiplied by the number of comparisons (first step of Holm)
and the t interval has to leave zero out. Up to 10 seeds the rule itself is simulated on normal differences, because the
exact test moves in steps of 2 / 2^n; above, the noncentral t of statsmodels is exact enough (Cohen 1988).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.power import TTestPower

from orchestrator.statistics.significance import all_equal, floor_of_seeds, sign_flip_rows

SIMULATED_UP_TO, DRAWS, LARGEST, MOST = 10, 2000, 8.0, 10_000


@lru_cache(maxsize=512)
def power(effect: float, seeds: int, comparisons: int = 1, alpha: float = 0.05) -> float:
    """Chance of a verdict, in [0, 1], for a true mean difference of `effect` standard deviations of the differences."""
    effect = min(abs(effect), LARGEST)
    if seeds < floor_of_seeds(comparisons, alpha):
        return 0.0
    if seeds > SIMULATED_UP_TO:
        found = float(TTestPower().power(effect_size=effect, nobs=seeds, alpha=alpha / comparisons))
        return 1.0 if math.isnan(found) else found  # its far tail underflows where the power is 1 to six digits
    d = np.random.default_rng(seeds).normal(size=(DRAWS, seeds)) + effect
    t = d.mean(axis=1) / d.std(axis=1, ddof=1) * math.sqrt(seeds)
    verdicts = (sign_flip_rows(d) * comparisons < alpha) & (np.abs(t) > stats.t.ppf(0.975, seeds - 1))
    return float(verdicts.mean())


def seeds_needed(effect: float, comparisons: int = 1, alpha: float = 0.05, target: float = 0.8) -> int | None:
    """The fewest seeds with a power of `target` or more; None for no effect, or beyond 10 000."""
    if effect == 0:
        return None
    low, high = floor_of_seeds(comparisons, alpha), MOST
    if power(effect, high, comparisons, alpha) < target:
        return None
    while low < high:
        middle = (low + high) // 2
        if power(effect, middle, comparisons, alpha) >= target:
            high = middle
        else:
            low = middle + 1
    return low


@lru_cache(maxsize=64)
def detectable(seeds: int, comparisons: int = 1, alpha: float = 0.05, target: float = 0.8) -> float | None:
    """The smallest effect, in standard deviations of the differences, found with a power of `target`; None if
    none is.
    """
    low, high = 0.0, LARGEST
    if power(high, seeds, comparisons, alpha) < target:
        return None
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, seeds, comparisons, alpha) >= target else (middle, high)
    return high


def seeds_to_settle(d: Any, *, comparisons: int, alpha: float, margin: float) -> int | None:
    """Seeds in all after which the differences seen so far would give a verdict, taken at face value.

    A difference beyond `margin` shows with 80 % power, or the t interval fits inside the margin. None when neither
    would.
    """
    mean, spread = abs(float(np.mean(d))), float(np.std(d, ddof=1))
    if all_equal(np.asarray(d)):
        return None
    found = []
    if mean > margin and (needed := seeds_needed((mean - margin) / spread, comparisons, alpha)) is not None:
        found.append(needed)
    if mean < margin:
        room = (margin - mean) / spread
        sizes = np.arange(2, MOST)
        fits = stats.t.ppf(0.975, sizes - 1) / np.sqrt(sizes) < room
        found += [int(sizes[fits][0])] if fits.any() else []
    return max(len(d) + 1, min(found)) if found else None
