"""U that scales in a learned basis (E-Kronecker), for a weight's gradient G [m, n].

    e_kronecker              U g = Q (d (Q^T G P)) P^T,   Q [m, m], P [n, n], d [m, n]
    psd_e_kronecker          the same with d = r^2 + 1e-12
    separable_e_kronecker    the same with d = a c^T,     a [m], c [n]

Symmetric by construction; Q and P are not kept orthogonal. For a side that may not have a dense factor the basis is the
identity. 4 m n (m + n) FLOPs per action, m^2 + n^2 + m n numbers.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from optim_core.preconditioners.base import Factors, Structure, eye, ones, structure
from optim_core.preconditioners.diagonal import TINY


@structure("e_kronecker")
class EigenKronecker(Structure):
    """d is free: it may become negative unless it is clamped."""

    POSITIVE_IF_CLAMPED: ClassVar[bool] = True

    def identity(self, like: Tensor) -> Factors:
        """Q = I, P = I, d = 1."""
        seen, factors = self.view, self.spectrum_at_one(like)
        if seen.dense_rows:
            factors["row_basis"] = eye(like, seen.rows)
        if seen.dense_columns:
            factors["column_basis"] = eye(like, seen.columns)
        return factors

    def act(self, factors: Factors, gradient: Tensor) -> Tensor:
        """Q (d (Q^T G P)) P^T."""
        Q, P, G = factors.get("row_basis"), factors.get("column_basis"), self.matrix(gradient)
        G = Q.T @ G if Q is not None else G
        G = G @ P if P is not None else G
        G = self.spectrum(factors) * G
        G = Q @ G if Q is not None else G
        G = G @ P.T if P is not None else G
        return G.reshape(gradient.shape)

    def clamp(self, factors: Factors, low: float, high: float, spectrum: bool) -> None:
        """The entries of d, with `spectrum`."""
        if spectrum:
            factors["spectrum"].clamp_(low, high)

    def spectrum_at_one(self, like: Tensor) -> Factors:
        """The parameters of d = 1."""
        return {"spectrum": ones(like, self.view.rows, self.view.columns)}

    def spectrum(self, factors: Factors) -> Tensor:
        """The diagonal inside, [m, n]."""
        return factors["spectrum"]


@structure("psd_e_kronecker")
class PositiveEigenKronecker(EigenKronecker):
    """d = r^2 + 1e-12: symmetric and positive semidefinite for any factors."""

    VECTOR: ClassVar[str] = "psd_diagonal"
    ALWAYS_POSITIVE: ClassVar[bool] = True
    POSITIVE_IF_CLAMPED: ClassVar[bool] = False

    def clamp(self, factors: Factors, low: float, high: float, spectrum: bool) -> None:
        """Nothing: d is positive as it is."""

    def spectrum_at_one(self, like: Tensor) -> Factors:
        """r^2 + 1e-12 = 1."""
        return {"root": ones(like, self.view.rows, self.view.columns) * (1 - TINY) ** 0.5}

    def spectrum(self, factors: Factors) -> Tensor:
        """r^2 + 1e-12."""
        return factors["root"] ** 2 + TINY


@structure("separable_e_kronecker")
class SeparableEigenKronecker(EigenKronecker):
    """d = a c^T: m + n numbers in addition to the bases."""

    def clamp(self, factors: Factors, low: float, high: float, spectrum: bool) -> None:
        """Both vectors, with `spectrum`."""
        if spectrum:
            factors["row_spectrum"].clamp_(low, high)
            factors["column_spectrum"].clamp_(low, high)

    def spectrum_at_one(self, like: Tensor) -> Factors:
        """All ones."""
        return {"row_spectrum": ones(like, self.view.rows), "column_spectrum": ones(like, self.view.columns)}

    def spectrum(self, factors: Factors) -> Tensor:
        """The outer product."""
        return factors["row_spectrum"][:, None] * factors["column_spectrum"]
