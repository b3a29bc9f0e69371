"""Intervals: Student's t for means (1908) at every n, Clopper and Pearson's (1934) for shares.

    mean    xbar -+ t_{(1 + c) / 2, n - 1} s / sqrt(n)
    share   [B_{(1 - c) / 2}(w, n - w + 1), B_{(1 + c) / 2}(w + 1, n - w)]     w wins of n, a tie is half a win

c is the confidence and B_q(a, b) the q-quantile of a beta distribution. The t interval is exact for normal values and
conservative for heavy tails. For strongly skewed values it undercovers until n is large: at 95%, exponential values
are covered in 88 to 92% of samples of 6 to 20. Differences of two arms are rarely that skewed, because skewness that
both share cancels. The interval of a share is never below its nominal coverage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.definition.shares import PERCENT, is_share
from orchestrator.definition.shares import SHARE as SHARE

Array = NDArray[np.float64]
Values = Sequence[float] | Array
UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """n values, their mean and sample standard deviation, and the t interval of the mean."""

    n: int
    mean: float
    sd: float | None
    lo: float | None
    hi: float | None


def summarize(values: Values, confidence: float = 0.95, bounds: tuple[float, float] = UNBOUNDED) -> Summary:
    """Mean and `mean_interval`; no interval for fewer than two values. Raises ValueError for no values."""
    if not len(values):
        raise ValueError("no values to summarize")
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Summary(n=n, mean=mean, sd=None, lo=None, hi=None)
    low, high = mean_interval(values, confidence, bounds)
    return Summary(n=n, mean=mean, sd=float(np.std(values, ddof=1)), lo=low, hi=high)


def mean_interval(
    values: Values, confidence: float = 0.95, bounds: tuple[float, float] = UNBOUNDED
) -> tuple[float, float]:
    """The t interval of the mean of two or more values; a point when all are equal.

    With `bounds` of the metric (SHARE for an accuracy) the interval is clipped to them. Since the true mean lies within
    them, clipping costs no coverage.
    """
    from scipy.special import stdtrit  # takes a third of a second, not needed to start a sweep

    x = np.asarray(values, dtype=float)
    if all_equal(x):
        return float(x[0]), float(x[0])
    half = float(stdtrit(len(x) - 1, (1 + confidence) / 2)) * float(np.std(x, ddof=1)) / math.sqrt(len(x))
    mean, (least, most) = float(x.mean()), bounds
    return max(least, mean - half), min(most, mean + half)


def bounds_of(
    metric: str, values: Iterable[float] = (), declared: tuple[float, float] | None = None
) -> tuple[float, float]:
    """The range of a metric, and so of its mean: as declared, or known by its name.

    An accuracy, or another share, lies in [0, 1], or in [0, 100] if `values` show that it is in percent.
    """
    if declared is not None:
        return declared
    if not is_share(metric):
        return UNBOUNDED
    known = [value for value in values if math.isfinite(value)]
    least, most = min(known, default=0.0), max(known, default=0.0)
    return next((found for found in (SHARE, PERCENT) if found[0] <= least and most <= found[1]), UNBOUNDED)


def span_of(bounds: tuple[float, float]) -> tuple[float, float]:
    """The range of the difference of two values within `bounds`."""
    width = bounds[1] - bounds[0]
    return -width, width


def cut_words(metric: str, bounds: tuple[float, float], intervals: Iterable[tuple[float | None, float | None]]) -> str:
    """States that intervals were clipped, if any were (they end at a bound then); otherwise empty."""
    ends = {end for low, high in intervals if low != high for end in (low, high)}
    cut = sorted(bound for bound in bounds if bound in ends)
    return f"clipped to the range of {metric} (at {' and '.join(f'{bound:g}' for bound in cut)})" if cut else ""


def share_interval(wins: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share, in [0, 1]. `wins` in [0, n], not necessarily an integer."""
    from scipy.special import betaincinv

    low = float(betaincinv(wins, n - wins + 1, (1 - confidence) / 2)) if wins > 0 else 0.0
    high = float(betaincinv(wins + 1, n - wins, (1 + confidence) / 2)) if wins < n else 1.0
    return low, high


def all_equal(values: Array) -> bool:
    """Whether all values are the same number, up to rounding."""
    return float(np.ptp(values)) <= 1e-12 * float(np.abs(values).max())


def interval_text(mean: float, low: float | None, high: float | None, sign: bool = False) -> str:
    """`0.9056 [0.8647, 0.9464]`, with as many digits as the interval justifies."""
    lead = "+" if sign else ""
    if low is None or high is None:
        return f"{mean:{lead}.4g}"
    span = abs(high - low)
    digits = 4 if span == 0 else min(5, max(0, 2 - int(f"{span:e}".split("e")[1])))
    return f"{mean:{lead}.{digits}f} [{low:{lead}.{digits}f}, {high:{lead}.{digits}f}]"
