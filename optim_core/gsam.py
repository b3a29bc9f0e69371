"""GSAM: SAM that also reduces the gap between the perturbed and the plain loss (Zhuang et al. 2022, Alg. 1).

With g the gradient at w and g2 the one at w + epsilon, SAM's epsilon, the base descends along

    g2 - gap_weight g_perp,    g_perp = g - (g . g2 / |g2|^2) g2

Moving along g_perp, orthogonal to g2, raises the plain loss without changing the perturbed one to first order: the gap
between them shrinks. One inner product and one norm over all tensors. `gap_weight` (alpha in the paper) 0 is `sam` bit
for bit. The authors let the radius follow the learning rate; give `sam_radius` a schedule for that.

Cost: as SAM, plus one more gradient kept through the second pass.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Params
from optim_core.combined import Combined
from optim_core.curvature import dot
from optim_core.declarations import NOT_NEGATIVE, Limit
from optim_core.descent import BASES
from optim_core.ranges import check_not_negative
from optim_core.registry import register
from optim_core.sam import SAM
from optim_core.selection import alike


@register("gsam")
class GSAM(Combined):
    """`sam` with a share of the plain gradient subtracted; `gap_weight` >= 0."""

    SELECTS = True
    CHANGEABLE = SAM.CHANGEABLE | {"gap_weight"}
    BOUNDS: ClassVar = {**SAM.BOUNDS, "gap_weight": NOT_NEGATIVE}
    LIMITS = (
        *(replace(limit, deviation=1e-9) for limit in SAM.LIMITS),  # the rest of g is only rounding
        Limit(equals="sam", at={"gap_weight": 0.0}, where={"base": BASES}),
    )

    def __init__(self, params: Params, *, gap_weight: float = 0.4, **of_sam: Any) -> None:
        check_not_negative(gap_weight=gap_weight)
        super().__init__(params, **of_sam)
        self.also(gap_weight=gap_weight)

    def combine(self, params: list[list[Tensor]], grads: list[list[Tensor]]) -> list[list[Tensor]]:
        """G2 - gap_weight g_perp; a parameter without a first gradient counts with zero there."""
        first = [[self._first.get(p) for p in ps] for ps in params]
        self._first = {}
        if all(group["gap_weight"] == 0 for group in self.param_groups):
            return grads
        plain = [
            [torch.zeros_like(g) if f is None else f for f, g in zip(fs, gs, strict=True)]
            for fs, gs in zip(first, grads, strict=True)
        ]
        flat, flat2 = [g for gs in plain for g in gs], [g for gs in grads for g in gs]
        share = dot(flat, flat2) / dot(flat2, flat2).clamp_min(torch.finfo(flat2[0].dtype).tiny)
        return [
            self._without(g["gap_weight"], fs, gs, share)
            for g, fs, gs in zip(self.param_groups, plain, grads, strict=True)
        ]

    @staticmethod
    def _without(weight: float, first: list[Tensor], grads: list[Tensor], share: Tensor) -> list[Tensor]:
        """G2 - weight (g - share g2)."""
        found = list(grads)
        for device, dtype, places in alike(grads):
            gs = [grads[i] for i in places]
            gaps = torch._foreach_sub([first[i] for i in places], torch._foreach_mul(gs, share.to(device, dtype)))
            torch._foreach_mul_(gaps, weight)
            for i, made in zip(places, torch._foreach_sub(gs, gaps), strict=True):
                found[i] = made
        return found
