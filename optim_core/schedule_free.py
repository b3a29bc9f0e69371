"""Schedule-free SGD and AdamW: an average of the iterates instead of a decaying learning rate (Defazio et al. 2024).

    y = (1 - momentum) z + momentum x        where gradients are taken; what the parameters hold while training
    z <- z - lr (d + weight_decay y)         d = g (sgd) or g / (sqrt(vhat) + eps) (adamw)
    x <- (1 - c) x + c z                     what is evaluated; c = w_t / sum w,  w_t = t^average_power max(lr)^2

Only y and z are stored; x follows from them. `eval()` puts x into the parameters and `train()` y, which
`judged_weights` does around an evaluation, so trials need nothing else; other loops call them, and may save in either
mode. After one step x is z: the base's first step without momentum. Agrees with the authors' code step by step
(`tests/golden/agreement/vectors`), whose package is not needed.

BatchNorm's running statistics belong to y; the authors recommend recomputing them at x before evaluating.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Closure, Counting, Params
from optim_core.declarations import NOT_NEGATIVE, SHARE, Limit
from optim_core.descent import BASES
from optim_core.fresh import gradients
from optim_core.ranges import check_positive, check_ranges, choice
from optim_core.registry import register
from optim_core.two_pass import with_gradient


@register("schedule_free")
class ScheduleFree(Counting):
    """`base` sgd or adamw; `momentum` in (0, 1) interpolates between z and x (AdamW's beta1 in the authors' code).

    The learning rate rises linearly over `warmup_steps` and then stays constant: use a recipe without a decaying
    schedule. `average_power` >= 0 gives later iterates more weight. `beta2` and `eps` belong to adamw.
    """

    CHANGEABLE = frozenset({"lr", "weight_decay", "beta2", "eps"})
    BOUNDS: ClassVar = {
        "momentum": SHARE, "weight_decay": NOT_NEGATIVE, "beta2": SHARE, "warmup_steps": NOT_NEGATIVE,
        "average_power": NOT_NEGATIVE,
    }  # fmt: skip
    LIMITS = tuple(
        Limit(  # then y is z; the average is evaluated all the same
            equals=base,
            at={"momentum": 1e-12},
            where={"base": (base,)},
            other=plain,
            deviation=1e-9,
            nested=False,
        )
        for base, plain in (("sgd", {"momentum": 0.0, "nesterov": False}), ("adamw", {"beta1": 0.0}))
    )
    check_values = staticmethod(check_ranges)

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 1.0,
        base: str = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        beta2: float = 0.999,
        eps: float = 1e-8,
        warmup_steps: int = 0,
        average_power: float = 0.0,
    ) -> None:
        choice("base", base, BASES)
        check_positive(momentum=momentum)
        check_ranges(lr=lr, momentum=momentum, weight_decay=weight_decay, beta2=beta2, eps=eps,
                     warmup_steps=warmup_steps, average_power=average_power)  # fmt: skip
        defaults = {
            "lr": lr, "base": base, "momentum": momentum, "weight_decay": weight_decay, "beta2": beta2, "eps": eps,
            "warmup_steps": warmup_steps, "average_power": average_power,
            "steps": 0, "weight_sum": 0.0, "highest_lr": 0.0, "training": True,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step from y; returns the loss there. Raises RuntimeError between `eval()` and `train()`."""
        if not all(group["training"] for group in self.param_groups):
            raise RuntimeError("the parameters hold the average for evaluation; call train() before step")
        loss = self.evaluate(closure)
        for group in self.param_groups:
            self._move(group)
        return loss

    @torch.no_grad()
    def eval(self) -> None:
        """Replace y by the average x; a no-op if it is already there."""
        self._interpolate(training=False)

    @torch.no_grad()
    def train(self) -> None:
        """Replace x by y, up to rounding; a no-op if it is already there."""
        self._interpolate(training=True)

    def _interpolate(self, *, training: bool) -> None:
        for group in self.param_groups:
            if group["training"] is training:
                continue
            group["training"] = training
            share = 1 - group["momentum"] if training else 1 - 1 / group["momentum"]
            for p in group["params"]:
                if "base_point" in self.state[p]:
                    p.lerp_(self.state[p]["base_point"], share)

    def _move(self, group: dict[str, Any]) -> None:
        params = with_gradient(group)
        lr = group["lr"] * min(1.0, (group["steps"] + 1) / max(group["warmup_steps"], 1))
        group["steps"] += 1
        group["highest_lr"] = max(group["highest_lr"], lr)
        weight = group["steps"] ** group["average_power"] * group["highest_lr"] ** 2
        group["weight_sum"] += weight
        c = weight / group["weight_sum"] if group["weight_sum"] else 0.0
        if not params:
            return
        for p in params:
            if "base_point" not in self.state[p]:
                self.state[p]["base_point"] = p.clone()
        points = [self.state[p]["base_point"] for p in params]
        directions = self._directions(group, params)
        if group["weight_decay"]:
            directions = list(torch._foreach_add(directions, params, alpha=group["weight_decay"]))
        torch._foreach_lerp_(params, points, c)
        torch._foreach_add_(params, directions, alpha=lr * (group["momentum"] * (1 - c) - 1))
        torch._foreach_add_(points, directions, alpha=-lr)

    def _directions(self, group: dict[str, Any], params: list[Tensor]) -> list[Tensor]:
        """The gradients, for adamw divided by their root mean square; p.grad is not written to."""
        grads = gradients(params)
        if group["base"] == "sgd":
            return grads
        for p in params:
            if "exp_avg_sq" not in self.state[p]:
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        squares = [self.state[p]["exp_avg_sq"] for p in params]
        torch._foreach_mul_(squares, group["beta2"])
        torch._foreach_addcmul_(squares, grads, grads, value=1 - group["beta2"])
        sizes = torch._foreach_div(squares, 1 - group["beta2"] ** group["steps"])
        torch._foreach_sqrt_(sizes)
        torch._foreach_add_(sizes, group["eps"])
        return list(torch._foreach_div(grads, sizes))
