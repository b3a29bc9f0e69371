"""LookSAM: SAM's second gradient only every `look_interval` steps, with its flat direction reused in between (Liu et
al. 2022).

At step t with gradient g at w (Alg. 1):

    t divisible by k    g_s at w + sam_radius g / |g|;  descend along g_s;  keep g_v = g_s - (g . g_s / |g|^2) g
    otherwise           descend along g + reuse_weight |g| / |g_v| g_v

g_v points to flatter regions and changes slowly. Norms and the inner product are over all tensors together, as in the
published algorithm; the authors published no code. `look_interval` 1 is `sam` bit for bit; with `sam_radius` 0 g_v is 0
and LookSAM is its base.

Cost: 1 + 1 / look_interval gradients per step, and one state tensor per parameter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Closure, Params
from optim_core.combined import Combined
from optim_core.curvature import dot
from optim_core.declarations import COUNT, NOT_NEGATIVE, Limit
from optim_core.descent import BASES
from optim_core.ranges import check_not_negative
from optim_core.registry import register
from optim_core.sam import SAM
from optim_core.two_pass import norm_of


@register("looksam")
class LookSAM(Combined):
    """`look_interval` >= 1 steps between second gradients, `reuse_weight` >= 0 (alpha in the paper)."""

    CHANGEABLE = SAM.CHANGEABLE | {"look_interval", "reuse_weight"}
    BOUNDS: ClassVar = {**SAM.BOUNDS, "look_interval": COUNT, "reuse_weight": NOT_NEGATIVE}
    LIMITS = (
        *(replace(limit, deviation=1e-9) for limit in SAM.LIMITS),  # g_v is rounding then
        Limit(equals="sam", at={"look_interval": 1}, where={"base": BASES}),
    )

    def __init__(self, params: Params, *, look_interval: int = 5, reuse_weight: float = 0.7, **of_sam: Any) -> None:
        check_not_negative(reuse_weight=reuse_weight)
        if int(look_interval) != look_interval or look_interval < 1:
            raise ValueError(f"look_interval is {look_interval}; it must be a whole number, 1 or above")
        super().__init__(params, **of_sam)
        self.also(look_interval=look_interval, reuse_weight=reuse_weight)
        self.param_groups[0]["steps"] = 0

    @classmethod
    def cost_per_step(cls, **hyperparameters: Any) -> float:
        """One, plus a share of the second."""
        return 1.0 + 1.0 / int(hyperparameters.get("look_interval", 5))

    @classmethod
    def steps_within(cls, budget: float, **hyperparameters: Any) -> int:
        """Rounds of look_interval steps, the first of each with two gradients."""
        interval = int(hyperparameters.get("look_interval", 5))
        rounds, left = divmod(budget + 1e-9, interval + 1)
        return int(rounds) * interval + max(0, int(left) - 1)

    def next_cost(self) -> float:
        """Two if the step takes a second gradient, otherwise one."""
        return 2.0 if self.looks else 1.0

    @property
    def looks(self) -> bool:
        """Whether the next step takes a second gradient."""
        first = self.param_groups[0]
        return bool(first["steps"] % first["look_interval"] == 0)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; calls the closure twice if it takes a second gradient, otherwise once. Returns the loss before the
        step.
        """
        if self.looks:
            return super().step(closure)
        loss = self.evaluate(closure)
        self._descend()
        return loss

    @torch.no_grad()
    def first_step(self) -> bool:
        """As `TwoPass.first_step`; takes the whole step, and returns False, if no second gradient is needed."""
        if self.looks:
            return super().first_step()
        self.take_at_once()
        return False

    def combine(self, params: list[list[Tensor]], grads: list[list[Tensor]]) -> list[list[Tensor]]:
        """G_s and a new g_v, or g with the stored g_v."""
        looked = self.looks
        self.param_groups[0]["steps"] += 1
        return self._keep(params, grads) if looked else self._reuse(params, grads)

    def _keep(self, params: list[list[Tensor]], grads: list[list[Tensor]]) -> list[list[Tensor]]:
        seen = [(p, self._first[p], g) for ps, gs in zip(params, grads, strict=True)
                for p, g in zip(ps, gs, strict=True) if p in self._first]  # fmt: skip
        self._first = {}
        plain, second = [f for _, f, _ in seen], [g for _, _, g in seen]
        if self.param_groups[0]["look_interval"] > 1 and seen:
            share = dot(plain, second) / dot(plain, plain).clamp_min(torch.finfo(plain[0].dtype).tiny)
            for p, f, g in seen:
                self.state[p]["flat_direction"] = g - share.to(g.device) * f
        return grads

    def _reuse(self, params: list[list[Tensor]], grads: list[list[Tensor]]) -> list[list[Tensor]]:
        kept = [[self.state[p].get("flat_direction") for p in ps] for ps in params]
        directions = [v for vs in kept for v in vs if v is not None]
        if not directions:
            return grads
        length, slope = norm_of(directions).double(), norm_of([g for gs in grads for g in gs]).double()
        ratio = torch.where(length > 0, slope / length, torch.zeros_like(length))  # on the device, without waiting
        return [
            [
                g if v is None else torch.addcmul(g, v, (group["reuse_weight"] * ratio).to(g))
                for g, v in zip(gs, vs, strict=True)
            ]
            for group, gs, vs in zip(self.param_groups, grads, kept, strict=True)
        ]
