"""Linear algebra of symmetric operators that are known by their products only. Pure functions of tensors.

A is a symmetric [n, n] operator, given as the function x -> A x. k steps of Lanczos from a start q_1 build an
orthonormal Q [n, k] and a tridiagonal T [k, k] with

    A Q = Q T + beta_k q_{k+1} e_k^T,   T = diag(alpha) + offdiag(beta_1 .. beta_{k-1})     (Golub and Van Loan 10.1)

so the eigenvalues of T approximate the outer ones of A first, each within beta_k |s_k| of an eigenvalue of A, where s_k
is the last entry of its eigenvector of T. Every new vector is orthogonalised twice against all earlier ones (Parlett:
"twice is enough"), which keeps Q orthonormal to rounding and no eigenvalue appears twice by mistake.
Cost: k products, 4 n k^2 multiplications, n k numbers of memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def lanczos(matvec: Product, start: Tensor, num_steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """(alphas [k], betas [k], basis [n, k]) of Lanczos from `start` [n]; betas[-1] is the coupling to what is left out.

    k is `num_steps`, or less when the vectors seen already span an invariant subspace: then betas[-1] is 0 and the
    eigenvalues of T are eigenvalues of A. dtype and device are those of `start`.
    Raises ValueError for num_steps < 1 or a start that is zero or not finite, ArithmeticError for a product that is
    not finite.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it has to be at least 1")
    length = float(torch.linalg.vector_norm(start))
    if start.ndim != 1 or not 0 < length < float("inf"):
        raise ValueError(f"start has shape {tuple(start.shape)} and norm {length}; it has to be a vector, not zero")
    steps = min(num_steps, start.numel())
    basis = start.new_zeros(start.numel(), steps)
    alphas, betas = start.new_zeros(steps), start.new_zeros(steps)
    q, scale = start / length, 0.0
    for j in range(steps):
        basis[:, j] = q
        image = matvec(q)
        seen = basis[:, : j + 1]
        alphas[j] = torch.dot(q, image)
        rest = image - seen @ (seen.T @ image)
        rest -= seen @ (seen.T @ rest)
        beta = torch.linalg.vector_norm(rest)
        scale = max(scale, float(torch.linalg.vector_norm(image)))
        if not scale < float("inf"):
            raise ArithmeticError(f"the product with basis vector {j} is not finite")
        if j + 1 == start.numel() or float(beta) <= 100 * torch.finfo(start.dtype).eps * scale:
            return alphas[: j + 1], betas[: j + 1], basis[:, : j + 1]
        betas[j] = beta
        q = rest / beta
    return alphas, betas, basis


def ritz(alphas: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(values [k] ascending, vectors [k, k], errors [k]) of the tridiagonal matrix that `lanczos` returned.

    Each value lies within its error of an eigenvalue of the operator; `basis @ vectors` are the Ritz vectors, and
    vectors[0] ** 2 are the weights of the Gauss quadrature of the spectrum seen from the start vector.
    """
    matrix = torch.diag(alphas) + torch.diag(betas[:-1], 1) + torch.diag(betas[:-1], -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors, betas[-1].abs() * vectors[-1].abs()
