"""Rotations of one side of a weight matrix G [out, in]; convolutions are seen as (out, in * height * width).

    output:  G -> G K^T, mixes what enters one output neuron (a row)
    input:   G -> L G,   mixes what leaves one input neuron (a column)
    both:    G -> L G K^T                                       (arXiv 2410.19964, section 3.1; `both` is ours)

Vectors (biases, norms) have no second side and stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from optim_core.rotations.base import Rotation, rotation
from optim_core.rotations.haar import BlockRotation


class _Sided(Rotation):
    rows, columns = False, False

    def __init__(self, params: Sequence[tuple[str, Tensor]], *, block: int, seed: int) -> None:
        super().__init__(params, block=block, seed=seed)
        self._maps = [self._pair(name, p) for name, p in self.params]

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """L G K^T of each matrix, with the sides that this kind rotates."""
        return [self._apply(t, m, backward=False) for t, m in zip(tensors, self._maps, strict=True)]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """L^T Q K of each matrix."""
        return [self._apply(t, m, backward=True) for t, m in zip(tensors, self._maps, strict=True)]

    def _pair(self, name: str, p: Tensor) -> tuple[BlockRotation | None, BlockRotation | None]:
        if p.ndim < 2:
            return None, None
        rows, columns = p.shape[0], p[0].numel()
        left = BlockRotation(rows, self.block, seed=self.seed, name=f"{name}/out") if self.columns else None
        right = BlockRotation(columns, self.block, seed=self.seed, name=f"{name}/in") if self.rows else None
        return left, right

    def _apply(self, t: Tensor, maps: tuple[BlockRotation | None, BlockRotation | None], *, backward: bool) -> Tensor:
        left, right = maps
        if left is None and right is None:
            return t
        g = t.reshape(t.shape[0], -1)
        if right is not None:
            g = right.backward(g) if backward else right.forward(g)
        if left is not None:
            g = (left.backward(g.T) if backward else left.forward(g.T)).T
        return g.reshape(t.shape)


@rotation("output")
class Output(_Sided):
    """Mixes entries inside one row."""

    rows = True


@rotation("input")
class Input(_Sided):
    """Mixes entries inside one column."""

    columns = True


@rotation("both")
class Both(_Sided):
    """Both sides: the Kronecker product of the two."""

    rows, columns = True, True
