"""U with one factor for the rows and one for the columns of a weight's gradient G [m, n].

    kronecker            U g = A G C^T                A [m, m], C [n, n], neither symmetric nor positive
    psd_kronecker        U g = (L L^T) G (M M^T)      L [m, m], M [n, n]
    diagonal_kronecker   U g = (a c^T) G elementwise  a [m], c [n]

A side that may not have a dense factor has a vector instead of the matrix. Dense: 2 m n (m + n) FLOPs per action (twice
that for psd_kronecker), m^2 + n^2 numbers.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from optim_core.preconditioners.base import Factors, Structure, eye, ones, structure


@structure("kronecker")
class Kronecker(Structure):
    """Free factors, the identity at the start."""

    def identity(self, like: Tensor) -> Factors:
        """A = I, C = I."""
        seen = self.view
        return {
            "rows": eye(like, seen.rows) if seen.dense_rows else ones(like, seen.rows),
            "columns": eye(like, seen.columns) if seen.dense_columns else ones(like, seen.columns),
        }

    def act(self, factors: Factors, gradient: Tensor) -> Tensor:
        """A G C^T."""
        rows, columns, G = factors["rows"], factors["columns"], self.matrix(gradient)
        G = rows @ G if rows.ndim == 2 else rows[:, None] * G
        G = G @ columns.T if columns.ndim == 2 else G * columns
        return G.reshape(gradient.shape)


@structure("psd_kronecker")
class PositiveKronecker(Kronecker):
    """Factors L L^T: symmetric and positive semidefinite for any L."""

    VECTOR: ClassVar[str] = "psd_diagonal"
    ALWAYS_POSITIVE: ClassVar[bool] = True

    def act(self, factors: Factors, gradient: Tensor) -> Tensor:
        """L L^T G M M^T."""
        return super().act({k: f @ f.T if f.ndim == 2 else f * f for k, f in factors.items()}, gradient)


@structure("diagonal_kronecker")
class DiagonalKronecker(Structure):
    """The outer product of two vectors, 1 at the start."""

    POSITIVE_IF_CLAMPED: ClassVar[bool] = True

    def identity(self, like: Tensor) -> Factors:
        """All ones."""
        return {"rows": ones(like, self.view.rows), "columns": ones(like, self.view.columns)}

    def act(self, factors: Factors, gradient: Tensor) -> Tensor:
        """(a c^T) G."""
        scaled = factors["rows"][:, None] * self.matrix(gradient) * factors["columns"]
        return scaled.reshape(gradient.shape)

    def clamp(self, factors: Factors, low: float, high: float, spectrum: bool) -> None:
        """Both vectors, with `spectrum`."""
        if spectrum:
            factors["rows"].clamp_(low, high)
            factors["columns"].clamp_(low, high)
