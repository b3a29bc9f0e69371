"""No rotation: the basis of the weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from optim_core.rotations.base import Rotation, rotation


@rotation("identity")
class Identity(Rotation):
    """R = I."""

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors themselves."""
        return list(tensors)

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors themselves."""
        return list(tensors)
