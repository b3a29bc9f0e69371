"""A rotation of adjustable strength: random disjoint pairs of coordinates, all turned by one angle.

    (x_i, x_j) -> (c x_i - s x_j,  s x_i + c x_j),   c = cos(angle), s = sin(angle)

Angle 0 is the identity, pi/4 mixes most: a continuous axis for sweeps. With an odd number of coordinates one stays.
Memory d integers, 6 d operations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optim_core.rotations.base import FlatMap, rotation
from optim_core.rotations.flat import Flat
from optim_core.rotations.haar import Order


class Pairs(FlatMap):
    """Turns pairs of coordinates of a vector [d] by `angle`, in radians."""

    def __init__(self, d: int, angle: float, *, key: str) -> None:
        super().__init__()
        self._order, self._angle, self._half = Order(d, "pairs", key), angle, d // 2

    def forward(self, x: Tensor) -> Tensor:
        """Turn by the angle."""
        return self._turn(x, math.cos(self._angle), math.sin(self._angle))

    def backward(self, x: Tensor) -> Tensor:
        """Turn back."""
        return self._turn(x, math.cos(self._angle), -math.sin(self._angle))

    def _turn(self, x: Tensor, c: float, s: float) -> Tensor:
        self._order.to(x.device)
        a, b, rest = torch.split(
            x.index_select(0, self._order.there), [self._half, self._half, len(x) - 2 * self._half]
        )
        turned = torch.cat([torch.sub(c * a, b, alpha=s), torch.add(c * b, a, alpha=s), rest])
        return turned.index_select(0, self._order.back)


@rotation("givens")
class Givens(Flat):
    """All coordinates in random pairs, turned by `rotation_angle`."""

    def make(self, d: int) -> FlatMap:
        """As many pairs as d // 2."""
        return Pairs(d, self.options.angle, key=self.options.key)
