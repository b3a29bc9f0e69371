"""Decompositions that return None on failure: retried in float64; also None if the matrix is not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def robust(function: Callable[[Tensor], Sequence[Tensor]], matrix: Tensor) -> list[Tensor] | None:
    """`function(matrix)`, in the matrix's dtype, then in float64; results in the matrix's dtype. None: no result."""
    if not bool(torch.isfinite(matrix).all()):
        return None
    for dtype in (matrix.dtype, torch.float64):
        try:
            found = list(function(matrix.to(dtype)))
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            continue
        if all(bool(torch.isfinite(x).all()) for x in found):
            return [x.to(matrix.dtype) for x in found]
    return None


def singular_vectors(g: Tensor, *, left: bool, right: bool) -> list[Tensor]:
    """[U, V] of G [a, b] = U S V^T, descending; square on the requested sides, at least [side, min(a, b)] on others."""
    a, b = g.shape
    u, _, vt = torch.linalg.svd(g, full_matrices=(left and a > b) or (right and b > a))
    return [u, vt.T]


def eigenvectors(gram: Tensor) -> list[Tensor]:
    """[Q] of a symmetric [n, n], by descending eigenvalue."""
    return [torch.linalg.eigh(gram)[1].flip(1)]


def power_step(gram: Tensor, basis: Tensor) -> list[Tensor]:
    """[qr(gram basis), order]: columns sorted by Rayleigh quotient, one power step, QR (SOAP, arXiv 2409.11321)."""
    wide = basis.to(gram)
    order = torch.einsum("ij,ij->j", wide, gram @ wide).argsort(descending=True, stable=True)
    return [torch.linalg.qr(gram @ wide[:, order])[0], order]
