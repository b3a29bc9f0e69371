"""LLQR: gradient descent or AdamW on gradients preconditioned by a learned, slowly averaged geometry.

    w <- base(w, U g)                                        (Dufort-Labbe et al. 2026, arXiv 2605.04230)

U is block-diagonal with one block per weight, learned every `refresh_interval` steps by `relaxation` and averaged by
`geometry`; the momentum or moments of the base come after U, weight decay is applied outside it.

Cost: a refresh is charged `llqr_settings.refresh_cost`, 22 gradient evaluations at the default 10 inner steps, 11% of
a step at the default interval of 200. `grad_evals` counts passes over batches, not the algebra of U, which shows in
seconds: for a dense structure 2 to 4 m n (m + n) FLOPs per step for each weight [m, n], and about three times that per
inner step, against 6 m n T for the gradient of T samples or tokens. That is little for a convolution (a refresh on the
8 x 8 ResNet takes the CPU time of 21 gradients with a diagonal U, 30 with E-Kronecker), but much for a wide layer and a
small batch (width 256, batch 64: a step takes as long as 4 gradients, a refresh 150): lower `factor_limit` or use
`diagonal` there.

State: the factors of U, in float32 or wider, and numbers in the first parameter group: `steps`, `refreshes`,
`discarded_refreshes`, `refresh_step` (of the newest, -1 before one), `drawn` (batches), `frozen`, and
`objective_before` and `objective_after` of the newest refresh.

bfloat16 weights and autocast work; with a GradScaler call `unscale_` and `update` in the closure.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optim_core import llqr_settings as settings
from optim_core.base import Closure, Params
from optim_core.declarations import FROZEN_PRECONDITIONER, Limit
from optim_core.descent import BASES, descend
from optim_core.fresh import gradients
from optim_core.geometry import LearnedGeometry
from optim_core.ranges import choice
from optim_core.registry import register
from optim_core.selection import multiply_unless
from optim_core.two_pass import with_gradient


@register("llqr")
class LLQR(LearnedGeometry):
    """SGD or AdamW (`base`) on U g, or U on the step of the base.

    A hyperparameter that is None has the value of the `preset`: default, paper or code (`llqr_settings.PRESETS`).

    structure            of U, a name in `optim_core.preconditioners`; factor_limit: longest side with a dense factor
    metric               ngd (Gauss-Newton, Fisher) or newton
    metric_scale         normalised, mean or sum; curvature_scale > 0 multiplies the curvature; damping >= 0
    refresh_interval     optimizer steps between refreshes, 1 or above
    first_refresh        step of the first, 0 or above; -1: 0, or after 20 steps where layers have running statistics
    ema_rate             share of the newest solution in [0, 1]; 0 is the base optimizer and refreshes nothing
    first_refresh_full   take the first solution whole
    inner_steps, inner_lr, inner_momentum, inner_clip    of the inner descent; n_grads: batches it cycles through
    warm_start           begin at the present U, else at the identity
    floor, ceiling       bounds of a diagonal U; with `positive` also of the diagonal inside a structured U
    decrease_check       discard a refresh that did not lower J
    action_dtype         auto: U v as precise as U; bfloat16: its matrix products in bfloat16, off by half a percent or
                         so, which takes half of their time where the machine has units for it
    apply_to             gradient, or update: U acts on the step of the base, and weight decay is decoupled
    """

    SELECTS = True
    LIMITS = tuple(
        Limit(
            equals="{base}",
            at={"ema_rate": 0.0},
            where={"apply_to": (apply_to,), "base": bases},
            probe={"refresh_interval": 4, "first_refresh_full": False},
            control=FROZEN_PRECONDITIONER,
        )
        for apply_to, bases in (("gradient", BASES), ("update", ("adamw",)))  # an update's decay is decoupled
    )

    def __init__(self, params: Params, *, apply_to: str = "gradient", **of_geometry: Any) -> None:
        choice("apply_to", apply_to, settings.APPLY_TO)
        super().__init__(params, {"apply_to": apply_to}, **of_geometry)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; refreshes U first if that is due. Returns the loss before the step."""
        loss = self.evaluate(closure)
        self.begin_step()
        for group in self.param_groups:
            params = with_gradient(group)
            grads = gradients(params)
            if group["apply_to"] == "gradient":
                descend(group, params, self.precondition(group, params, grads), self.state, skipped=self._skipped)
            elif params:
                self._precondition_update(group, params, grads)
        return loss

    def _precondition_update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """W <- (1 - lr weight_decay) w + U d, with d the step that the base would take from zero without decay."""
        if not self.refreshes and group["base"] == "adamw":
            descend(group, params, grads, self.state, skipped=self._skipped)
            return
        plain, decay = {**group, "weight_decay": 0.0}, 1 - group["lr"] * group["weight_decay"]
        if not self.refreshes:
            multiply_unless(self._skipped, params, decay)
            descend(plain, params, grads, self.state, skipped=self._skipped)
            return
        steps = [torch.empty_like(p) for p in params]
        torch._foreach_zero_(steps)
        descend(
            plain, steps, grads, {d: self.state[p] for d, p in zip(steps, params, strict=True)}, skipped=self._skipped
        )
        multiply_unless(self._skipped, params, decay)
        torch._foreach_add_(params, self.precondition(group, params, steps))
