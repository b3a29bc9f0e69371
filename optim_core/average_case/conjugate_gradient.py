"""Conjugate gradients: the method with the lowest objective on a quadratic among all in the Krylov space.

    d_0 = -g_0,   d_t = -g_t + beta_t d_{t-1},   beta_t = |g_t|^2 / |g_{t-1}|^2             (Hestenes and Stiefel 1952)
    w_{t+1} = w_t + alpha_t d_t,                 alpha_t = |g_t|^2 / d_t' H d_t

Up to rounding it terminates after as many steps as the Hessian has distinct eigenvalues with a component in the start,
without prior knowledge of the spectrum. Average-case methods are compared with it: on a spectrum with density lambda^xi
(L - lambda)^tau, generalized_chebyshev with alpha = tau, beta = xi + 2 is the same method while there are fewer steps
than eigenvalues.

A step costs two gradients, one at w and one for H d (`products`). Rounding destroys conjugacy: at condition number
kappa it still takes about sqrt(kappa) / 2 log(2 / accuracy) steps, and stalls at the accuracy of the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from optim_core.average_case.products import Differences, epsilon
from optim_core.base import Closure, Counting, Params
from optim_core.declarations import SHARE
from optim_core.fresh import NotFinite, gradients
from optim_core.judging import SKIPPED
from optim_core.registry import register
from optim_core.replay import Draws
from optim_core.sharded import locals_of, whole_sum
from optim_core.two_pass import global_norm

MISMATCHES = ("refuse", "restart")
NOISE = 100
"""Rounding units within which a gradient counts as zero, or a prediction as fulfilled."""


@register("conjugate_gradient")
class ConjugateGradient(Counting):
    """For convex quadratics with the same closure at every step; anything else is refused at the second step.

    Deviations are detected from the gradient, which the previous step predicts as g + alpha H d. `on_mismatch`: refuse
    raises RuntimeError; restart starts again with steepest descent and alpha = |g|^2 / g' H g, which on other losses is
    a method of its own. Directions without positive curvature are refused too; restart does not take such a step
    (`skipped_steps`). `step_scale` in [0, 1] multiplies alpha; below 1 the directions are no longer conjugate.

    Gradients are not clipped. State: two tensors for each parameter, d and the predicted gradient.
    """

    GRAD_EVALS: ClassVar[float] = 2.0
    CHANGEABLE = frozenset({"step_scale"})
    GROUPABLE = frozenset()
    LEARNING_RATE = ""
    BOUNDS: ClassVar = {"step_scale": SHARE}

    def __init__(self, params: Params, *, step_scale: float = 1.0, on_mismatch: str = "refuse") -> None:
        if not 0 <= step_scale <= 1:
            raise ValueError(f"step_scale is {step_scale}; it must lie in [0, 1]")
        if on_mismatch not in MISMATCHES:
            raise ValueError(f"on_mismatch is {on_mismatch!r}; it must be one of {', '.join(MISMATCHES)}")
        super().__init__(params, {"step_scale": step_scale, "on_mismatch": on_mismatch})
        self.param_groups[0].update({"t": 0, "restarts": 0, SKIPPED: 0})
        self.param_groups[0].update(largest_gradient=0.0, largest_curvature=0.0, square=0.0, num_moved=0)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it. If it raises, nothing has moved.

        If the gradient is zero or not finite, it ends after one evaluation. A step reads about six numbers back.
        """
        first = self.param_groups[0]
        draws = Draws(p for group in self.param_groups for p in group["params"])
        loss = self.evaluate_unclipped(closure)
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        g = [x.clone() for x in gradients(params)]
        square = inner(g, g)
        if square == 0:
            return loss
        if not math.isfinite(square) or not math.isfinite(float(loss)):
            raise NotFinite(loss)
        first["largest_gradient"] = max(first["largest_gradient"], math.sqrt(square))
        d = self._direction(params, g, square)
        size = 1 + global_norm(params)
        push = size * (1.0 if first["on_mismatch"] == "refuse" else epsilon(params) ** 0.25)
        curved = Differences(params, g, draws, lambda: self.evaluate_unclipped(closure)).product(d, push)
        torch._foreach_copy_(locals_of(gradients(params)), locals_of(g))
        bend = inner(d, curved)
        if not self._is_convex(bend / inner(d, d), math.sqrt(square), params):
            first[SKIPPED] += 1
            return loss
        first["largest_curvature"] = max(first["largest_curvature"], global_norm(curved) / global_norm(d))
        alpha = -first["step_scale"] * inner(g, d) / bend
        torch._foreach_add_(params, d, alpha=alpha)
        for p, direction, gradient in zip(params, d, torch._foreach_add(g, curved, alpha=alpha), strict=True):
            self.state[p].update(direction=direction, expected_gradient=gradient)
        first.update(t=first["t"] + 1, square=square, num_moved=len(params))
        return loss

    def _direction(self, params: list[Tensor], g: list[Tensor], square: float) -> list[Tensor]:
        """D from the previous one; steepest descent at first, for a changed set of parameters, and after a mismatch."""
        first = self.param_groups[0]
        steepest = list(torch._foreach_neg(g))
        if first["num_moved"] != len(params) or any("direction" not in self.state[p] for p in params):
            return steepest
        missed = global_norm(torch._foreach_sub(g, [self.state[p]["expected_gradient"] for p in params]))
        before = math.sqrt(first["square"])
        if missed > epsilon(params) ** 0.25 * before + self._noise(params):
            if first["on_mismatch"] == "refuse":
                raise RuntimeError(
                    f"conjugate_gradient: at step {first['t']} the gradient differs from the predicted one by "
                    f"{missed / before:.2g} of the last. It is for quadratic losses with the same data at every step; "
                    "use nesterov with restart for others, or on_mismatch: restart"
                )
            first["restarts"] += 1
            return steepest
        d = torch._foreach_add(steepest, [self.state[p]["direction"] for p in params], alpha=square / first["square"])
        return list(d) if inner(g, d) < 0 else steepest

    def _is_convex(self, curvature: float, slope: float, params: list[Tensor]) -> bool:
        """Whether the loss has positive curvature along d, beyond rounding; raises RuntimeError if that is refused.

        Where the gradient itself is rounding noise, at a minimum, nothing is refused: the run just ends there.
        """
        first = self.param_groups[0]
        if curvature > NOISE * epsilon(params) * first["largest_curvature"]:
            return True
        if first["on_mismatch"] == "refuse" and slope > self._noise(params):
            raise RuntimeError(
                f"conjugate_gradient: at step {first['t']} the loss is not a convex quadratic with a minimum. Use "
                "nesterov with restart, or on_mismatch: restart"
            )
        return False

    def _noise(self, params: list[Tensor]) -> float:
        """How large rounding may make a gradient that should be 0."""
        first = self.param_groups[0]
        weights = first["largest_curvature"] * (1 + global_norm(params))
        return float(NOISE * epsilon(params) * (first["largest_gradient"] + weights))


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Inner product over all tensors together, accumulated in float32 at least."""
    wide = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in locals_of(a)]
    return float(whole_sum([(x * y).sum() for x, y in zip(wide, locals_of(b), strict=True)], a))
