"""A rotation of adjustable strength: random disjoint pairs of coordinates, all rotated by one angle.

    (x_i, x_j) -> (c x_i - s x_j,  s x_i + c x_j),   i < j,   c = cos(angle), s = sin(angle)

Angle 0 is the identity, pi/4 mixes most: a continuous axis for sweeps. With an odd number of coordinates one is left
out. Computed as c x + s sign x[partner]: one gather each way. Memory d integers and d one-byte signs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optim_core.rotations.base import FlatMap, rotation, stretches
from optim_core.rotations.flat import Flat
from optim_core.rotations.haar import gathered, permutation


class Pairs(FlatMap):
    """Rotates pairs of coordinates of a vector [d] by `angle`, in radians."""

    def __init__(self, d: int, angle: float, *, key: str) -> None:
        super().__init__()
        order, half = permutation(d, "pairs", key), d // 2
        first, second = order[:half].long(), order[half : 2 * half].long()
        self._angle, self._partner = angle, torch.arange(d, dtype=order.dtype, device="cpu")
        self._partner[first], self._partner[second] = order[half : 2 * half], order[:half]
        own = torch.arange(d, device="cpu")
        self._signs = (own > self._partner).to(torch.int8) - (own < self._partner).to(torch.int8)
        self._alone = order[2 * half :].long()

    def forward(self, x: Tensor) -> Tensor:
        """Rotate by the angle."""
        return self._turn(x, math.sin(self._angle))

    def backward(self, x: Tensor) -> Tensor:
        """Rotate back."""
        return self._turn(x, -math.sin(self._angle))

    def _turn(self, x: Tensor, sine: float) -> Tensor:
        self.follow(x)
        y = torch.empty_like(x)
        for where in stretches(len(x), 1, x.device):
            crossed = gathered(x, self._partner[where]).mul_(self._signs[where])
            torch.add(x[where] * math.cos(self._angle), crossed, alpha=sine, out=y[where])
        y[self._alone] = x[self._alone]
        return y


@rotation("givens")
class Givens(Flat):
    """All coordinates in random pairs, rotated by `rotation_angle`."""

    def make(self, d: int) -> FlatMap:
        """As many pairs as d // 2."""
        return Pairs(d, self.options.angle, key=self.options.key)
