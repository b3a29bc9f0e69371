"""Eigenvalues and their weights for quadratics with a chosen expected spectral distribution.

    beta              lambda^xi (L - lambda)^tau on [0, L], moved to [mu, L]; uniform is xi = tau = 0
    marchenko_pastur  sqrt((L - lambda)(lambda - mu)) / lambda, of sample covariances with r columns for each row:
                      mu, L = s (1 -+ sqrt r)^2; r = 1 is xi = -1/2, tau = 1/2, mu = 0
    gamma             lambda^xi exp(-lambda / scale), without an upper edge
    points            equal masses at given places

`gauss` uses the nodes and weights of Gaussian quadrature for the density: expectations of polynomials up to degree 2 n
- 1 are exact, so n nodes show a method's exact expectation for t < n. `random` draws n eigenvalues (of a real random
matrix for marchenko_pastur), each with weight 1 / n. `deform` changes the bulk of a density, not its edges.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

DEFORMATIONS = ("none", "ripple", "gap", "cut", "atom", "edge_atom", "random")


@lru_cache(maxsize=4)
def gauss_jacobi(size: int, left_exponent: float, right_exponent: float) -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1) and weights (sum 1) of the density u^left (1 - u)^right, [size] each, ascending."""
    from scipy.special import roots_jacobi

    nodes, weights = roots_jacobi(size, right_exponent, left_exponent)
    nodes, weights = torch.tensor((1 + nodes) / 2), torch.tensor(weights)
    return nodes, weights / weights.sum()


@lru_cache(maxsize=4)
def gauss_laguerre(size: int, exponent: float) -> tuple[Tensor, Tensor]:
    """Nodes above 0 and weights (sum 1) of u^exponent exp(-u); weights below 1e-308 are 0.

    A weight is 1 / sum_k p_k(node)^2 over the orthonormal polynomials: computing it from eigenvectors would lose small
    weights, where the polynomials grow like exp(u / 2).
    """
    import numpy as np
    from scipy.linalg import eigvalsh_tridiagonal

    k = np.arange(size)
    diagonal, beside = 2 * k + exponent + 1, np.sqrt(k[1:] * (k[1:] + exponent))
    nodes = eigvalsh_tridiagonal(diagonal, beside)
    with np.errstate(over="ignore", invalid="ignore"):
        old, now = np.zeros(size), np.ones(size)
        total = now**2
        for j in range(size - 1):
            old, now = now, ((nodes - diagonal[j]) * now - (beside[j - 1] * old if j else 0)) / beside[j]
            total = total + now**2
        weights = torch.tensor(np.nan_to_num(1 / total, nan=0.0))
    return torch.tensor(nodes), weights / weights.sum()


def wishart(size: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Eigenvalues [size] of X'X / rows, X [size / ratio, size] of independent standard normal entries.

    From the bidiagonal matrix of chi variables with the same distribution (Dumitriu and Edelman 2002), O(size^2).
    """
    from scipy.linalg import eigvalsh_tridiagonal

    rows = max(round(size / ratio), size)
    k = torch.arange(size, dtype=torch.float64)
    diagonal = chi_squares(rows - k, generator)
    below = chi_squares(size - 1 - k[:-1], generator)
    main = diagonal + torch.cat([torch.zeros(1, dtype=torch.float64), below])
    beside = (diagonal[:-1] * below).sqrt()
    return torch.tensor(eigvalsh_tridiagonal(main.numpy(), beside.numpy())).clamp_min(0) / rows


def chi_squares(degrees: Tensor, generator: torch.Generator) -> Tensor:
    """Independent chi-square draws with these degrees of freedom, [n]."""
    return 2 * torch._standard_gamma(degrees / 2, generator=generator)


def beta_draws(size: int, left_exponent: float, right_exponent: float, generator: torch.Generator) -> Tensor:
    """`size` independent draws in (0, 1) with density u^left (1 - u)^right."""
    a, b = (
        torch._standard_gamma(torch.full((size,), 1 + e, dtype=torch.float64), generator=generator)
        for e in (left_exponent, right_exponent)
    )
    return a / (a + b)


def deform(kind: str, places: Tensor, weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same eigenvalues `places` in [0, 1] with other weights, or with a point mass added; both [n or n + 1].

    ripple: times 1 + 0.9 sin 20 u; gap: nothing in [0.3, 0.6]; cut: nothing above 0.5; atom: half of the mass at 0.4;
    edge_atom: a hundredth of it at 1; random: a ripple, a gap and an atom, drawn.
    """
    u = places
    if kind == "ripple":
        weights = weights * (1 + 0.9 * torch.sin(20 * u))
    elif kind == "gap":
        weights = weights * ~((u > 0.3) & (u < 0.6))
    elif kind == "cut":
        weights = weights * (u <= 0.5)
    elif kind in ("atom", "edge_atom"):
        share, at = (0.5, 0.4) if kind == "atom" else (0.01, 1.0)
        return _with_atom(u, weights, share, at)
    elif kind == "random":
        height, wave, phase, gap, width, share, at = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
        weights = weights * (1 + (0.5 + 0.45 * height) * torch.sin((5 + 35 * wave) * u + 2 * math.pi * phase))
        low = 0.2 + 0.4 * gap
        weights = weights * ~((u > low) & (u < low + 0.3 * width))
        return _with_atom(u, weights / weights.sum(), 0.5 * share, 0.2 + 0.6 * at)
    return places, weights / weights.sum()


def _with_atom(places: Tensor, weights: Tensor, share: float, at: float) -> tuple[Tensor, Tensor]:
    return torch.cat([places, places.new_tensor([at])]), torch.cat([weights * (1 - share), weights.new_tensor([share])])
