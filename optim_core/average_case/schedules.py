"""Coefficients of the average-case methods: pure functions of the iteration number, in float64.

A method for f with Hessian eigenvalues in [mu, L] moves by

    d <- m_t d - h_t g,   x <- x + d,   d = 0 at t = 0

with the gradient g taken at x (or, for Nesterov, at x + m_t d). `Coefficients` holds h_t, m_t and one number of memory.

    generalized_chebyshev   Jacobi polynomial for the weight (L - lambda)^alpha (lambda - mu)^beta, divided by its
                            value at 0 (Cunha et al. 2022, arXiv 2206.09901; three-term recurrence of DLMF 18.9.2)
    nesterov                m_t = t / (t + 3), or constant for mu > 0 (Nesterov 2004, section 2.2)
    polyak                  heavy ball with the limits of Chebyshev's coefficients (Polyak 1964)
    laguerre                Laguerre polynomial for lambda^beta exp(-lambda / scale) (arXiv 2002.04756, section 4)

alpha belongs to the edge L and beta to the edge mu; both describe the method, not the problem. Ranges are checked by
`check_edges` and `check_exponents`, not in the coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple


class Coefficients(NamedTuple):
    """The coefficients of step t."""

    step: float
    """h_t, in inverse units of the eigenvalues."""
    momentum: float
    """m_t, 0 at t = 0."""
    ratio: float
    """State for the next t: the ratio of two successive Jacobi values at 0; 0 if a method needs none."""


Schedule = Callable[[int, float], Coefficients]
"""(t, ratio of the previous step, 0 at t = 0) -> coefficients."""


def check_edges(smoothness: float, strong_convexity: float, *, gap: bool = False) -> None:
    """Raise ValueError unless 0 <= strong_convexity < smoothness < infinity; with `gap`, 0 is also refused."""
    if not 0 < smoothness < math.inf:
        raise ValueError(
            f"smoothness is {smoothness}; it bounds the eigenvalues of the Hessian: a finite number above 0"
        )
    if not 0 <= strong_convexity < smoothness:
        raise ValueError(f"strong_convexity is {strong_convexity}; it must lie in [0, smoothness), here {smoothness}")
    if gap and strong_convexity == 0:
        raise ValueError(
            "strong_convexity is 0, but this method converges only on a spectrum bounded away from 0; give the "
            "lower edge, or use generalized_chebyshev or nesterov"
        )


def check_exponents(**exponents: float) -> None:
    """Raise ValueError for the first exponent of a weight that is not a finite number above -1."""
    for name, value in exponents.items():
        if not -1 < value < math.inf:
            raise ValueError(f"{name} is {value}; it is the exponent of an integrable weight: a finite number above -1")


def gradient_descent(t: int, ratio: float, *, smoothness: float) -> Coefficients:
    """H = 1 / L without momentum."""
    return Coefficients(1 / smoothness, 0.0, 0.0)


def nesterov(t: int, ratio: float, *, smoothness: float, strong_convexity: float = 0.0) -> Coefficients:
    """H = 1 / L; m = t / (t + 3), or (1 - sqrt q) / (1 + sqrt q) with q = mu / L > 0. The gradient is at x + m d."""
    if t == 0:
        return Coefficients(1 / smoothness, 0.0, 0.0)
    root = math.sqrt(strong_convexity / smoothness)
    return Coefficients(1 / smoothness, (1 - root) / (1 + root) if root else t / (t + 3), 0.0)


def polyak(t: int, ratio: float, *, smoothness: float, strong_convexity: float) -> Coefficients:
    """H = 4 / (sqrt L + sqrt mu)^2, m = rho^2; the first step is 2 / (L + mu)."""
    if t == 0:
        return Coefficients(2 / (smoothness + strong_convexity), 0.0, 0.0)
    upper, lower = math.sqrt(smoothness), math.sqrt(strong_convexity)
    return Coefficients(4 / (upper + lower) ** 2, ((upper - lower) / (upper + lower)) ** 2, 0.0)


def generalized_chebyshev(
    t: int, ratio: float, *, alpha: float, beta: float, smoothness: float, strong_convexity: float = 0.0
) -> Coefficients:
    """Jacobi on [0, L] for strong_convexity = 0, else on [mu, L]. h -> 4 / (sqrt L + sqrt mu)^2, m -> rho^2."""
    if strong_convexity:
        return _jacobi_with_gap(t, ratio, alpha, beta, smoothness, strong_convexity)
    s = alpha + beta
    if t == 0:  # a separate branch: the general formula is 0/0 at s = -1 and at s = 0
        return Coefficients((s + 2) / (smoothness * (beta + 1)), 0.0, 0.0)
    shared = (2 * t + s + 2) / ((t + beta + 1) * (t + s + 1))
    return Coefficients((2 * t + s + 1) * shared / smoothness, t * (t + alpha) * shared / (2 * t + s), 0.0)


def _jacobi_with_gap(t: int, ratio: float, alpha: float, beta: float, upper: float, lower: float) -> Coefficients:
    """P_{t+1}(x) = (A x + B) P_t - C P_{t-1}, divided by its values at x0 < -1, the image of lambda = 0."""
    width, s = upper - lower, alpha + beta
    x0 = -(upper + lower) / width
    if t == 0:
        a, b, c = (s + 2) / 2, (alpha - beta) / 2, 0.0
    else:
        shared = (2 * t + s + 1) / (2 * (t + 1) * (t + s + 1))
        a = shared * (2 * t + s + 2)
        b = shared * (alpha**2 - beta**2) / (2 * t + s)
        c = (t + alpha) * (t + beta) * (2 * t + s + 2) / ((t + 1) * (t + s + 1) * (2 * t + s))
    new = 1 / (a * x0 + b - c * ratio)
    return Coefficients(-2 * a * new / width, c * new * ratio, new)


def laguerre(t: int, ratio: float, *, beta: float, scale: float) -> Coefficients:
    """H = 1 / (scale (t + 1 + beta)), m = t / (t + 1 + beta); for spectra without an upper edge."""
    return Coefficients(1 / (scale * (t + 1 + beta)), t / (t + 1 + beta), 0.0)


def follow(schedule: Schedule) -> Iterator[Coefficients]:
    """The coefficients of steps 0, 1, 2, ..., endless."""
    ratio = 0.0
    for t in count():
        found = schedule(t, ratio)
        ratio = found.ratio
        yield found


def limit(
    schedule: Schedule, *, step_scale: float = 1.0, max_momentum: float = 1.0, freeze_after: int | None = None
) -> Schedule:
    """`schedule` with its steps scaled, its momentum capped, and constant from t = freeze_after on."""

    def limited(t: int, ratio: float) -> Coefficients:
        frozen = freeze_after is not None and t >= freeze_after
        found = schedule(freeze_after if frozen and freeze_after is not None else t, ratio)
        return Coefficients(
            step_scale * found.step, min(found.momentum, max_momentum), ratio if frozen else found.ratio
        )

    return limited
