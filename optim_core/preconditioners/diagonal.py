"""U that scales: one number per entry of a weight, or one for the whole weight.

    diagonal       U g = d g             psd_diagonal   U g = (r^2 + 1e-12) g
    scalar         U g = a g             psd_scalar     U g = (r^2 + 1e-12) g

As many multiplications as the weight has entries.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from optim_core.preconditioners.base import Factors, Structure, ones, structure

TINY = 1e-12


@structure("diagonal")
class Diagonal(Structure):
    """d [*shape of the weight], 1 at the start."""

    ELEMENTWISE: ClassVar[bool] = True
    POSITIVE_IF_CLAMPED: ClassVar[bool] = True

    def identity(self, like: Tensor) -> Factors:
        """All ones."""
        return {"scale": ones(like, *like.shape)}

    def act(self, factors: Factors, gradient: Tensor) -> Tensor:
        """D g."""
        return factors["scale"] * gradient

    def clamp(self, factors: Factors, low: float, high: float, spectrum: bool) -> None:
        """Every entry."""
        factors["scale"].clamp_(low, high)


@structure("scalar")
class Scalar(Diagonal):
    """a [], one number per weight, 1 at the start."""

    VECTOR: ClassVar[str] = "scalar"

    def identity(self, like: Tensor) -> Factors:
        """One."""
        return {"scale": ones(like)}


@structure("psd_diagonal")
class PositiveDiagonal(Structure):
    """d = r^2 + 1e-12 with r [*shape of the weight]: positive for any r, without a clamp."""

    VECTOR: ClassVar[str] = "psd_diagonal"
    ALWAYS_POSITIVE: ClassVar[bool] = True

    def identity(self, like: Tensor) -> Factors:
        """r^2 + 1e-12 = 1."""
        return {"root": ones(like, *like.shape) * (1 - TINY) ** 0.5}

    def act(self, factors: Factors, gradient: Tensor) -> Tensor:
        """(r^2 + 1e-12) g."""
        return (factors["root"] ** 2 + TINY) * gradient


@structure("psd_scalar")
class PositiveScalar(PositiveDiagonal):
    """a = r^2 + 1e-12, one number per weight."""

    VECTOR: ClassVar[str] = "psd_scalar"

    def identity(self, like: Tensor) -> Factors:
        """r^2 + 1e-12 = 1."""
        return {"root": ones(like) * (1 - TINY) ** 0.5}
