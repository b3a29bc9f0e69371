"""Rotations of flattened coordinates: all parameters together (`global`) or each tensor by itself (`layer`).

Biases and norms are rotated too (arXiv 2410.19964, section 3.1 and appendix A).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from optim_core.rotations.base import Rotation, rotation
from optim_core.rotations.haar import BlockRotation


@rotation("global")
class Global(Rotation):
    """One block-permuted Haar rotation over all coordinates."""

    def __init__(self, params: Sequence[tuple[str, Tensor]], *, block: int, seed: int) -> None:
        super().__init__(params, block=block, seed=seed)
        self._sizes = [p.numel() for _, p in self.params]
        self._map = BlockRotation(sum(self._sizes), block, seed=seed, name="global")

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R applied to all tensors laid end to end."""
        return self._split(self._map.forward(self._join(tensors)))

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R^T applied to all tensors laid end to end."""
        return self._split(self._map.backward(self._join(tensors)))

    def _join(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([t.reshape(-1) for t in tensors])

    def _split(self, flat: Tensor) -> list[Tensor]:
        return [x.view_as(p) for x, (_, p) in zip(torch.split(flat, self._sizes), self.params, strict=True)]


@rotation("layer")
class Layer(Rotation):
    """An independent block-permuted Haar rotation inside each tensor; the block matrix is shared."""

    def __init__(self, params: Sequence[tuple[str, Tensor]], *, block: int, seed: int) -> None:
        super().__init__(params, block=block, seed=seed)
        self._maps = [BlockRotation(p.numel(), block, seed=seed, name=name) for name, p in self.params]

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R of each tensor."""
        return [m.forward(t.reshape(-1)).view_as(t) for m, t in zip(self._maps, tensors, strict=True)]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """R^T of each tensor."""
        return [m.backward(t.reshape(-1)).view_as(t) for m, t in zip(self._maps, tensors, strict=True)]
