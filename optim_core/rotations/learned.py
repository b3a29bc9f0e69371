"""Common part of kinds with a learned basis per matrix: H = L^T G R, refresh by the step counter, moments that follow.

The basis is learned from the first gradient and whenever step mod `rotation_refresh` = PHASE, before or after the step
(`rotation_update`); a matrix that has no basis yet, because its gradient was not finite, retries at every step. A
failure keeps the old basis and is counted. A refresh learns from the gradient that the step uses anyway: no gradient
evaluation is charged, its decomposition only costs time. With learning after the step, the first gradient of a matrix
is spent on its basis and moves nothing. Cost of a step between refreshes: 2 p (a + b) multiplications each way for a
matrix of p = a b entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from optim_core.rotations.base import Change, Fitted, Options, Piece, Rotation

Sides = tuple[Tensor | None, Tensor | None]


class Learned(Rotation):
    """Left and right bases, stored as `left` [a, .] and `right` [b, .] in each matrix's memory."""

    VECTORS: ClassVar[bool] = False
    REFRESH: ClassVar[int] = 250
    """`rotation_refresh` as published."""
    PHASE: ClassVar[int] = 0
    """Remainder of the step number modulo `rotation_refresh` at which a refresh is due."""
    UPDATE: ClassVar[str] = "before_step"
    """`rotation_update` as published."""

    @property
    def fits_after(self) -> bool:
        """According to `rotation_update`."""
        return (self.UPDATE if self.options.update == "auto" else self.options.update) == "after_step"

    def lacks_basis(self, index: int) -> bool:
        """Whether a matrix has no basis yet."""
        piece = self.pieces[index]
        return piece.is_matrix and not _exists((piece.get("left"), piece.get("right")))

    def basis(self, piece: Piece, gradient: Tensor) -> Sides | None:
        """New (left, right), None on an unchanged side, or None if it cannot be computed."""
        raise RuntimeError(f"{type(self).__name__} has no basis()")

    def follow(self, piece: Piece, old: Sides, new: Sides) -> Change | None:
        """How the moments move from the old basis to the new one."""
        return transported(old, new) if self.options.transport == "mv" else None

    def fit(self, samples: Sequence[Sequence[Tensor]], step: int, skipped: Tensor | None = None) -> Fitted:
        """Learn from the latest gradient if a refresh is due."""
        changes: list[Change | None] = []
        failures = 0
        for piece, gradient in zip(self.pieces, samples[-1], strict=True):
            change = None
            if piece.is_matrix and self._due(piece, step):
                new = self.basis(piece, gradient)
                if new is None:
                    failures += 1
                else:
                    old = piece.get("left"), piece.get("right")
                    change = self.follow(piece, old, new) if _exists(old) else None
                    for key, value in (("left", new[0]), ("right", new[1])):
                        if value is not None:
                            piece.put(key, value)
            changes.append(change)
        return Fitted(changes=changes if any(changes) else [], failures=failures)

    def refreshes(self, step: int) -> bool:
        """Whether a matrix is due."""
        return any(piece.is_matrix and self._due(piece, step) for piece in self.pieces)

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """L^T G R; a matrix without a basis is unchanged."""
        found = []
        for piece, g in zip(self.pieces, tensors, strict=True):
            left, right = piece.get("left"), piece.get("right")
            h = g if left is None else left.T.to(g) @ g
            found.append(h if right is None else h @ right.to(h))
        return found

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """L Q R^T."""
        found = []
        for piece, q in zip(self.pieces, tensors, strict=True):
            left, right = piece.get("left"), piece.get("right")
            u = q if left is None else left.to(q) @ q
            found.append(u if right is None else u @ right.T.to(u))
        return found

    def _due(self, piece: Piece, step: int) -> bool:
        missing = not _exists((piece.get("left"), piece.get("right")))
        interval = self.options.refresh or self.REFRESH
        return missing or step % interval == self.PHASE % interval


def transported(old: Sides, new: Sides) -> Change:
    """`mv`: m <- A m C, v <- (A * A) v (C * C) with A = L_new^T L_old, C = R_old^T R_new.

    Exact for m; exact for v if the second moments of the rotated gradient are uncorrelated.
    """
    a = None if old[0] is None or new[0] is None else new[0].T @ old[0].to(new[0])
    c = None if old[1] is None or new[1] is None else old[1].to(new[1]).T @ new[1]
    return Change(
        left=a,
        right=c,
        left_squared=None if a is None else a * a,
        right_squared=None if c is None else c * c,
    )


def square_sides(piece: Piece, options: Options, *, left: bool, right: bool) -> tuple[bool, bool]:
    """Which of the requested sides get a square basis: both, or the shorter one if the longer exceeds `max_dim`.

    Raises ValueError if no requested side is short enough.
    """
    a, b = piece.shape
    sides = left and a <= options.max_dim, right and b <= options.max_dim
    if not any(sides):
        raise ValueError(
            f"{options.kind} of {piece.name} {a} x {b}: rotation_max_dim is {options.max_dim}; raise it, or exclude "
            "the parameter with rotation_exclude"
        )
    return sides


def _exists(sides: Sides) -> bool:
    return sides[0] is not None or sides[1] is not None
