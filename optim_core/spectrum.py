"""The spectrum of a Hessian given by its products: its edges, and the behavior of the density there.

The model is the Beta density lambda^xi (L - lambda)^tau on [0, L]; xi is `left_exponent`, tau `right_exponent`, L
`smoothness`. Average-case methods need these three (Cunha et al. 2022, arXiv 2206.09901). Four estimators:

    hill     xi = W / sum_{i <= k} w_i log(lambda_(k+1) / lambda_(i)) - 1 of the smallest eigenvalues, of weights w
             that add up to W (Hill 1975)
    moments  m, v mean and variance of lambda / L, c = m (1 - m) / v - 1:  xi = m c - 1, tau = (1 - m) c - 1
    fit_tridiagonal   least squares of the Lanczos coefficients against the Jacobi coefficients of the Beta density
    estimate          Lanczos from any start, then the fit; from a gradient the density gains a factor lambda^2

A gradient start also sees an anisotropic distance to the minimum: if its squared component along lambda goes like
lambda^delta, the result is xi + delta, which is what the methods need.

Errors measured on 2000 independent Beta eigenvalues: about 0.05 in xi (0.2 at xi = 1), 0.07 in tau, for 20 products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from optim_core.linalg import Product, lanczos, ritz

LOWEST, HIGHEST = -0.98, 30.0
"""Bounds of fitted exponents."""
NUDGE = 1e-6
RELIABLE_STEPS, LARGER_MARGIN = 20, 0.05


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Properties found of a Hessian."""

    largest: float
    """Largest Ritz value, a lower bound of the largest eigenvalue."""
    smallest: float
    """Smallest Ritz value, an upper bound of the smallest eigenvalue seen by the start vector."""
    left_exponent: float
    """xi > -1: the density near 0 is like lambda^xi."""
    right_exponent: float
    """tau > -1: the density near the upper edge is like (L - lambda)^tau."""
    eigenvalue_scale: float
    """Scale of the Gamma density lambda^a exp(-lambda / scale) with the same mean and variance; for `laguerre`."""
    gamma_exponent: float
    """Exponent a > -1 of that density."""
    steps: int
    """Products used."""
    complete: bool
    """The Krylov space is exhausted: the Ritz values are all the eigenvalues."""

    def upper_bound(self, margin: float = 0.02) -> float:
        """(1 + margin) x the largest Ritz value; the margin is at least 5% after fewer than 20 steps.

        Too small a bound is fatal for every accelerated method, a bound 30% too large costs a few percent. Raises
        ValueError if no curvature is positive.
        """
        if self.largest <= 0:
            raise ValueError(
                f"smoothness: no positive curvature was found (largest Ritz value {self.largest:.3g}); give a number"
            )
        short = self.steps < RELIABLE_STEPS and not self.complete
        return self.largest * (1 + (max(margin, LARGER_MARGIN) if short else margin))


def policy(left_exponent: float, right_exponent: float, *, order: int = 1, margin: float = 0.5) -> tuple[float, float]:
    """(alpha, beta) of `generalized_chebyshev` from estimated exponents: beta = max(xi, -0.9) + l + 1 + margin.

    Too large a beta costs a constant and too small a one the exponent, so beta errs on the large side; alpha = min(tau,
    0), because too large an alpha destroys convergence. `order`: 0 distance, 1 objective, 2 gradient.
    """
    return max(min(right_exponent, 0.0), -0.9), max(left_exponent, -0.9) + order + 1 + margin


def optimal(left_exponent: float, right_exponent: float, *, order: int = 1) -> tuple[float, float]:
    """(alpha, beta) for known exponents: tau and xi + l + 1. For a point mass at L (tau = -1) alpha = -1/2."""
    finite = min(right_exponent, HIGHEST)
    return (finite if finite > -1 else -0.5), left_exponent + order + 1


