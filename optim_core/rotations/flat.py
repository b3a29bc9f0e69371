"""Random rotations of flattened coordinates: all pieces together (`global`) or each separately (`layer`).

Biases and norms are rotated too (arXiv 2410.19964, section 3.1 and appendix A).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from optim_core.rotations.base import FlatMap, Options, Piece, Rotation, rotation
from optim_core.rotations.haar import BlockRotation


class Flat(Rotation):
    """One map over the concatenated coordinates of all pieces; subclasses choose it."""

    MIXES: ClassVar[bool] = True

    def __init__(self, pieces: Sequence[Piece], options: Options) -> None:
        super().__init__(pieces, options)
        self._sizes = [p.size for p in self.pieces]
        self.map = self.make(sum(self._sizes)) if self._sizes else FlatMap()

    def make(self, d: int) -> FlatMap:
        """The map of d >= 1 coordinates."""
        raise RuntimeError(f"{type(self).__name__} has no make()")

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R applied to the concatenation of all tensors."""
        return self._split(self.map.forward(self._join(tensors)))

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R^T applied to the concatenation of all tensors."""
        return self._split(self.map.backward(self._join(tensors)))

    def _join(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([t.reshape(-1) for t in tensors])

    def _split(self, flat: Tensor) -> list[Tensor]:
        return [x.view(p.shape) for x, p in zip(torch.split(flat, self._sizes), self.pieces, strict=True)]


@rotation("global")
class Global(Flat):
    """One block-permuted Haar rotation over all coordinates. Memory n^2 + d, 2 n d multiplications each way."""

    def make(self, d: int) -> FlatMap:
        """Blocks of `rotation_block`."""
        return BlockRotation(d, self.options.block, key=self.options.key, name="global")


@rotation("layer")
class Layer(Rotation):
    """An independent block-permuted Haar rotation inside each piece; the block matrix is shared."""

    def __init__(self, pieces: Sequence[Piece], options: Options) -> None:
        super().__init__(pieces, options)
        self._maps = [BlockRotation(p.size, options.block, key=options.key, name=p.name) for p in self.pieces]

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R of each tensor."""
        return [m.forward(t.reshape(-1)).view(t.shape) for m, t in zip(self._maps, tensors, strict=True)]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R^T of each tensor."""
        return [m.backward(t.reshape(-1)).view(t.shape) for m, t in zip(self._maps, tensors, strict=True)]
