"""The spectrum of a game's Jacobian from products with it: Arnoldi for eigenvalues, Lanczos for singular values.

Up to `probes` parameters J is formed and everything is exact. Beyond that, Arnoldi's Ritz values with a residual below
a twentieth of the largest are kept, and the outer end is widened by 2%, because Ritz values approach it from inside.
Ends near 0 are found last: with few probes they come out too large, which costs speed but not stability. A product
counts as two gradient evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optim_core.games.field import gradient, jacobian, pull

PRODUCT_COST = 2.0
CONVERGED = 0.05
WIDEN = 1.02
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is known about J."""

    points: Tensor
    """Eigenvalues, complex128 [n]."""
    smallest: float
    """Smallest singular value above 0."""
    largest: float
    """Largest singular value."""
    exact: bool
    """Whether J was formed."""


def cost(dimension: int, probes: int) -> float:
    """Gradient evaluations of `estimate` for `dimension` parameters: at most 1 + 6 probes."""
    return 1.0 + PRODUCT_COST * (dimension if dimension <= probes else 3 * probes)


def estimate(
    losses: Sequence[Tensor], players: Sequence[Sequence[Tensor]], probes: int = 64, seed: int = 0
) -> Estimate:
    """Eigenvalues and singular values of J where `losses` were evaluated, with a twice differentiable graph.

    Raises ValueError if J is 0 or not finite.
    """
    params = [p for ps in players for p in ps]
    if sum(p.numel() for p in params) <= probes:
        J = jacobian(losses, players).to("cpu", torch.float64)
        _check(J)
        singular = torch.linalg.svdvals(J)
        kept = singular[singular > 1e-9 * singular[0]]
        points = torch.linalg.eigvals(J)
        return Estimate(points=points, smallest=float(kept[-1]), largest=float(kept[0]), exact=True)
    transpose, forward = products(losses, players)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(sum(p.numel() for p in params), generator=generator, dtype=torch.float64).to(params[0].device)
    points = WIDEN * arnoldi(forward, start, probes)
    singular = lanczos(lambda u: transpose(forward(u)), start, probes).clamp_min(0).sqrt()
    kept = singular[singular > 1e-6 * singular.max()]
    _check(kept)
    return Estimate(points=points, smallest=float(kept.min()), largest=WIDEN * float(kept.max()), exact=False)


def products(losses: Sequence[Tensor], players: Sequence[Sequence[Tensor]]) -> tuple[Product, Product]:
    """(u -> J'u, u -> J u) on flat float64 vectors [d], in whatever dtype the parameters are.

    J u is the derivative of y -> J'y along u.
    """
    params = [p for ps in players for p in ps]
    with torch.enable_grad():
        field = [g for loss, ps in zip(losses, players, strict=True) for g in gradient(loss, ps, create_graph=True)]
        dual = [torch.zeros_like(p, requires_grad=True) for p in params]
        pulled = pull(field, params, dual, create_graph=True)

    def split(u: Tensor) -> list[Tensor]:
        return [x.view_as(p).to(p) for x, p in zip(torch.split(u, [p.numel() for p in params]), params, strict=True)]

    def transpose(u: Tensor) -> Tensor:
        return torch.cat([g.flatten().double() for g in pull(field, params, split(u), retain_graph=True)])

    def forward(u: Tensor) -> Tensor:
        return torch.cat([g.flatten().double() for g in pull(pulled, dual, split(u), retain_graph=True)])

    return transpose, forward


def arnoldi(product: Product, start: Tensor, steps: int) -> Tensor:
    """Ritz values [<= steps], complex128, of a matrix given by its product; only converged ones."""
    basis, H = [start / start.norm()], torch.zeros(steps + 1, steps, dtype=torch.float64)
    size = steps
    for k in range(steps):
        w = product(basis[k])
        for _ in range(2):  # two passes suffice to keep the basis orthogonal
            for j, q in enumerate(basis):
                h = torch.dot(q, w)
                H[j, k] += float(h)
                w = w - h * q
        H[k + 1, k] = float(w.norm())
        if H[k + 1, k] <= 1e-10 * H.abs().max():
            size = k + 1
            H[k + 1, k] = 0.0
            break
        basis.append(w / w.norm())
    _check(H)
    values, vectors = torch.linalg.eig(H[:size, :size])
    residual = H[size, size - 1] * vectors[-1].abs() / torch.linalg.vector_norm(vectors, dim=0)
    settled = residual <= CONVERGED * values.abs().max()
    settled |= values.abs() == values.abs().max()
    kept: Tensor = values[settled]
    return kept


def lanczos(product: Product, start: Tensor, steps: int) -> Tensor:
    """Ritz values [<= steps], float64, of a symmetric matrix, by Lanczos with full reorthogonalization."""
    q, previous, beta = start / start.norm(), torch.zeros_like(start), 0.0
    basis, diagonal, beside = [q], [], []
    for _ in range(steps):
        w = product(q) - beta * previous
        alpha = float(torch.dot(q, w))
        diagonal.append(alpha)
        w = w - alpha * q
        for other in basis:
            w = w - torch.dot(other, w) * other
        beta = float(w.norm())
        if beta <= 1e-10 * max(map(abs, diagonal)):
            break
        beside.append(beta)
        previous, q = q, w / beta
        basis.append(q)
    n = len(diagonal)
    off = torch.diag(torch.tensor(beside[: n - 1], dtype=torch.float64), 1)
    T = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + off + off.T
    found: Tensor = torch.linalg.eigvalsh(T)
    return found


def _check(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ValueError("the Jacobian of this game is not finite here; start at a point where the losses are finite")
    if not values.numel() or not bool((values != 0).any()):
        raise ValueError("the Jacobian of this game is 0; no method moves anything (ReLU networks have none to follow)")
