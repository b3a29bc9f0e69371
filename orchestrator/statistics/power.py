"""Power of a paired design: the chance of detecting a difference of a given size, and the number of units needed.

A unit is a study or a seed. The rule is that of `comparison`: the smallest p is multiplied by the number of comparisons
(first step of Holm), and the 1 - alpha interval of the mean must exclude zero. Up to 10 units the rule itself is
simulated on normal differences, because the exact test moves in steps of 2 / 2^n; above that the noncentral t is
accurate enough (Cohen 1988).

Differences between searches are heavy-tailed: a few searches find nothing good. The power for a medium effect is then
higher than for normal differences of the same variance (on trained digits by up to 27 points at a true power of 0.5, up
to 16 at 0.8), and for a large effect lower (by up to 5 at 0.95). No affordable number of studies can estimate such
tails, so the prediction assumes normality, which is conservative where designs are chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import nctdtr, stdtrit

from orchestrator.statistics.intervals import Array, all_equal
from orchestrator.statistics.significance import floor_of_seeds, sign_flip_rows, standard_deviation

SIMULATED_UP_TO, DRAWS, LARGEST, MOST, TARGET = 10, 2000, 8.0, 10_000, 0.8


@lru_cache(maxsize=4096)
def power(effect: float, seeds: int, comparisons: int = 1, alpha: float = 0.05) -> float:
    """Chance of a verdict, in [0, 1], for a true mean difference of `effect` standard deviations of the differences.

    `seeds` counts units.
    """
    effect = min(abs(effect), LARGEST)
    if seeds < floor_of_seeds(comparisons, alpha):
        return 0.0
    if seeds > SIMULATED_UP_TO:
        shift, far = effect * math.sqrt(seeds), stdtrit(seeds - 1, 1 - alpha / comparisons / 2)
        found = 1 - float(nctdtr(seeds - 1, shift, far) - nctdtr(seeds - 1, shift, -far))
        return 1.0 if math.isnan(found) else found  # the far tail underflows where the power is 1 to six digits
    return float(settled(_normal(seeds) + effect, comparisons, alpha).mean())


@lru_cache(maxsize=16)
def _normal(units: int) -> Array:
    return np.random.default_rng(units).normal(size=(DRAWS, units))


def settled(d: Array, comparisons: int, alpha: float) -> Any:
    """Which rows of d [rows, n] differ significantly from zero in the first step of Holm; n at most 16."""
    n = d.shape[1]
    half = stdtrit(n - 1, 1 - alpha / 2) * d.std(axis=1, ddof=1) / math.sqrt(n)
    return (sign_flip_rows(d) * comparisons < alpha) & (np.abs(d.mean(axis=1)) > half)


def seeds_needed(effect: float, comparisons: int = 1, alpha: float = 0.05, target: float = TARGET) -> int | None:
    """The smallest number of units with power `target` or more; None for no effect, or beyond 10 000."""
    if effect == 0:
        return None
    floor = floor_of_seeds(comparisons, alpha)
    return first(floor, MOST, lambda units: power(effect, units, comparisons, alpha) >= target)


def first(low: int, high: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest number in [low, high] from which on `holds` is true, by bisection; None if it is false at `high`."""
    if low > high or not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


@lru_cache(maxsize=256)
def detectable(seeds: int, comparisons: int = 1, alpha: float = 0.05, target: float = TARGET) -> float | None:
    """The smallest effect, in standard deviations of the differences, detected with power `target`; None if there is
    none.
    """
    low, high = 0.0, LARGEST
    if power(high, seeds, comparisons, alpha) < target:
        return None
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, seeds, comparisons, alpha) >= target else (middle, high)
    return high


def settles(mean: float, spread: float, units: int, *, comparisons: int, alpha: float, margin: float) -> bool:
    """Whether a verdict can be expected from this many units if the truth is this mean and spread (above 0).

    A mean beyond `margin` is detected with 80% power; one within it, when the interval at its expected width fits
    inside.
    """
    mean = abs(mean)
    if mean > margin:
        return power((mean - margin) / spread, units, comparisons, alpha) >= TARGET
    half = stdtrit(units - 1, 1 - alpha / comparisons / 2) * spread / math.sqrt(units)
    return bool(units >= floor_of_seeds(comparisons, alpha) and half < margin - mean)


def seeds_to_settle(d: Any, *, comparisons: int, alpha: float, margin: float) -> int | None:
    """Total units after which the differences seen so far, taken at face value, would give a verdict; None if no number
    would.
    """
    if all_equal(np.asarray(d)):
        return None
    mean, spread = float(np.mean(d)), standard_deviation(d)

    def holds(units: int) -> bool:
        return settles(mean, spread, units, comparisons=comparisons, alpha=alpha, margin=margin)

    return first(len(d) + 1, MOST, holds)
