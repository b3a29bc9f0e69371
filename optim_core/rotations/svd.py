"""The basis of the gradient's singular vectors (Zhang et al. 2024, arXiv 2410.19964, section 3.2 and Algorithm 5).

    G = U S V^T of one minibatch gradient, full rank;  svd: U^T G V,  svd_left: U^T G,  svd_right: G V

At a refresh step U^T G V is diagonal up to rounding, which a positive eps must suppress. A matrix with a side above
`rotation_max_dim` is rotated only on the shorter side. If the gradient does not have full rank, the rest of the basis
is arbitrary and depends on rounding: another machine finds another one. About 20 max(a, b) min(a, b)^2 operations per
refresh; memory a^2 + b^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from optim_core.rotations.base import Options, Piece, rotation
from optim_core.rotations.decompose import robust, singular_vectors
from optim_core.rotations.learned import Learned, Sides, square_sides


@rotation("svd")
class Svd(Learned):
    """Both sides."""

    LEFT: ClassVar[bool] = True
    RIGHT: ClassVar[bool] = True

    def __init__(self, pieces: Sequence[Piece], options: Options) -> None:
        super().__init__(pieces, options)
        matrices = [p for p in self.pieces if p.is_matrix]
        self._sides = {p.name: square_sides(p, options, left=self.LEFT, right=self.RIGHT) for p in matrices}

    def basis(self, piece: Piece, gradient: Tensor) -> Sides | None:
        """Singular vectors of the gradient."""
        left, right = self._sides[piece.name]
        found = robust(lambda g: singular_vectors(g, left=left, right=right), gradient)
        return None if found is None else (found[0] if left else None, found[1] if right else None)


@rotation("svd_left")
class SvdLeft(Svd):
    """The left side: columns of G are mixed."""

    RIGHT: ClassVar[bool] = False


@rotation("svd_right")
class SvdRight(Svd):
    """The right side: rows of G are mixed."""

    LEFT: ClassVar[bool] = False