def hill(eigenvalues: Tensor, num_smallest: int | None = None, weights: Tensor | None = None) -> float:
    """Xi from the smallest eigenvalues of [n], without zeros; `num_smallest` defaults to min(100, n / 20).

    `weights` [n] of the eigenvalues, default equal: with those of a quadrature the edge is nearly exact. Applied to
    `smoothness - eigenvalues` it gives tau. Raises ValueError for fewer than two usable eigenvalues.
    """
    kept = eigenvalues > 1e-12 * eigenvalues.max()
    ordered, order = eigenvalues[kept].sort()
    w = (torch.ones_like(eigenvalues) if weights is None else weights)[kept][order]
    k = num_smallest if num_smallest is not None else min(100, len(eigenvalues) // 20)
    if not 1 <= k < len(ordered):
        raise ValueError(f"num_smallest is {k}; it must lie in [1, {len(ordered) - 1}], below the nonzero eigenvalues")
    return float(w[:k].sum() / (w[:k] * torch.log(ordered[k] / ordered[:k])).sum()) - 1


def moments(mean: float, variance: float, smoothness: float) -> tuple[float, float]:
    """(xi, tau) of the Beta density on [0, smoothness] with this mean and variance of the eigenvalues.

    The mean is tr H / n, the second moment tr H^2 / n, so estimates of traces suffice.
    """
    m, v = mean / smoothness, variance / smoothness**2
    if not (0 < m < 1 and 0 < v < m * (1 - m)):
        raise ValueError(f"no density on [0, {smoothness:g}] has mean {mean:g} and variance {variance:g}")
    c = m * (1 - m) / v - 1
    return m * c - 1, (1 - m) * c - 1


def jacobi_matrix(
    left_exponent: Tensor, right_exponent: Tensor, smoothness: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Diagonal [size] and off-diagonal [size - 1] that Lanczos finds for the Beta density on [0, smoothness]."""
    xi, tau, s = left_exponent, right_exponent, left_exponent + right_exponent
    k = torch.arange(1, size, dtype=xi.dtype)
    first = 1 + (xi - tau) / (s + 2)
    rest = 1 + (xi**2 - tau**2) / ((2 * k + s) * (2 * k + s + 2))
    lead = 4 * (1 + tau) * (1 + xi) / ((2 + s) ** 2 * (3 + s))
    k = k[1:]
    squares = 4 * k * (k + tau) * (k + xi) * (k + s) / ((2 * k + s) ** 2 * (2 * k + s + 1) * (2 * k + s - 1))
    half = smoothness / 2
    return half * torch.cat([first[None], rest]), half * torch.cat([lead[None], squares]).sqrt()


def fit_tridiagonal(diagonal: Tensor, off_diagonal: Tensor) -> tuple[float, float, float]:
    """(xi, tau, L) whose Jacobi matrix is nearest to this one, [k] and [k - 1] entries, in least squares.

    Levenberg-Marquardt in log(1 + xi), log(1 + tau), log L, starting from the fit of two moments. One entry: a flat
    density.
    """
    measured = torch.cat([diagonal, off_diagonal]).detach().to("cpu", torch.float64)
    size = len(diagonal)
    lower = torch.diag(measured[:size]) + torch.diag(measured[size:], -1)  # eigvalsh reads the lower triangle
    top = float(torch.linalg.eigvalsh(lower)[-1])
    if size < 2 or top <= 0:
        return 0.0, 0.0, top
    low, high = math.log1p(LOWEST), math.log1p(HIGHEST)

    def miss(u: Tensor) -> Tensor:
        a, b = jacobi_matrix(torch.expm1(u[0]), torch.expm1(u[1]), torch.exp(u[2]), size)
        return (torch.cat([a, b]) - measured) / top

    try:
        start = moments(float(measured[0]), float(measured[size]) ** 2, 1.02 * top)
    except ValueError:
        start = 0.0, 0.0
    u = torch.tensor([math.log1p(min(max(x, LOWEST), HIGHEST)) for x in start] + [math.log(top)], dtype=torch.float64)
    nudges = NUDGE * torch.eye(3, dtype=torch.float64)
    damping, best = 1e-3, float(miss(u).square().sum())
    for _ in range(60):
        jacobian = torch.stack([(miss(u + e) - miss(u - e)) / (2 * NUDGE) for e in nudges], 1)
        now = miss(u)
        normal = jacobian.T @ jacobian
        step = torch.linalg.solve(normal + damping * torch.diag(normal.diagonal() + 1e-12), -jacobian.T @ now)
        trial = u + step
        trial[:2] = trial[:2].clamp(low, high)
        value = float(miss(trial).square().sum())
        if not value < best:
            damping *= 8
            if damping > 1e8:
                break
            continue
        done = best - value <= 1e-12 * best
        u, best, damping = trial, value, damping / 4
        if done:
            break
    return math.expm1(float(u[0])), math.expm1(float(u[1])), math.exp(float(u[2]))


def estimate(
    product: Product, start: Tensor, steps: int = 20, *, start_is_gradient: bool = False, exponents: bool = True
) -> Spectrum:
    """Run `steps` of Lanczos on the Hessian from `start` [n] and estimate edges and exponents.

    `product` is v -> H v; one product and one stored vector per step. `start_is_gradient`: the start is the gradient at
    the method's starting point, and its factor lambda^2 is removed from the left exponent. Without `exponents`, xi and
    tau stay 0.
    """
    alphas, betas, _ = lanczos(product, start, steps)
    values, _, _ = ritz(alphas, betas)
    xi, tau, _ = fit_tridiagonal(alphas, betas[:-1]) if exponents else (0.0, 0.0, 0.0)
    mean = abs(float(alphas[0]))
    variance = max(float(betas[0]) ** 2, 1e-12 * mean**2)
    return Spectrum(
        largest=float(values[-1]),
        smallest=float(values[0]),
        left_exponent=max(xi - 2, LOWEST) if start_is_gradient and exponents else xi,
        right_exponent=tau,
        eigenvalue_scale=variance / mean if mean > 0 else 0.0,
        gamma_exponent=min(mean**2 / variance - 1, HIGHEST) if mean > 0 else 0.0,
        steps=len(alphas),
        complete=float(betas[-1]) == 0,
    )
