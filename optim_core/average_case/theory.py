"""Theory of average-case methods: residual polynomials, and convergence rates on a spectrum.

On a quadratic, x_t - x* = P_t(H) (x_0 - x*) with P_t(0) = 1. On a spectrum with density like (lambda - mu)^xi at its
lower edge and (L - lambda)^tau at its upper edge, the metric of order l (0 squared distance, 1 objective, 2 squared
gradient) behaves as

    M_l(t) = integral of lambda^l P_t(lambda)^2  ~  contraction^t t^(-power)

A problem is a mapping with `smoothness` (L), `strong_convexity` (mu), `left_exponent` (xi), `right_exponent` (tau; -1
for a point mass at L, infinity where the density ends before L) and, for lambda^xi exp(-lambda / scale), the
`eigenvalue_scale`. Logarithms at ties of two terms are left out.

Sources: Cunha et al. 2022 (arXiv 2206.09901), Pedregosa and Scieur 2020 (arXiv 2002.04756). The terms for misspecified
exponents and for mu > 0 were derived for this package and are checked against long runs in its tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from optim_core.average_case.schedules import Coefficients

CLOSE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Asymptotics:
    """M(t) ~ contraction^t t^(-power)."""

    contraction: float
    """Per step; 1 if M decays like a power of t, above 1 if the method diverges."""
    power: float
    """The exponent; negative if a polynomial factor slows a geometric rate."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A spectrum and the metric of interest."""

    smoothness: float
    strong_convexity: float
    left_exponent: float
    right_exponent: float
    eigenvalue_scale: float
    order: int

    @staticmethod
    def of(values: Mapping[str, float], order: int) -> Problem:
        """From a mapping with these keys. Missing exponents are those of point masses, -1."""
        return Problem(
            smoothness=float(values["smoothness"]),
            strong_convexity=float(values.get("strong_convexity", 0.0)),
            left_exponent=float(values.get("left_exponent", -1.0)),
            right_exponent=float(values.get("right_exponent", -1.0)),
            eigenvalue_scale=float(values.get("eigenvalue_scale", math.nan)),
            order=order,
        )

    @property
    def left(self) -> float:
        """Exponent of lambda^l times the density at the lower edge."""
        return self.left_exponent + (self.order if self.strong_convexity == 0 else 0)


def residual(coefficients: Iterable[Coefficients], eigenvalues: Tensor, steps: int, *, lookahead: bool) -> Tensor:
    """P_0 to P_steps at the eigenvalues [n]: [steps + 1, n], by the method's own recurrence.

    `lookahead`: the gradient is taken at x + m d (Nesterov), otherwise at x.
    """
    now, moved = torch.ones_like(eigenvalues), torch.zeros_like(eigenvalues)
    found = [now]
    for h, m, _ in islice(coefficients, steps):
        moved = m * moved
        moved = moved - h * eigenvalues * (now + moved if lookahead else now)
        now = now + moved
        found.append(now)
    return torch.stack(found)


def gradient_descent(problem: Problem, *, smoothness: float) -> Asymptotics:
    """P_t = (1 - lambda / L)^t: power xi + l + 1 without a gap, contraction (1 - mu / L)^2 with one."""
    low = abs(1 - problem.strong_convexity / smoothness)
    high = abs(1 - problem.smoothness / smoothness)
    exponent = problem.left if low >= high else problem.right_exponent
    return Asymptotics(contraction=max(low, high) ** 2, power=exponent + 1)


def nesterov(problem: Problem, *, smoothness: float, strong_convexity: float) -> Asymptotics:
    """Power min(2 (xi + l + 1), xi + l + 5/2) for m = t / (t + 3); the larger root for constant m.

    Stable as long as the spectrum ends below 4 L / 3 (m -> 1).
    """
    root = math.sqrt(strong_convexity / smoothness)
    m, left, q = (1 - root) / (1 + root), problem.left, problem.strong_convexity / smoothness
    if strong_convexity == 0:
        if problem.strong_convexity > 0:  # P_t ~ 2 J_1(u) / u (1 - lambda / L)^(t / 2), u = t sqrt(lambda / L)
            found = Asymptotics(contraction=1 - q, power=problem.left_exponent + 4)
        else:
            found = Asymptotics(contraction=1.0, power=min(2 * (left + 1), left + 2.5))
    elif math.isclose(problem.strong_convexity, strong_convexity, rel_tol=CLOSE):
        found = Asymptotics(contraction=(1 - root) ** 2, power=min(left, 2 * left))
    else:
        found = Asymptotics(contraction=_larger_root(q, m) ** 2, power=left + 1)
    above = _larger_root(problem.smoothness / smoothness, m) ** 2
    return found if above <= found.contraction else Asymptotics(contraction=above, power=problem.right_exponent + 1)


