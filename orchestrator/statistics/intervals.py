"""Means with their uncertainty (Student 1908); scipy does the work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Summary:
    """n values, their mean and sample standard deviation, and the 95 % t interval of the mean."""

    n: int
    mean: float
    sd: float | None
    lo: float | None
    hi: float | None


def summarize(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Mean and t interval; with fewer than two values there is no interval. Raises ValueError on none at all."""
    if not values:
        raise ValueError("no values to summarize")
    from scipy.special import stdtrit  # a third of a second, which a start of a sweep need not spend

    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Summary(n=n, mean=mean, sd=None, lo=None, hi=None)
    sd = float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
    return Summary(n=n, mean=mean, sd=sd, lo=mean - half, hi=mean + half)


def interval_text(mean: float, low: float | None, high: float | None, sign: bool = False) -> str:
    """`0.9056 [0.8647, 0.9464]` with as many digits as the interval deserves."""
    lead = "+" if sign else ""
    if low is None or high is None:
        return f"{mean:{lead}.4g}"
    span = abs(high - low)
    digits = 4 if span == 0 else min(5, max(0, 2 - int(f"{span:e}".split("e")[1])))
    return f"{mean:{lead}.{digits}f} [{low:{lead}.{digits}f}, {high:{lead}.{digits}f}]"


def difference_text(pair: Mapping[str, Any]) -> str:
    """A paired difference with its sign and interval."""
    low, high = pair["interval"]
    return interval_text(pair["difference"], low, high, sign=True)
