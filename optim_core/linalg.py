"""Linear algebra: Lanczos for symmetric operators given by their products, Newton-Schulz. Pure functions of tensors.

A is a symmetric [n, n] operator, given as the function x -> A x. k steps of Lanczos from a start q_1 build an
orthonormal Q [n, k] and a tridiagonal T [k, k] with

    A Q = Q T + beta_k q_{k+1} e_k^T,   T = diag(alpha) + offdiag(beta_1 .. beta_{k-1})     (Golub and Van Loan 10.1)

so the eigenvalues of T approximate the outer ones of A first, each within beta_k |s_k| of an eigenvalue of A, where s_k
is the last entry of its eigenvector of T. Every new vector is orthogonalized twice against all earlier ones (Parlett:
"twice is enough"), which keeps Q orthonormal to rounding, so no eigenvalue appears twice spuriously. Cost: k products,
4 n k^2 multiplications, n k numbers of memory.

With a `metric` U (symmetric, positive) the inner product is x^T U y: A U is symmetric in it, its eigenvalues are those
of U^1/2 A U^1/2 and of U A, no root of U is needed, and Q^T U Q = I. This adds one product with U per step and doubles
the memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def lanczos(
    matvec: Product, start: Tensor, num_steps: int, metric: Product | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(alphas [k], betas [k], basis [n, k]) of Lanczos from `start` [n]; betas[-1] is the coupling to the remainder.

    k is `num_steps`, or less if the vectors already span an invariant subspace: then betas[-1] is 0 and the eigenvalues
    of T are eigenvalues of A (with `metric` U: of A U). dtype and device are those of `start`. Raises ValueError for
    num_steps < 1 or a start that is zero or not finite, ArithmeticError for a product that is not finite or a metric
    that is not positive.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 1")
    if start.ndim != 1 or not 0 < float(torch.linalg.vector_norm(start)) < float("inf"):
        raise ValueError(f"start has shape {tuple(start.shape)}; it must be a vector, finite and not zero")
    steps = min(num_steps, start.numel())
    basis = start.new_zeros(start.numel(), steps)
    duals = basis if metric is None else torch.zeros_like(basis)
    alphas, betas = start.new_zeros(steps), start.new_zeros(steps)
    q, dual, length = start, *_measured(start, metric)
    scale = 0.0
    for j in range(steps):
        basis[:, j], duals[:, j] = q / length, dual / length
        image = matvec(duals[:, j])
        alphas[j] = torch.dot(duals[:, j], image)
        _, scale_here = _measured(image, metric)
        scale = max(scale, float(scale_here))
        if not scale < float("inf"):
            raise ArithmeticError(f"the product with basis vector {j} is not finite")
        for _ in range(2):
            image = image - basis[:, : j + 1] @ (duals[:, : j + 1].T @ image)
        q = image
        dual, length = _measured(q, metric)
        if j + 1 == start.numel() or float(length) <= 100 * torch.finfo(start.dtype).eps * scale:
            return alphas[: j + 1], betas[: j + 1], basis[:, : j + 1]
        betas[j] = length
    return alphas, betas, basis


def _measured(x: Tensor, metric: Product | None) -> tuple[Tensor, Tensor]:
    """(U x, sqrt(x^T U x)); U is the identity without a metric."""
    if metric is None:
        return x, torch.linalg.vector_norm(x)
    dual = metric(x)
    square = torch.dot(x, dual)
    if float(square) < -100 * torch.finfo(x.dtype).eps * float(
        torch.linalg.vector_norm(x) * torch.linalg.vector_norm(dual)
    ):
        raise ArithmeticError("the metric is not positive; it must be symmetric and positive definite")
    return dual, square.clamp_min(0).sqrt()


def ritz(alphas: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(values [k] ascending, vectors [k, k], errors [k]) of the tridiagonal matrix returned by `lanczos`.

    Each value lies within its error of an eigenvalue of the operator; `basis @ vectors` are the Ritz vectors, and
    vectors[0] ** 2 are the weights of the Gauss quadrature of the spectrum seen from the start vector.
    """
    matrix = torch.diag(alphas) + torch.diag(betas[:-1], 1) + torch.diag(betas[:-1], -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors, betas[-1].abs() * vectors[-1].abs()


QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients with the steepest slope at zero (Jordan et al. 2024); singular values end in about [0.7, 1.2]."""


def newton_schulz(matrix: Tensor, num_steps: int = 5, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Approximately U V^T of M = U S V^T, in `dtype`: X <- a X + (b X X^T + c (X X^T)^2) X from X = M / |M|_F. [m, n]

    Five steps bring singular values above 1e-3 of the norm near 1. Cost: 4 m n min(m, n) + 2 min(m, n)^3 per step.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(dtype)
    x = x / (torch.linalg.vector_norm(x) + 1e-7)
    for _ in range(num_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