def _larger_root(q: float, m: float) -> float:
    """Largest modulus of z^2 - (1 + m)(1 - q) z + m (1 - q), Nesterov's step at lambda = q L."""
    half, product = (1 + m) * (1 - q) / 2, m * (1 - q)
    inside = half * half - product
    return abs(half) + math.sqrt(inside) if inside > 0 else math.sqrt(product)


def generalized_chebyshev(
    problem: Problem, *, alpha: float, beta: float, smoothness: float, strong_convexity: float
) -> Asymptotics:
    """Three terms compete: the left edge, the bulk and the right edge. The largest contraction dominates, then the
    power.

    On [0, L] the powers are 2 (xi + l + 1), 2 beta + 1 and 2 (tau + 1) + 2 (beta - alpha). On [mu, L] every contraction
    is rho^2 and the powers are 2 xi + 1 - 2 beta, 0 and 2 tau + 1 - 2 alpha. Edges of the problem inside the method's
    interval belong to the bulk; outside of it |P_t| is larger by (|x| + sqrt(x^2 - 1))^t.
    """
    base = _growth(0.0, smoothness, strong_convexity)
    if problem.smoothness > smoothness * (1 + CLOSE):
        high = _growth(problem.smoothness, smoothness, strong_convexity)
        return Asymptotics(contraction=(high / base) ** 2, power=problem.right_exponent + 1)
    if problem.strong_convexity < strong_convexity * (1 - CLOSE):
        low = _growth(problem.strong_convexity, smoothness, strong_convexity)
        return Asymptotics(contraction=(low / base) ** 2, power=problem.left + 1)
    bulk = 0.0 if strong_convexity else 2 * beta + 1
    powers = [bulk]
    if math.isclose(problem.smoothness, smoothness, rel_tol=CLOSE):
        powers.append(bulk + 2 * problem.right_exponent + 1 - 2 * alpha)
    if math.isclose(problem.strong_convexity, strong_convexity, rel_tol=CLOSE):
        powers.append(2 * problem.left + 1 - 2 * beta if strong_convexity else 2 * (problem.left + 1))
    return Asymptotics(contraction=base**-2, power=min(powers))


def polyak(problem: Problem, *, smoothness: float, strong_convexity: float) -> Asymptotics:
    """A combination of Chebyshev polynomials of both kinds: the second kind, alpha = beta = 1/2, dominates."""
    return generalized_chebyshev(problem, alpha=0.5, beta=0.5, smoothness=smoothness, strong_convexity=strong_convexity)


def laguerre(problem: Problem, *, beta: float, scale: float) -> Asymptotics | None:
    """Power min(xi + l + 1, beta + 1/2, 2 beta - xi - l) on lambda^xi exp(-lambda / scale); None on other spectra.

    With a `scale` larger than the spectrum's, the third term, the tail, vanishes.
    """
    if math.isclose(problem.eigenvalue_scale, scale, rel_tol=CLOSE):
        tail = 2 * beta - problem.left
    elif problem.eigenvalue_scale < scale:
        tail = math.inf
    else:
        return None
    return Asymptotics(contraction=1.0, power=min(problem.left + 1, beta + 0.5, tail))


def _growth(value: float, upper: float, lower: float) -> float:
    """|x| + sqrt(x^2 - 1) of the image x of `value` under the map of [lower, upper] to [-1, 1]; 1 inside."""
    x = abs(2 * value - upper - lower) / (upper - lower)
    return x + math.sqrt(x * x - 1) if x > 1 else 1.0
