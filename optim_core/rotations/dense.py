"""A true Haar rotation over all coordinates: the reference for tests, up to 4096 coordinates. Memory d^2."""

from __future__ import annotations

from torch import Tensor

from optim_core.rotations.base import WIDEST_BLOCK, FlatMap, rotation
from optim_core.rotations.flat import Flat
from optim_core.rotations.haar import haar


class Matrix(FlatMap):
    """Multiplies a vector [d] by one orthogonal matrix."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self._matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        """R x."""
        self.follow(x)
        return self._matrix @ x

    def backward(self, x: Tensor) -> Tensor:
        """R^T x."""
        self.follow(x)
        return self._matrix.T @ x


@rotation("dense")
class Dense(Flat):
    """Haar in O(d)."""

    def make(self, d: int) -> FlatMap:
        """One matrix. Raises ValueError above 4096 coordinates."""
        if d > WIDEST_BLOCK:
            raise ValueError(f"rotation 'dense' holds {d}^2 numbers; it is for up to {WIDEST_BLOCK}, use 'global'")
        return Matrix(haar(d, self.options.key, "dense"))
