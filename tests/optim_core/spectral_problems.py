"""Quadratics and their exact courses, for tests of average-case methods."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from optim_core.average_case import schedules, theory
from optim_core.average_case.schedules import follow, generalized_chebyshev
from optim_core.diagnostics.average_case_rate import fitted_rate
from tests.closures import closure_of

D = torch.float64
SIZE, STEPS = 2000, 951


def nodes(size: int, left: float, right: float) -> tuple[Tensor, Tensor]:
    """Gauss nodes in (0, 1) and weights (sum 1) of u^left (1 - u)^right; exact for half-integer exponents."""
    from scipy.special import roots_jacobi

    k = torch.arange(1, size + 1, dtype=D)
    if (left, right) == (-0.5, 0.5):
        angle = k * math.pi / (2 * size + 1)
        return angle.cos() ** 2, angle.sin() ** 2 * 4 / (2 * size + 1)
    if (left, right) == (0.5, 0.5):
        angle = k * math.pi / (size + 1)
        return (angle / 2).cos() ** 2, angle.sin() ** 2 * 2 / (size + 1)
    x, w = roots_jacobi(size, right, left)
    return torch.tensor((1 + x) / 2), torch.tensor(w / w.sum())


def gcm(alpha: float, beta: float, smoothness: float = 1.0, strong_convexity: float = 0.0) -> schedules.Schedule:
    return lambda t, ratio: generalized_chebyshev(
        t, ratio, alpha=alpha, beta=beta, smoothness=smoothness, strong_convexity=strong_convexity
    )


def course(schedule: schedules.Schedule, lam: Tensor, steps: int, lookahead: bool = False) -> Tensor:
    return theory.residual(follow(schedule), lam, steps, lookahead=lookahead)


def metric(values: Tensor, lam: Tensor, weights: Tensor, order: int = 1) -> Tensor:
    """M_order(t) / M_order(0) for all t, [t + 1]."""
    weighted = weights * lam**order
    return values.square() @ weighted / weighted.sum()


def exponent(m: Tensor, first: int = 200, last: int = 950) -> float:
    t = torch.arange(first, last + 1, dtype=D)
    return fitted_rate(t, m[first : last + 1].log(), geometric=False)


class Bowl(nn.Module):
    """1/2 (x - c)' H (x - c)."""

    def __init__(self, H: Tensor, start: Tensor, centre: Tensor | None = None) -> None:
        super().__init__()
        self.H, self.centre, self.x = H, torch.zeros_like(start) if centre is None else centre, nn.Parameter(start)

    def forward(self) -> Tensor:
        away = self.x - self.centre
        return 0.5 * away @ (self.H @ away)


def steps(optimizer: Any, model: nn.Module, count: int) -> Tensor:
    """The iterates after each step, [count, n]."""
    found = []
    for _ in range(count):
        optimizer.step(closure_of(optimizer, model))
        found.append(model.x.detach().clone())
    return torch.stack(found)


def dense(size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    Q = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=D)).Q
    H = Q @ torch.diag(torch.linspace(0.02, 1, size, dtype=D)) @ Q.T
    return (H + H.T) / 2, torch.randn(size, generator=generator, dtype=D)
