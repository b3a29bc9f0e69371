"""The best parameters of a method on a spectrum: Nelder-Mead on the largest root modulus.

Variables are log lr, momentum and, for extragradient, log extrapolation. Starts: momentum in {-0.4, 0, 0.4, 0.8} and
{1, 2, 4} times the best step without momentum. On imaginary spectra the best extrapolation is infinite; it is kept
below 30 / the smallest eigenvalue, which costs a tenth of the gain. The closed forms of `rates` are the regression
values. The simplices of all starts advance together: a round of them costs as much as one. What was found for the last
few spectra is kept: the trials of a sweep often play one game.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Sequence
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
Point = list[float]
Found = tuple[Point, float]
Objective = Callable[[Sequence[Point]], list[float]]
"""Values at several points."""


def tune(method: str, points: Tensor, *, momentum: bool = True, consensus: float = 0.0) -> Choice:
    """Best parameters of `method` for the eigenvalues `points` [n] (complex or real, zeros left out) of a normal J.

    `extragradient`, `gda`, `optimistic` and `bilinear_optimal` are valid for every J. `consensus` > 0 is kept fixed.
    `momentum=False` keeps the momentum at 0 and, for extragradient, both steps equal. Raises ValueError for no points.
    """
    kept = _upper(points)
    if method not in maps.POLYNOMIAL:
        raise ValueError(f"{method!r} is not a polynomial of J; use tune_game with the Jacobian")
    if method == "consensus" and not consensus > 0:
        raise ValueError("consensus is 0: that is gda; give consensus (tau/alpha) above 0")

    return _tuned(method, tuple(kept.tolist()), momentum, consensus)


@functools.lru_cache(maxsize=64)
def _tuned(method: str, points: tuple[complex, ...], momentum: bool, consensus: float) -> Choice:
    """`tune` for points of the closed upper half plane."""
    kept = torch.tensor(points, dtype=torch.complex128)
    looks_ahead, farthest = method == "extragradient", FARTHEST / float(kept.abs().min())

    def choice(x: Sequence[float], rate: float = 0.0) -> Choice:
        lr = math.exp(x[0])
        ahead = math.exp(x[2]) if len(x) > 2 else lr
        beta = x[1] if len(x) > 1 else 0.0
        gamma = ahead if looks_ahead else 0.0
        return Choice(method=method, lr=lr, momentum=beta, extrapolation=gamma, consensus=consensus, rate=rate)

    def rates(xs: Sequence[Point]) -> list[float]:
        x = torch.tensor(xs, dtype=torch.float64)
        lr, momentum = x[:, :1].exp(), x[:, 1:2] if x.shape[1] > 1 else torch.zeros(len(x), 1, dtype=x.dtype)
        ahead = (x[:, 2:3].exp() if x.shape[1] > 2 else lr) if looks_ahead else torch.zeros_like(lr)
        moduli = maps.roots(
            method, kept, lr=lr, momentum=momentum, consensus=consensus, extrapolation=ahead
        ).abs()  # fmt: skip
        allowed = (momentum.abs() < 1) & (ahead <= farthest)
        return torch.where(allowed[:, 0], moduli.amax((0, 2)), 2.0 + momentum[:, 0].abs()).tolist()

    linear = method in ("gda", "optimistic", "extragradient")
    scale = kept.abs() if linear else maps.squashed(method, kept, consensus=consensus).abs()
    return choice(*_search(rates, float(scale.max()), momentum, looks_ahead))


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

    def rate(x: Point) -> float:
        beta = x[1] if len(x) > 1 else 0.0
        if not -1 < beta < 1:
            return 2.0 + abs(beta)
        matrix = maps.linear_map("alternating_gda", J, sizes, lr=math.exp(x[0]), momentum=beta)
        return maps.radius(matrix if len(x) > 1 else matrix[: len(J), : len(J)], kernel)

    x, value = _search(lambda xs: [rate(x) for x in xs], float(torch.linalg.matrix_norm(J, 2)), momentum, False)
    return Choice(method="alternating_gda", lr=math.exp(x[0]), momentum=x[1] if len(x) > 1 else 0.0, rate=value)


def _search(rates: Objective, scale: float, momentum: bool, ahead: bool) -> Found:
    """Best (log lr[, momentum[, log extrapolation]]); `scale` is the largest eigenvalue that the step encounters."""
    grid = [[math.log(2.2 / scale) - 0.12 * k] for k in range(80)]
    start = min(zip(grid, rates(grid), strict=True), key=_value)[0]
    best = minimize(rates, [start], [0.1])[0]
    if not momentum:
        return best
    starts = [[best[0][0] + math.log(s), b] for b in MOMENTA for s in STEPS]
    if ahead:
        starts = [[x - math.log(far) / 2, b, best[0][0] + math.log(far)] for x, b in starts for far in AHEAD]
        best = [best[0][0], 0.0, best[0][0]], best[1]
    best = min([best, *minimize(rates, starts, [0.3, 0.15, 0.5][: len(starts[0])])], key=_value)
    last = best[0] if len(best[0]) > 1 else [best[0][0], 0.0]
    return minimize(rates, [last], [0.05] * len(starts[0]))[0]


def minimize(objective: Objective, starts: Sequence[Point], width: Sequence[float]) -> list[Found]:
    """Nelder and Mead's simplex from each start, with initial edges `width`; returns each one's best point and
    value.
    """
    courses = [_simplex(start, width) for start in starts]
    asked = {number: next(course) for number, course in enumerate(courses)}
    found: dict[int, Found] = {}
    while asked:
        values = iter(objective([x for points in asked.values() for x in points]))
        for number, points in list(asked.items()):
            try:
                asked[number] = courses[number].send([next(values) for _ in points])
            except StopIteration as end:
                found[number] = end.value
                del asked[number]
    return [found[number] for number in range(len(starts))]


def _simplex(start: Point, width: Sequence[float]) -> Generator[list[Point], list[float], Found]:
    """One simplex: yields the points whose values it needs next, receives them, and returns the best."""
    n = len(start)
    corners = [start] + [[x + (width[i] if i == j else 0.0) for j, x in enumerate(start)] for i in range(n)]
    simplex = sorted(zip((yield corners), corners, strict=True), key=_first)
    for _ in range(400 * n):
        size = max(abs(a - b) for _, x in simplex[1:] for a, b in zip(x, simplex[0][1], strict=True))
        if size < TOLERANCE and simplex[-1][0] - simplex[0][0] < TOLERANCE:
            break
        worst = simplex[-1]
        centre = [sum(x[i] for _, x in simplex[:-1]) / n for i in range(n)]
        trial = yield from _along(1.0, centre, worst[1])
        if trial[0] < simplex[0][0]:
            trial = min(trial, (yield from _along(2.0, centre, worst[1])), key=_first)
        elif trial[0] >= simplex[-2][0]:
            trial = yield from _along(0.5 if trial[0] < worst[0] else -0.5, centre, worst[1])
            if trial[0] >= worst[0]:
                home = simplex[0][1]
                shrunk = [[(a + b) / 2 for a, b in zip(x, home, strict=True)] for _, x in simplex[1:]]
                simplex = sorted([simplex[0], *zip((yield shrunk), shrunk, strict=True)], key=_first)
                continue
        simplex[-1] = trial
        simplex.sort(key=_first)
    return simplex[0][1], simplex[0][0]


def _along(t: float, centre: Point, corner: Point) -> Generator[list[Point], list[float], tuple[float, Point]]:
    """(value, point) on the line from the corner through the center, t times their distance beyond it."""
    x = [c + t * (c - w) for c, w in zip(centre, corner, strict=True)]
    return (yield [x])[0], x


def _value(found: Found) -> float:
    return found[1]


def _first(pair: tuple[float, Point]) -> float:
    return pair[0]


def _upper(points: Tensor) -> Tensor:
    """The points in the closed upper half plane, without zeros and duplicates: shapes are symmetric."""
    found = points.to(torch.complex128).flatten()
    found = found[(found.abs() > 1e-12 * found.abs().max()) if len(found) else slice(0)]
    if not len(found):
        raise ValueError("there is no eigenvalue other than 0 to tune for")
    pairs = torch.stack([found.real, found.imag.abs()], 1)
    return torch.view_as_complex(torch.unique(pairs, dim=0))
