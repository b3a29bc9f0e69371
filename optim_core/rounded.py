"""AdamW with moments in bfloat16, stochastically rounded so that their expectation is exact.

Rounded to nearest, an average with beta2 = 0.999 stalls: its updates are smaller than half a unit in the last of the
eight bits. Rounding up with probability (x - below) / (above - below), and down otherwise, is unbiased:

    E[round(x)] = x          (Connolly, Higham and Mary 2021, SIAM J. Sci. Comput. 43)

Arithmetic is in float32, or the wider dtype of the weights; random bits depend only on the step number and the tensor,
so a resumed run draws the same. Halves the memory of the moments, at the cost of one pass of random bits each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optim_core.eager import eager
from optim_core.fresh import gradients
from optim_core.probes import bits
from optim_core.sharded import locals_of

STATE_DTYPES = ("auto", "bfloat16")
ROUNDS = "rounds"


def round_at_random(x: Tensor, noise: Tensor) -> Tensor:
    """X, in float32 or float64, to bfloat16, using `noise`: uniform 16-bit integers. [*shape] -> [*shape]"""
    wide = x.to(torch.float32).view(torch.int32)
    return (wide + noise).bitwise_and_(-(1 << 16)).view(torch.float32).to(torch.bfloat16)


def widened_moments(moments: Sequence[Tensor], like: Sequence[Tensor]) -> list[Tensor]:
    """Moments in float32, or in the dtype of their parameters if that is wider."""
    return [m.to(torch.promote_types(p.dtype, torch.float32)) for m, p in zip(moments, like, strict=True)]


def keep(moments: Sequence[Tensor], values: Sequence[Tensor], *place: int) -> None:
    """Write values into moments with stochastic rounding."""
    for i, (moment, value) in enumerate(zip(locals_of(moments), locals_of(values), strict=True)):
        moment.copy_(round_at_random(value, bits(value.shape, value, *place, i)))


class RoundedAdamW(torch.optim.AdamW):
    """torch's AdamW, or in groups with `state_dtype` bfloat16 the same steps from rounded moments."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step along `p.grad`."""
        everything = self.param_groups
        narrow = [g for g in everything if g.get("state_dtype", "auto") == "bfloat16"]
        if len(narrow) < len(everything):
            try:
                self.param_groups = [g for g in everything if g.get("state_dtype", "auto") == "auto"]
                eager(super().step)()
            finally:
                self.param_groups = everything
        for number, group in enumerate(everything):
            if group.get("state_dtype", "auto") == "bfloat16":
                self._step_narrow(number, group)

    def _step_narrow(self, number: int, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        for p in params:
            own = self.state[p]
            if "exp_avg" not in own:
                own["step"] = 0
                own["exp_avg"] = torch.zeros_like(p, dtype=torch.bfloat16)
                own["exp_avg_sq"] = torch.zeros_like(p, dtype=torch.bfloat16)
            own["step"] = int(own["step"]) + 1  # torch converts it to a tensor when loading
        group[ROUNDS] = group.get(ROUNDS, 0) + 1
        (beta1, beta2), lr = group["betas"], group["lr"]
        kept = [[self.state[p][key] for p in params] for key in ("exp_avg", "exp_avg_sq")]
        means, squares = (widened_moments(moments, params) for moments in kept)
        grads = widened_moments(gradients(params), params)
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        steps = [self.state[p]["step"] for p in params]
        sizes = torch._foreach_sqrt(squares)
        torch._foreach_div_(sizes, [(1 - beta2**t) ** 0.5 for t in steps])
        torch._foreach_add_(sizes, group["eps"])
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        moves = torch._foreach_div(means, sizes)
        torch._foreach_mul_(moves, [-lr / (1 - beta1**t) for t in steps])
        torch._foreach_add_(params, [m.to(p.dtype) for m, p in zip(moves, params, strict=True)])
        for which, (moments, values) in enumerate(zip(kept, (means, squares), strict=True)):
            keep(moments, values, number, group[ROUNDS], which)
