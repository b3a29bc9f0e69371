"""The eigenbasis of the expected gradient outer product (EGOP, arXiv 2502.01594), for each piece separately.

    C = (1 / M) sum_k g_k g_k^T,  g_k the gradient at theta_k ~ N(w, rms(w)^2) for each tensor;   h = Q^T g

The leading min(M, p) eigenvectors of a piece of p coordinates are left singular vectors of [g_1 ... g_M]; Householder
reflectors complete them to an orthogonal basis without forming it. Fitted once, before the first step, with M
(`rotation_samples`) gradient evaluations, which are charged. Memory p min(M, p) instead of p^2; 4 p min(M, p)
multiplications each way. Resolving all eigenvectors would need M of at least twice the number of coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from optim_core.rotations.base import Fitted, Options, Piece, Rotation, rotation
from optim_core.rotations.decompose import robust


@rotation("egop")
class Egop(Rotation):
    """Matrices and vectors, flattened."""

    @classmethod
    def samples(cls, options: Options) -> int:
        """`rotation_samples`."""
        return options.samples

    def samples_due(self, step: int) -> int:
        """`rotation_samples` until every piece has a basis."""
        return self.samples(self.options) if any(p.get("reflectors") is None for p in self.pieces) else 0

    def fit(self, samples: Sequence[Sequence[Tensor]], step: int, skipped: Tensor | None = None) -> Fitted:
        """Leading eigenvectors of the samples, if there is no basis yet."""
        failures = 0
        for i, piece in enumerate(self.pieces):
            if piece.get("reflectors") is None:
                found = robust(_reflectors, torch.stack([s[i].reshape(-1) for s in samples], dim=1))
                if found is None:
                    failures += 1
                else:
                    piece.put("reflectors", found[0])
                    piece.put("factor", found[1])
        return Fitted(failures=failures)

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Q^T of each flattened tensor."""
        return [_apply(p, t, transpose=True) for p, t in zip(self.pieces, tensors, strict=True)]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Q of each flattened tensor."""
        return [_apply(p, t, transpose=False) for p, t in zip(self.pieces, tensors, strict=True)]


def _reflectors(gradients: Tensor) -> Sequence[Tensor]:
    """V^T [r, p] and T [r, r] of an orthogonal Q = I - V T V^T that starts with the left singular vectors, up to sign.

    T^-1 = diag(1 / tau) + the strict upper triangle of V^T V (Schreiber and Van Loan 1989).
    """
    left = torch.linalg.svd(gradients, full_matrices=False)[0]
    packed, tau = torch.geqrf(left)
    v = packed.tril(-1)
    v.diagonal().fill_(1)
    v = v * (tau != 0).to(v)  # tau 0: that reflection is the identity
    inverse = torch.diag(torch.where(tau != 0, 1 / tau, 1.0)) + (v.T @ v).triu(1)
    return [v.T, torch.linalg.inv(inverse)]


def _apply(piece: Piece, t: Tensor, *, transpose: bool) -> Tensor:
    """Q x = x - V T (V^T x), or with T^T for Q^T: its time is that of reading V twice."""
    rows, factor = piece.get("reflectors"), piece.get("factor")
    if rows is None or factor is None:
        return t
    rows, factor, x = rows.to(t), factor.to(t), t.reshape(-1)
    return torch.addmv(x, rows.T, (factor.T if transpose else factor) @ (rows @ x), alpha=-1).view(t.shape)
