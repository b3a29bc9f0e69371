"""A guess about a hyperparameter, as a distribution of its draws (after NePS, Mallik et al. 2023, 2306.12370).

With m the place of the guess and t that of a value on the parameter's own scale from 0 to 1 (logarithmic where the
range is), draws have the density

    (1 - w) + w n(t; m, s) / (N(1; m, s) - N(0; m, s))

that is, w of them come from a normal distribution around the guess, cut off at the ends, and the others from the whole
range: a wrong guess costs draws, but excludes nothing. With a list of values, w of the draws are the guess, besides its
share of the others. The inverse of the distribution function makes a draw of a number in [0, 1), as of a parameter
without a guess, so that random and Sobol points stay plain functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

CONFIDENCES = {"low": (0.5, 1 / 4), "medium": (0.7, 1 / 8), "high": (0.9, 1 / 16)}
"""Confidence -> (w, s): the share of draws around the guess, and their standard deviation in widths of the range."""
HALVINGS = 60


def around(u: float, place: float, confidence: str) -> float:
    """The place in [0, 1) at the share `u` in [0, 1) of the draws; increasing in u."""
    share, spread = CONFIDENCES[confidence]
    first, last = (_normal((end - place) / spread) for end in (0.0, 1.0))

    def below(t: float) -> float:
        return (1 - share) * t + share * (_normal((t - place) / spread) - first) / (last - first)

    return _inverse(below, u)


def among(u: float, index: int, count: int, confidence: str) -> float:
    """The same for the guess number `index` of `count` values, each of which has an equal part of [0, 1)."""
    share, _ = CONFIDENCES[confidence]

    def below(t: float) -> float:
        return (1 - share) * t + share * min(1.0, max(0.0, t * count - index))

    return _inverse(below, u)


def _normal(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def _inverse(below: Callable[[float], float], u: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) <= u else (low, middle)
    return low
