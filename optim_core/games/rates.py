"""Closed-form parameters and rates of the methods for games, by spectral shape.

A game has the field v(w), the gradients of all players' losses stacked, with Jacobian J. A method is a map of
eigenvalues lambda of J to the roots of a polynomial, and its rate is the largest root modulus over the spectral shape
K (Azizian et al. 2020, arXiv 2001.00602). All lengths here are on the scale of J: mu, L, g, s in units of |v| / |w|.

    ellipse ((Re - c)/a)^2 + (Im/b)^2 <= 1, S = sqrt(c^2 + b^2 - a^2):
        lr = 2/(c + S), momentum = (a^2 - b^2)/(c + S)^2, rate (a + b)/(c + S)      (Niethammer and Varga 1983)

Momentum is positive on wide ellipses, 0 on discs and negative on tall ones. Rates are for one step; `per_evaluation`
divides them by the step's cost in gradient evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from optim_core.ranges import check_not_negative, check_positive

COSTS = {
    "gda": 1.0,
    "alternating_gda": 2.0,
    "extragradient": 2.0,
    "optimistic": 1.0,
    "bilinear_optimal": 2.0,
    "hamiltonian": 3.0,
    "consensus": 3.0,
}
"""Gradient evaluations charged per step with two players, those of the closure's calls.

tests/bench/games_cost.py measures the actual cost: within 5% of the charge, except 1.7 for `alternating_gda`.
"""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A method with its parameters and its theoretical rate."""

    method: str
    """A key of COSTS."""
    lr: float
    """Step size: eta, or tau of `bilinear_optimal` and `hamiltonian`, or alpha of `consensus`."""
    extrapolation: float = 0.0
    """gamma of `extragradient`, the length of its look-ahead step; elsewhere unused."""
    momentum: float = 0.0
    """beta, of any sign."""
    consensus: float = 0.0
    """tau / alpha of `consensus`; elsewhere unused."""
    rate: float
    """Asymptotic error factor per step; above 1 the method diverges."""

    @property
    def per_evaluation(self) -> float:
        """Error factor per gradient evaluation."""
        return float(self.rate ** (1 / COSTS[self.method]))

    def hyperparameters(self) -> dict[str, Any]:
        """The keyword arguments of the optimizer `method`."""
        found: dict[str, Any] = {"lr": self.lr, "momentum": self.momentum}
        if self.method == "extragradient":
            found["extrapolation"] = self.extrapolation
        if self.method == "consensus":
            found["consensus"] = self.consensus
        return found


def ellipse(a: float, b: float, c: float) -> Choice:
    """GDA with momentum on the ellipse with half axes a (real) and b (imaginary) about c; 0 <= a < c, b >= 0."""
    check_positive(c=c)
    check_not_negative(a=a, b=b)
    if a >= c:
        raise ValueError(f"a is {a} and c is {c}; an ellipse that reaches 0 leaves no method converging")
    end = c + math.sqrt(c * c + b * b - a * a)
    return Choice(method="gda", lr=2 / end, momentum=(a * a - b * b) / end**2, rate=(a + b) / end)


def interval(mu: float, L: float) -> Choice:
    """Polyak's heavy ball on the real interval [mu, L], 0 < mu <= L."""
    _check_order(mu=mu, L=L)
    return ellipse((L - mu) / 2, 0.0, (L + mu) / 2)


def disc(mu: float, L: float) -> Choice:
    """Plain GDA on the disc with diameter [mu, L], 0 < mu <= L; momentum does not help."""
    _check_order(mu=mu, L=L)
    return Choice(method="gda", lr=2 / (L + mu), rate=(L - mu) / (L + mu))


def bilinear(smallest: float, largest: float) -> Choice:
    """The optimal method on +-i [smallest, largest]: singular values of the coupling, 0 < smallest <= largest."""
    return _on_squares("bilinear_optimal", smallest, largest)


def bilinear_extragradient(smallest: float, largest: float) -> Choice:
    """Extragradient with both steps equal on +-i [smallest, largest]."""
    _check_order(smallest=smallest, largest=largest)
    both = smallest**2 + largest**2
    rate = math.sqrt(1 - (smallest * largest / both) ** 2)
    return Choice(method="extragradient", lr=both**-0.5, extrapolation=both**-0.5, rate=rate)


