"""The value of tuning: expected best value against the number of trials, and how tunable an arm is.

For n exchangeable trials y_(1) <= ... <= y_(n), larger is better (Tang et al. 2020, 2004.13705, in answer to Dodge et
al. 2019, 1909.03004):

    E(b) = sum_{i=b..n} y_(i) C(i-1, b-1) / C(n, b)            unbiased, b trials without replacement

    tunability = sum_t w_t E(t), sum_t w_t = 1                 (Sivaprasad et al. 2020, 1910.11758)
    peak: all weight on T;  uniform: 1 / T;  early: w_t in proportion to T - t

A diverged trial counts as the worst that trained: its own stand-in value would dominate any mean. Trials of a
model-based search depend on each other, so only those drawn before any result was seen count; without any, the curve is
refused. Beyond n / 2 the estimate rests on few trials (Dodge et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from orchestrator.definition.states import Goal

Array = NDArray[np.float64]
DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Expected best after 1 ... n trials, with a 95% band by bootstrap over trials."""

    trials: Array
    mean: Array
    low: Array
    high: Array


def weights(n: int) -> Array:
    """W [b, i] = C(i, b) / C(n, b + 1) for i >= b, both from 0: weight of the i-th smallest in the best of b + 1."""
    i, b = np.arange(n)[None, :], np.arange(n)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        log = _log_choose(i, b) - _log_choose(np.full_like(b, n), b + 1)
    return np.where(i >= b, np.exp(log), 0.0)


def _log_choose(n: Any, k: Any) -> Array:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(np.maximum(n - k, 0) + 1))


def expected_best(values: Array, goal: Goal) -> Array:
    """E(1) ... E(n) of the values, in the metric's own units."""
    sign = goal.sign
    return np.asarray(sign * (weights(len(values)) @ np.sort(sign * values)))


def curve(values: Array, goal: Goal) -> Curve:
    """The curve with its band."""
    sign, n = goal.sign, len(values)
    picks = np.random.default_rng(0).integers(n, size=(DRAWS, n))
    drawn = sign * np.sort(sign * values[picks], axis=1) @ weights(n).T
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return Curve(trials=np.arange(1.0, n + 1), mean=expected_best(values, goal), low=low, high=high)


def tunability(expected: Array) -> dict[str, float]:
    """peak, uniform and early averages of E(1) ... E(T)."""
    total = len(expected)
    early = np.arange(total - 1, -1, -1.0)
    return {
        "peak": float(expected[-1]),
        "uniform": float(expected.mean()),
        "early": float(expected @ early / early.sum()) if total > 1 else float(expected[0]),
    }


def crossing(a: Curve, b: Curve, goal: Goal) -> int | None:
    """The number of trials from which `a` is expected to be ahead of `b` after having been behind; None if never."""
    sign, n = goal.sign, min(len(a.mean), len(b.mean))
    ahead = sign * (a.mean[:n] - b.mean[:n]) > 0
    turns = np.flatnonzero(~ahead[:-1] & ahead[1:])
    return int(turns[0]) + 2 if len(turns) else None
