"""The best parameters of a method on a spectrum: Nelder-Mead on the largest root modulus.

Variables are log lr, momentum and, for extragradient, log extrapolation. Starts: momentum in {-0.4, 0, 0.4, 0.8} and
{1, 2, 4} times the best step without momentum. On imaginary spectra the best extrapolation is infinite; it is kept
below 30 / the smallest eigenvalue, which costs a tenth of the gain. The closed forms of `rates` are the regression
values. Costs some thousand evaluations of the roots, 0.1 to 1 s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from optim_core.games import maps
from optim_core.games.rates import Choice

MOMENTA = (-0.4, 0.0, 0.4, 0.8)
STEPS = (1.0, 2.0, 4.0)
AHEAD = (1.0, 30.0)
FARTHEST = 30.0
TOLERANCE = 1e-9
Objective = Callable[[Sequence[float]], float]


def tune(method: str, points: Tensor, *, momentum: bool = True, consensus: float = 0.0) -> Choice:
    """Best parameters of `method` for the eigenvalues `points` [n] (complex or real, zeros left out) of a normal J.

    `extragradient`, `gda`, `optimistic` and `bilinear_optimal` are right for every J. `consensus` > 0 is kept fixed.
    `momentum=False` keeps the momentum at 0 and, for extragradient, both steps equal. Raises ValueError for no points.
    """
    kept = _upper(points)
    if method not in maps.POLYNOMIAL:
        raise ValueError(f"{method!r} is no polynomial of J; tune_game takes the Jacobian")
    if method == "consensus" and not consensus > 0:
        raise ValueError("consensus is 0: that is gda; give consensus (tau/alpha) above 0")

    looks_ahead, farthest = method == "extragradient", FARTHEST / float(kept.abs().min())

    def choice(x: Sequence[float], rate: float = 0.0) -> Choice:
        lr = math.exp(x[0])
        ahead = math.exp(x[2]) if len(x) > 2 else lr
        beta = x[1] if len(x) > 1 else 0.0
        gamma = ahead if looks_ahead else 0.0
        return Choice(method=method, lr=lr, momentum=beta, extrapolation=gamma, consensus=consensus, rate=rate)

    def rate(x: Sequence[float]) -> float:
        c = choice(x)
        if not -1 < c.momentum < 1 or c.extrapolation > farthest:
            return 2.0 + abs(c.momentum)
        return maps.polynomial_rate(
            method, kept, lr=c.lr, momentum=c.momentum, consensus=consensus, extrapolation=c.extrapolation
        )

    linear = method in ("gda", "optimistic", "extragradient")
    scale = kept.abs() if linear else maps.squashed(method, kept, consensus=consensus).abs()
    return choice(*_search(rate, float(scale.max()), momentum, looks_ahead))


def tune_game(
    method: str, J: Tensor, sizes: Sequence[int], *, momentum: bool = True, alpha_ratio: float = 1.0
) -> Choice:
    """Best parameters of `method` on the affine game with Jacobian J [d, d], normal or not.

    `alpha_ratio` >= 0 is alpha / (tau g) of `consensus`, g the smallest singular value above 0; 0 is `hamiltonian`.
    """
    if method == "alternating_gda":
        return _tune_alternating(J, sizes, momentum)
    if method in ("hamiltonian", "consensus"):
        singular = torch.linalg.svdvals(J)
        smallest = float(singular[singular > 1e-12 * singular[0]][-1])
        share = alpha_ratio * smallest if method == "consensus" else 0.0
        found = tune("gda", torch.linalg.eigvals(share * J + J.T @ J), momentum=momentum)
        if share == 0:
            return replace(found, method="hamiltonian")
        return replace(found, method="consensus", lr=found.lr * share, consensus=1 / share)
    return tune(method, torch.linalg.eigvals(J), momentum=momentum)


def _tune_alternating(J: Tensor, sizes: Sequence[int], momentum: bool) -> Choice:
    kernel = len(J) - int(torch.linalg.matrix_rank(J))

    def rate(x: Sequence[float]) -> float:
        beta = x[1] if len(x) > 1 else 0.0
        if not -1 < beta < 1:
            return 2.0 + abs(beta)
        matrix = maps.linear_map("alternating_gda", J, sizes, lr=math.exp(x[0]), momentum=beta)
        return maps.radius(matrix if len(x) > 1 else matrix[: len(J), : len(J)], kernel)

    x, value = _search(rate, float(torch.linalg.matrix_norm(J, 2)), momentum, False)
    return Choice(method="alternating_gda", lr=math.exp(x[0]), momentum=x[1] if len(x) > 1 else 0.0, rate=value)


def _search(rate: Objective, scale: float, momentum: bool, ahead: bool) -> tuple[list[float], float]:
    """Best (log lr[, momentum[, log extrapolation]]); `scale` is the largest eigenvalue that the step faces."""
    grid = [math.log(2.2 / scale) - 0.12 * k for k in range(80)]
    start = min(grid, key=lambda x: rate([x]))
    best = minimize(rate, [start], [0.1])
    if not momentum:
        return best
    starts = [[best[0][0] + math.log(s), b] for b in MOMENTA for s in STEPS]
    if ahead:
        starts = [[x - math.log(far) / 2, b, best[0][0] + math.log(far)] for x, b in starts for far in AHEAD]
        best = [best[0][0], 0.0, best[0][0]], best[1]
    for x in starts:
        found = minimize(rate, x, [0.3, 0.15, 0.5][: len(x)])
        best = min(best, found, key=lambda pair: pair[1])
    return minimize(rate, best[0] if len(best[0]) > 1 else [best[0][0], 0.0], [0.05] * len(starts[0]))


def minimize(objective: Objective, start: Sequence[float], width: Sequence[float]) -> tuple[list[float], float]:
    """Nelder and Mead's simplex from `start`, first edges `width`; the best point and its value."""
    n = len(start)
    corners = [list(start)] + [[x + (width[i] if i == j else 0.0) for j, x in enumerate(start)] for i in range(n)]
    simplex = sorted(((objective(x), x) for x in corners), key=lambda pair: pair[0])
    for _ in range(400 * n):
        size = max(abs(a - b) for _, x in simplex[1:] for a, b in zip(x, simplex[0][1], strict=True))
        if size < TOLERANCE and simplex[-1][0] - simplex[0][0] < TOLERANCE:
            break
        worst = simplex[-1]
        centre = [sum(x[i] for _, x in simplex[:-1]) / n for i in range(n)]

        def along(t: float, centre: list[float] = centre, corner: list[float] = worst[1]) -> tuple[float, list[float]]:
            x = [c + t * (c - w) for c, w in zip(centre, corner, strict=True)]
            return objective(x), x

        trial = along(1.0)
        if trial[0] < simplex[0][0]:
            trial = min(trial, along(2.0), key=lambda pair: pair[0])
        elif trial[0] >= simplex[-2][0]:
            trial = along(0.5) if trial[0] < worst[0] else along(-0.5)
            if trial[0] >= worst[0]:
                home = simplex[0][1]
                shrunk = [[(a + b) / 2 for a, b in zip(x, home, strict=True)] for _, x in simplex[1:]]
                simplex = [simplex[0], *((objective(x), x) for x in shrunk)]
                simplex.sort(key=lambda pair: pair[0])
                continue
        simplex[-1] = trial
        simplex.sort(key=lambda pair: pair[0])
    return simplex[0][1], simplex[0][0]


def _upper(points: Tensor) -> Tensor:
    """The points in the closed upper half plane, zeros and repetitions left out: shapes are symmetric."""
    found = points.to(torch.complex128).flatten()
    found = found[(found.abs() > 1e-12 * found.abs().max()) if len(found) else slice(0)]
    if not len(found):
        raise ValueError("there is no eigenvalue other than 0 to tune for")
    pairs = torch.stack([found.real, found.imag.abs()], 1)
    return torch.view_as_complex(torch.unique(pairs, dim=0))
