"""The eigenbases of running Gram matrices (SOAP: Vyas et al. 2024, arXiv 2409.11321).

    L <- ema L + (1 - ema) G G^T,   R <- ema R + (1 - ema) G^T G   at every step;   H = Q_L^T G Q_R

Eigenvectors at first, then Q <- qr(L Q) with columns sorted by Rayleigh quotient at every refresh, by default every 10
steps. L, R and the bases learn after the step: a basis that has already seen a gradient aligns with it, v then no
longer measures noise, and runs with short intervals and a constant rate can diverge (`rotation_update: before_step`
demonstrates it). At a refresh m moves exactly into the new basis and v is reordered with the columns (`carry`, as in
SOAP), or both move (`mv`). A side above `rotation_max_dim` is not rotated. Memory 2 (a^2 + b^2). The optimizer `soap`
is this with the authors' order of decay, their eps, and every axis of a convolution rotated separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from optim_core.rotations.base import Change, Fitted, Options, Piece, rotation
from optim_core.rotations.decompose import eigenvectors, power_step, robust
from optim_core.rotations.learned import Learned, Sides, square_sides, transported


@rotation("soap_eig")
class SoapEig(Learned):
    """Both sides, from averages instead of one noisy gradient."""

    REFRESH: ClassVar[int] = 10
    UPDATE: ClassVar[str] = "after_step"

    def __init__(self, pieces: Sequence[Piece], options: Options) -> None:
        super().__init__(pieces, options)
        matrices = [p for p in self.pieces if p.is_matrix]
        self._sides = {p.name: square_sides(p, options, left=True, right=True) for p in matrices}
        self._orders: dict[str, Sides] = {}

    def learns(self, step: int) -> bool:
        """Always: the averages are updated at every step."""
        return True

    def fit(self, samples: Sequence[Sequence[Tensor]], step: int, skipped: Tensor | None = None) -> Fitted:
        """Update the Gram matrices at every step; refresh the bases when due."""
        for piece, g in zip(self.pieces, samples[-1], strict=True):
            if piece.is_matrix:
                self._average(piece, g, skipped)
        return super().fit(samples, step, skipped)

    def basis(self, piece: Piece, gradient: Tensor) -> Sides | None:
        """Eigenvectors at first, one power step afterwards."""
        found: list[Tensor | None] = []
        orders: list[Tensor | None] = []
        for key, wanted in zip(("left", "right"), self._sides[piece.name], strict=True):
            old, gram = piece.get(key), piece.get(f"gram_{key}")
            if not wanted or gram is None:
                found.append(None)
                orders.append(None)
                continue
            new = robust(eigenvectors if old is None else lambda x, old=old: power_step(x, old), gram)  # type: ignore[misc]
            if new is None:
                return None
            found.append(new[0])
            orders.append(new[1].long() if old is not None else None)
        if found[0] is None and found[1] is None:
            return None
        self._orders[piece.name] = orders[0], orders[1]
        return found[0], found[1]

    def follow(self, piece: Piece, old: Sides, new: Sides) -> Change | None:
        """Move m by the change of basis, v by the order of the columns."""
        moved = transported(old, new)
        if self.options.transport == "mv":
            return moved
        left, right = self._orders[piece.name]
        return Change(
            left=moved.left,
            right=moved.right,
            left_squared=None if left is None else torch.eye(len(left)).to(moved.left)[left],
            right_squared=None if right is None else torch.eye(len(right)).to(moved.right)[:, right],
        )

    def _average(self, piece: Piece, g: Tensor, skipped: Tensor | None) -> None:
        for key, wanted in zip(("gram_left", "gram_right"), self._sides[piece.name], strict=True):
            if wanted:
                old, new = piece.get(key), g @ g.T if key == "gram_left" else g.T @ g
                if old is not None:  # a gradient that is not finite changes nothing, without being read back
                    taken = torch.isfinite(g).all() if skipped is None else skipped.to(g.device) == 0
                    old.lerp_(torch.where(taken, new.to(old), old), 1 - self.options.ema)
                elif bool(torch.isfinite(g).all()):
                    piece.put(key, new.mul_(1 - self.options.ema))
