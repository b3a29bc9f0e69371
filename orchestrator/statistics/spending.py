"""How much of a sweep's alpha each look at its results may spend, so that all verdicts together err with at most alpha.

    share_k   what is left of alpha at look k, divided by the looks that are still planned, k included; beyond those
              that were planned, half of what is left
    level_1 = share_1;   of a later look k:   1 - Phi(z) + exp(-z^2 / 2) / 4 = share_k / 2,   level_k = 2 (1 - Phi(z))

The verdicts of look k are made at level_k, with Holm's correction over the pairs. By Bonferroni's inequality over the
looks, the probability of any error is at most sum share_k <= alpha. The second line is Proschan and Hunsberger's (1995,
Biometrics 51, eq. 2.4): at level_k the test errs with probability at most share_k even if whoever looked before chose,
based on the results, how much to add. It is exact for one such choice and normal differences.

A first look spends the actual error of its test, which is less than its level, since an exact test moves in steps: with
n differences p is a multiple of 2 / 2^n, and with m true nulls the smallest p is compared with level / m. What is not
spent is left to later looks: six studies at 0.05 spend 0.031.
"""

from __future__ import annotations

import math
from functools import lru_cache

from orchestrator.statistics.significance import EXACT_UP_TO

LARGEST = 38.0
"""Standard deviations beyond which the tail probability underflows."""


def share(left: float, look: int, planned: int = 1) -> float:
    """What look number `look` (from 1) may spend of the `left` of alpha; `planned` looks were declared."""
    return left / (planned - look + 1) if look <= planned else left / 2


@lru_cache(maxsize=256)
def level(share: float, look: int) -> float:
    """The level of the tests of a look, in [0, share]."""
    if look == 1 or share <= 0:
        return max(share, 0.0)
    from scipy.optimize import brentq  # a fifth of a second, which a first look need not wait for
    from scipy.special import ndtr

    def excess(z: float) -> float:
        return float(ndtr(-z)) + math.exp(-z * z / 2) / 4 - share / 2

    return 2 * float(ndtr(-float(brentq(excess, 0.0, LARGEST))))


def spent(level: float, units: int, comparisons: int) -> float:
    """The actual error of a first look at `level`, with exact tests of this many units and comparisons, in [0, level].

    Where signs are sampled because there are many units, or where the looks of one stage have different numbers of
    units, all of it is spent.
    """
    if units > EXACT_UP_TO:
        return level
    patterns = 2.0 ** (units - 1)
    return max((m * _below(level / m, patterns) for m in range(1, comparisons + 1)), default=0.0)


def _below(level: float, patterns: float) -> float:
    """The largest multiple of 1 / patterns below `level`."""
    return max(0, math.ceil(level * patterns - 1e-9) - 1) / patterns
