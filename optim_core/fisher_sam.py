"""Fisher SAM: ascent within an ellipsoid of the diagonal Fisher information (Kim et al. 2022, arXiv 2206.04920).

    epsilon = sam_radius F g / sqrt(g^T F g),   F = 1 / (1 + fisher_weight g^2) elementwise

the direction that maximizes g^T epsilon subject to epsilon^T F^-1 epsilon <= sam_radius^2, with the squared gradient of
the batch as the diagonal of the Fisher matrix. `fisher_weight` 0 is `sam` bit for bit.

The authors of LLQR+SAM write F = 1 / (g^2 + eta): the same epsilon, for fisher_weight = 1 / eta and sam_radius divided
by sqrt(eta). Their eta 0.1 and radius 0.1 correspond to fisher_weight 10 and sam_radius 0.316 here. Unlike SAM it
depends on the scale of the loss: fisher_weight is in units of 1 / g^2.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Params
from optim_core.declarations import NOT_NEGATIVE, Limit
from optim_core.descent import BASES
from optim_core.ranges import check_not_negative
from optim_core.registry import register
from optim_core.sam import SAM, Parts, Tensors, norm_from_slopes
from optim_core.sharded import locals_of, whole_sum


@register("fisher_sam")
class FisherSAM(SAM):
    """SAM in the metric of the diagonal Fisher matrix; `fisher_weight` >= 0, everything else as for `sam`."""

    SELECTS = True
    CHANGEABLE = SAM.CHANGEABLE | {"fisher_weight"}
    BOUNDS: ClassVar = {**SAM.BOUNDS, "fisher_weight": NOT_NEGATIVE}
    LIMITS = (*SAM.LIMITS, Limit(equals="sam", at={"fisher_weight": 0.0}, where={"base": BASES}))

    def __init__(self, params: Params, *, sam_radius: float = 0.1, fisher_weight: float = 1.0, **of_sam: Any) -> None:
        check_not_negative(fisher_weight=fisher_weight)
        super().__init__(params, sam_radius=sam_radius, **of_sam)
        self.also(fisher_weight=fisher_weight)

    def climb(self, params: Tensors, home: Tensors, grads: Tensors) -> bool:
        """Along d = F g; the squared norm is d . g."""
        if all(group["fisher_weight"] == 0 for group in self.param_groups):
            return super().climb(params, home, grads)
        return self.climb_along(params, home, grads, _metric, _norm)


def _metric(group: dict[str, Any], params: Parts, made: Parts, grads: Parts) -> None:
    torch._foreach_copy_(made, grads)
    torch._foreach_mul_(made, grads)
    torch._foreach_mul_(made, group["fisher_weight"])
    torch._foreach_add_(made, 1)
    torch._foreach_copy_(made, torch._foreach_div(grads, made))


def _norm(made: Tensors, grads: Tensors, params: Tensors, apart: bool) -> Tensor:
    if apart:
        return norm_from_slopes(made, grads, params, apart)
    pairs = zip((d for ds in made for d in ds), locals_of([g for gs in grads for g in gs]), strict=True)
    squares = [(d * g).sum(dtype=torch.float64) for d, g in pairs]
    return whole_sum([s.to(squares[0].device) for s in squares], [p for ps in params for p in ps]).sqrt()
