"""Affine games as players and as dense float64 matrices: the slow reference of the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import optim_core

F64 = torch.float64


class Side(nn.Module):
    def __init__(self, at: Tensor) -> None:
        super().__init__()
        self.at = nn.Parameter(at.clone())


class Game:
    """v(w) = J w - b for two players of m and n variables; the own blocks of J are symmetric."""

    def __init__(self, J: Tensor, m: int, b: Tensor | None = None, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        self.J, self.sizes = J, (m, len(J) - m)
        self.b = torch.zeros(len(J), dtype=F64) if b is None else b
        self.start = torch.randn(len(J), generator=g, dtype=F64)
        self.players = [Side(self.start[:m]), Side(self.start[m:])]

    def losses(self) -> list[Tensor]:
        x, y = (p.at for p in self.players)
        m = self.sizes[0]
        P, A, B, Q = self.J[:m, :m], self.J[:m, m:], self.J[m:, :m], self.J[m:, m:]
        return [x @ (P @ x / 2 + A @ y - self.b[:m]), y @ (Q @ y / 2 + B @ x - self.b[m:])]

    def point(self) -> Tensor:
        return torch.cat([p.at.detach() for p in self.players])

    def run(self, optimizer: Any, steps: int) -> Tensor:
        """All points on the way, [steps + 1, d]."""
        points = [self.point()]
        for _ in range(steps):
            optimizer.step(self.losses)
            points.append(self.point())
        return torch.stack(points)


def bilinear(n: int = 20, low: float = 0.1, high: float = 1.0, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    U, V = (torch.linalg.qr(torch.randn(n, n, generator=g, dtype=F64))[0] for _ in range(2))
    A = U @ torch.diag(torch.linspace(low, high, n, dtype=F64)) @ V.T
    zero = torch.zeros(n, n, dtype=F64)
    return torch.cat([torch.cat([zero, A], 1), torch.cat([-A.T, zero], 1)])


def quadratic(
    own: tuple[float, float], coupling: tuple[float, float], n: int = 15, seed: int = 0, aligned: bool = False
) -> Tensor:
    """[[P, A], [-A', Q]] with the given ranges of eigenvalues and singular values."""
    g = torch.Generator().manual_seed(seed)
    U, V, X, Y = (torch.linalg.qr(torch.randn(n, n, generator=g, dtype=F64))[0] for _ in range(4))
    if aligned:
        X, Y = U, V
    P, S = torch.diag(torch.linspace(*own, n, dtype=F64)), torch.diag(torch.linspace(*coupling, n, dtype=F64))
    A = X @ S @ Y.T
    return torch.cat([torch.cat([U @ P @ U.T, A], 1), torch.cat([-A.T, V @ P @ V.T], 1)])


def iterate(method: str, J: Tensor, m: int, b: Tensor, start: Tensor, steps: int, **hp: float) -> Tensor:
    """The method's definition with dense matrices, [steps + 1, d]."""
    eta, gamma, beta, tau = (hp.get(k, 0.0) for k in ("lr", "extrapolation", "momentum", "consensus"))

    def v(w: Tensor) -> Tensor:
        return J @ w - b

    directions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "gda": lambda w, _: v(w),
        "extragradient": lambda w, _: v(w - gamma * v(w)),
        "optimistic": lambda w, before: 2 * v(w) - v(before),
        "bilinear_optimal": lambda w, _: -J @ v(w),
        "hamiltonian": lambda w, _: J.T @ v(w),
        "consensus": lambda w, _: v(w) + tau * J.T @ v(w),
    }
    points, before = [start], start
    for _ in range(steps):
        w = points[-1]
        if method == "alternating_gda":
            moved = w.clone()
            for rows in (slice(0, m), slice(m, None)):
                moved[rows] = (w - eta * v(moved) + beta * (w - before))[rows]
        else:
            moved = w - eta * directions[method](w, before) + beta * (w - before)
        before = w
        points.append(moved)
    return torch.stack(points)


def play(name: str, game: Game, **values: Any) -> Any:
    return optim_core.build(name, game.players, **values)  # type: ignore[arg-type]
