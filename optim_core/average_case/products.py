"""Hessian products from a closure: H v as the difference of two gradients, exact on quadratics up to rounding.

    H v = (g(w + s v) - g(w)) / s,   s |v| = `size`

Rounding of the gradients enters with eps / size, third derivatives of the loss with size. Both gradients are of the
same loss: the second pass draws the same random numbers as the first, for example dropout masks; neither is clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optim_core.fresh import gradients
from optim_core.linalg import Product
from optim_core.replay import Draws
from optim_core.two_pass import Excursion, global_norm


class Differences:
    """Products at the current weights `params`, given their gradients `base` and the random state `draws` from before.

    `evaluate` computes another gradient into `p.grad`. The weights are restored bit for bit, `p.grad` is left to the
    caller.
    """

    def __init__(
        self, params: Sequence[Tensor], base: Sequence[Tensor], draws: Draws, evaluate: Callable[[], object]
    ) -> None:
        self._params, self._base, self._draws, self._evaluate = list(params), list(base), draws, evaluate
        self._away = Excursion()

    def product(self, vector: Sequence[Tensor], size: float) -> list[Tensor]:
        """H v, one tensor per parameter, from a perturbation of norm `size` along v, which is not 0."""
        s = size / global_norm(vector)
        self._away.leave(self._params)
        try:
            torch._foreach_add_(self._params, list(vector), alpha=s)
            with self._draws.again():
                self._evaluate()
            return list(torch._foreach_div(torch._foreach_sub(gradients(self._params), self._base), s))
        finally:
            self._away.back()

    def flat(self, size: float) -> Product:
        """V -> H v on vectors [n] of all coordinates, in float32 at least."""
        dtype, sizes = wide(self._params), [p.numel() for p in self._params]

        def product(v: Tensor) -> Tensor:
            parts = [x.view_as(p).to(p) for x, p in zip(torch.split(v, sizes), self._params, strict=True)]
            return torch.cat([h.flatten().to(dtype) for h in self.product(parts, size)])

        return product


def epsilon(params: Sequence[Tensor]) -> float:
    """The coarsest rounding unit among the dtypes of `params`."""
    return max(torch.finfo(p.dtype).eps for p in params)


def wide(params: Sequence[Tensor]) -> torch.dtype:
    """The dtype that holds every parameter, float32 at least."""
    found = torch.float32
    for p in params:
        found = torch.promote_types(found, p.dtype)
    return found
