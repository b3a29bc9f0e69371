"""AdamW in a rotated basis (Zhang et al. 2024, arXiv 2410.19964, Alg. 4).

    h = R g;  m <- b1 m + (1 - b1) h;  v <- b2 v + (1 - b2) h h;  q = mhat / (sqrt(vhat) + eps)
    w <- (1 - lr weight_decay) w - lr R^T q

m and v live in the rotated coordinates; decay acts on w and is never rotated. The order of operations is torch's, so
that the identity rotation equals `torch.optim.AdamW` (foreach and fused off) bit for bit. Beyond AdamW a fixed rotation
costs two block products, 4 n d multiplications for d coordinates in blocks of n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from optim_core.base import Closure, Counting, check_not_negative, check_positive, check_share
from optim_core.registry import register
from optim_core.rotations import Rotation, lookup


@register("rotated_adamw")
class RotatedAdamW(Counting):
    """AdamW whose moments live in the basis `rotation` (a kind of `optim_core.rotations`).

    `params` are (name, tensor) pairs: names seed the rotation. `rotation_block` >= 1 is the width of random blocks,
    `rotation_seed` >= 0 their seed, apart from the seed of data and weights. lr, weight_decay >= 0; betas in [0, 1).
    """

    def __init__(
        self,
        params: Iterable[tuple[str, Tensor]],
        *,
        lr: float = 1e-3,
        rotation: str = "identity",
        rotation_block: int = 768,
        rotation_seed: int = 0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        check_not_negative(lr=lr, weight_decay=weight_decay)
        check_share(beta1=beta1, beta2=beta2)
        check_positive(eps=eps, rotation_block=rotation_block)
        kind = lookup(rotation)
        named = list(params)
        if not all(isinstance(item, tuple) and len(item) == 2 for item in named):
            raise TypeError("rotated_adamw takes (name, tensor) pairs, for instance model.named_parameters()")
        defaults = {
            "lr": lr,
            "beta1": beta1,
            "beta2": beta2,
            "eps": eps,
            "weight_decay": weight_decay,
            "rotation": rotation,
            "rotation_block": rotation_block,
            "rotation_seed": rotation_seed,
            "step": 0,
        }
        super().__init__([p for _, p in named], defaults)
        self._kind, self._names = kind, {p: name for name, p in named}
        self._made: tuple[tuple[str, ...], Rotation] | None = None

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Over all named parameters of `model`."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        return cls([(name, p) for name, p in model.named_parameters() if p.requires_grad], **hyperparameters)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Only the one group of the constructor: a rotation may mix tensors, which then share their hyperparameters."""
        if self.param_groups:
            raise ValueError("rotated_adamw has one parameter group; build a second optimizer for the other parameters")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it."""
        loss = self.evaluate(closure)
        group = self.param_groups[0]
        params = [p for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in params]
        turn = self._rotation(params, group)
        rotated = turn.forward(gradients)
        for p in params:
            if "exp_avg" not in self.state[p]:
                self.state[p]["exp_avg"], self.state[p]["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        means = [self.state[p]["exp_avg"] for p in params]
        squares = [self.state[p]["exp_avg_sq"] for p in params]
        group["step"] += 1
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_lerp_(means, rotated, 1 - group["beta1"])
        torch._foreach_mul_(squares, group["beta2"])
        torch._foreach_addcmul_(squares, rotated, rotated, value=1 - group["beta2"])
        size = group["lr"] / (1 - group["beta1"] ** group["step"])
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_div_(denominators, math.sqrt(1 - group["beta2"] ** group["step"]))
        torch._foreach_add_(denominators, group["eps"])
        if group["rotation"] == "identity":
            torch._foreach_addcdiv_(params, means, denominators, value=-size)
        else:
            torch._foreach_add_(params, turn.backward(torch._foreach_div(means, denominators)), alpha=-size)
        return loss

    def _rotation(self, params: list[Tensor], group: dict[str, Any]) -> Rotation:
        """The rotation over the parameters that have gradients, drawn again only when those change."""
        names = tuple(self._names[p] for p in params)
        if self._made is None or self._made[0] != names:
            named = list(zip(names, params, strict=True))
            made = self._kind(named, block=group["rotation_block"], seed=group["rotation_seed"])
            self._made = names, made
        return self._made[1]
