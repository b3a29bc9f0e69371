"""Random rotations of one side of a weight matrix G [out, in].

    output:  G -> G K^T, mixes the entries of one output neuron (a row)
    input:   G -> L G,   mixes the entries of one input neuron (a column)
    both:    G -> L G K^T, that is (L kron K) of the row-major vector

(arXiv 2410.19964, section 3.1; `both` is ours.) Vectors have no second side and are unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from optim_core.rotations.base import Options, Piece, Rotation, rotation
from optim_core.rotations.haar import BlockRotation

Maps = tuple[BlockRotation | None, BlockRotation | None]


class Sided(Rotation):
    """Haar rotations, in blocks of `rotation_block`, of the sides named by a subclass."""

    VECTORS: ClassVar[bool] = False
    ROWS: ClassVar[bool] = False
    COLUMNS: ClassVar[bool] = False

    def __init__(self, pieces: Sequence[Piece], options: Options) -> None:
        super().__init__(pieces, options)
        self._maps = [self._pair(p) for p in self.pieces]

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """L G K^T of each matrix, for the sides that this kind rotates."""
        return [_forward(t, m) for t, m in zip(tensors, self._maps, strict=True)]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """L^T Q K of each matrix."""
        return [_backward(t, m) for t, m in zip(tensors, self._maps, strict=True)]

    def _pair(self, p: Piece) -> Maps:
        def side(axis: int, name: str) -> BlockRotation:
            return BlockRotation(p.shape[axis], self.options.block, key=self.options.key, name=f"{p.name}/{name}")

        left = side(0, "out") if self.COLUMNS and p.is_matrix else None
        right = side(1, "in") if self.ROWS and p.is_matrix else None
        return left, right


def _forward(g: Tensor, maps: Maps) -> Tensor:
    left, right = maps
    if right is not None:
        g = right.forward_rows(g)
    return g if left is None else left.forward(g)


def _backward(q: Tensor, maps: Maps) -> Tensor:
    left, right = maps
    if left is not None:
        q = left.backward(q)
    return q if right is None else right.backward_rows(q)


@rotation("output")
class Output(Sided):
    """Mixes entries inside one row."""

    ROWS: ClassVar[bool] = True


@rotation("input")
class Input(Sided):
    """Mixes entries inside one column."""

    COLUMNS: ClassVar[bool] = True


@rotation("both")
class Both(Sided):
    """Both sides: the Kronecker product of the two."""

    ROWS: ClassVar[bool] = True
    COLUMNS: ClassVar[bool] = True
