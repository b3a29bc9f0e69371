"""One-sided low rank (GaLore: Zhao et al. 2024, arXiv 2403.03507): moments for min(rank, a, b) directions.

    a < b:  H = P^T G [r, b],  else  H = G P [a, r];   P the r leading singular vectors of the gradient at the refresh

A projection, not a rotation: what lies outside the span is dropped until the next refresh. Its scale factor is left to
the learning rate. The authors count steps from 0, so refreshes come at 1, 201, 401. Memory r min(a, b) for P, and
moments of r max(a, b) numbers instead of a b.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from optim_core.rotations.base import Piece, rotation
from optim_core.rotations.decompose import robust, singular_vectors
from optim_core.rotations.learned import Learned, Sides


@rotation("galore")
class Galore(Learned):
    """The `rotation_rank` leading directions of the shorter side."""

    COMPLETE: ClassVar[bool] = False
    REFRESH: ClassVar[int] = 200
    PHASE: ClassVar[int] = 1

    def basis(self, piece: Piece, gradient: Tensor) -> Sides | None:
        """Leading singular vectors of the gradient."""
        found = robust(lambda g: singular_vectors(g, left=False, right=False), gradient)
        if found is None:
            return None
        rank = min(self.options.rank, *piece.shape)
        return (found[0][:, :rank], None) if piece.shape[0] < piece.shape[1] else (None, found[1][:, :rank])