def bilinear_optimistic(smallest: float, largest: float) -> Choice:
    """Optimistic gradient with lr = 1/(2 largest) on +-i [smallest, largest]; lr above 1/(sqrt 3 largest) diverges."""
    _check_order(smallest=smallest, largest=largest)
    rate = math.sqrt((1 + math.sqrt(1 - (smallest / largest) ** 2)) / 2)
    return Choice(method="optimistic", lr=1 / (2 * largest), rate=rate)


def cross(mu: float, L: float, reach: float) -> Choice:
    """Extragradient with momentum on [mu, L] together with {c + iy, |y| <= reach}, c = (L + mu)/2."""
    _check_order(mu=mu, L=L)
    check_not_negative(reach=reach)
    centre = (L + mu) / 2
    return _squared(centre, mu * L / (2 * centre), (centre**2 + reach**2) / (2 * centre))


def vertical(centre: float, nearest: float, reach: float) -> Choice:
    """Extragradient with momentum on {center +- iy, nearest <= y <= reach}, center > 0."""
    check_positive(centre=centre)
    check_not_negative(nearest=nearest, reach=reach)
    return _squared(centre, (centre**2 + nearest**2) / (2 * centre), (centre**2 + reach**2) / (2 * centre))


def half_disc(mu: float, L: float) -> Choice:
    """Extragradient with unequal steps on {Re >= mu, |lambda| <= L}: 1 - mu/L; momentum gains nothing."""
    _check_order(mu=mu, L=L)
    return Choice(method="extragradient", lr=(L + mu) / L**2, extrapolation=1 / (L + mu), rate=1 - mu / L)


def hamiltonian(smallest: float, largest: float, momentum: bool = True) -> Choice:
    """Hamiltonian descent on any affine game with singular values of J in [smallest, largest]."""
    if momentum:
        return _on_squares("hamiltonian", smallest, largest)
    _check_order(smallest=smallest, largest=largest)
    low, high = smallest**2, largest**2
    return Choice(method="hamiltonian", lr=2 / (low + high), rate=(high - low) / (high + low))


def lower_bound(mu: float, L: float) -> float:
    """Lower bound per evaluation for all first-order methods on a shape that contains the disc of diameter [mu, L]."""
    return disc(mu, L).rate


def chebyshev(low: float, high: float) -> Iterator[tuple[float, float]]:
    """Step sizes and momenta (lr_k, momentum_k), k = 0, 1, ..., optimal at every k for psi in [low, high], 0 < low.

    The error after k steps is at most 2 r^k / (1 + r^(2k)), r = (sqrt high - sqrt low)/(sqrt high + sqrt low).
    With [s^2, L^2] they drive `bilinear_optimal` and `hamiltonian`; both converge to the constants above.
    """
    _check_order(low=low, high=high)
    centre, half = (high + low) / 2, (high - low) / 2
    ratio = half / centre
    yield 1 / centre, 0.0
    while True:
        following = 1 / (2 * centre / half - ratio) if half else 0.0
        yield (2 * following / half if half else 1 / centre), following * ratio
        ratio = following


def _on_squares(method: str, smallest: float, largest: float) -> Choice:
    _check_order(smallest=smallest, largest=largest)
    rate = (largest - smallest) / (largest + smallest)
    return Choice(method=method, lr=(2 / (smallest + largest)) ** 2, momentum=rate**2, rate=rate)


def _squared(centre: float, low: float, high: float) -> Choice:
    """Phi = lambda (1 - gamma lambda) with gamma = 1/(2 center) folds the shape onto the interval [low, high]."""
    folded = interval(low, high)
    return Choice(
        method="extragradient",
        lr=folded.lr,
        extrapolation=1 / (2 * centre),
        momentum=folded.momentum,
        rate=folded.rate,
    )


def _check_order(**ends: float) -> None:
    check_positive(**ends)
    (low_name, low), (high_name, high) = ends.items()
    if low > high:
        raise ValueError(f"{low_name} is {low} and {high_name} is {high}; {low_name} must be the smaller one")
