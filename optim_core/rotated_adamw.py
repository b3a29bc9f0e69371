"""AdamW in a rotated basis (Zhang et al. 2024, arXiv 2410.19964, Alg. 4).

    h = R g;  m <- b1 m + (1 - b1) h;  v <- b2 v + (1 - b2) h h;  q = mhat / (sqrt(vhat) + eps)
    w <- (1 - lr weight_decay) w - lr R^T q

m and v are kept in the rotated coordinates, in float32 at least; decay acts on w and is never rotated. The order of
operations is torch's, so that the identity rotation equals `torch.optim.AdamW` (foreach and fused off) bit for bit.
Compared with AdamW, a step additionally costs the two maps, see the kinds in `optim_core.rotations`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from optim_core.base import Closure, Params
from optim_core.baselines import AdamW, Betas, check_adam
from optim_core.kernels import all_stored_like, refuse_sparse
from optim_core.ranges import choice
from optim_core.registry import register
from optim_core.rotations import Options
from optim_core.rotations.space import Space
from optim_core.rounded import STATE_DTYPES, keep, widened_moments
from optim_core.selection import alike, multiply_unless
from optim_core.turned import Turned, limits_under_rotation


@register("rotated_adamw")
class RotatedAdamW(Betas, Turned):
    """AdamW with moments in the basis `rotation` (a kind of `optim_core.rotations`).

    `params` are (name, tensor) pairs, or groups of them (one group for kinds that mix tensors). The `rotation_...`
    hyperparameters are explained in `optim_core.rotations.Options`; a kind ignores those of other kinds. lr,
    weight_decay >= 0; betas in [0, 1); eps > 0. state_dtype: `auto`, or `bfloat16` for stochastically rounded moments
    (see `optim_core.rounded`).
    """

    SELECTS = True
    CHANGEABLE = AdamW.CHANGEABLE | Turned.CHANGEABLE
    BOUNDS: ClassVar = {**AdamW.BOUNDS, **Turned.BOUNDS}
    LIMITS = limits_under_rotation("adamw", AdamW, deviation=1e-12)

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 1e-3,
        rotation: str = "identity",
        rotation_block: int = 768,
        rotation_seed: int = 0,
        rotation_refresh: int = 0,
        rotation_update: str = "auto",
        rotation_transport: str = "carry",
        rotation_ema: float = 0.95,
        rotation_rank: int = 128,
        rotation_rounds: int = 2,
        rotation_angle: float = math.pi / 4,
        rotation_samples: int = 32,
        rotation_max_dim: int = 4096,
        rotation_include: str = "*",
        rotation_exclude: str = "",
        embedding_transpose: bool = True,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        state_dtype: str = "auto",
        model: nn.Module | None = None,
        run_seed: int = 0,
    ) -> None:
        given = self.checked(locals(), paired=True)
        groups: Iterable[Any] = list(params)
        super().__init__(groups, given)
        self.open_spaces(model)

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        check_adam(**values)
        choice("state_dtype", values.get("state_dtype", "auto"), STATE_DTYPES)
        Options.of(values)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it."""
        loss = self.evaluate(closure)
        refuse_sparse(self.param_groups)
        with self.whole_layers():
            for index, group in enumerate(self.param_groups):
                space, params, rotated = self.enter(index, closure)
                if not params:
                    continue
                if self._skipped is None:
                    self._descend(group, space, params, rotated)
                else:
                    self._descend_unless(self._skipped, index, space, params, rotated)
                self.leave(index, space, params)
        return loss

    def must_know(self) -> bool:
        """Also if moments are rounded stochastically, since that depends on the step number."""
        return super().must_know() or any(g.get("state_dtype", "auto") != "auto" for g in self.param_groups)

    def _descend_unless(
        self, skipped: Tensor, index: int, space: Space, params: list[Tensor], rotated: list[Tensor]
    ) -> None:
        """The same if the device decides: moves are 0 if the step is skipped."""
        group = self.param_groups[index]
        self.counted(index, "step")
        means, squares = self._moments(params, rotated)
        rotated[:] = all_stored_like(rotated, means)
        moves = _moves(group, rotated, means, squares, skipped, self._late.of(index, "step", skipped))
        moves = (
            [m.to(p.dtype) for m, p in zip(moves, params, strict=True)] if space.is_identity else space.backward(moves)
        )
        multiply_unless(skipped, params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, moves)

    def _descend(self, group: dict[str, Any], space: Space, params: list[Tensor], rotated: list[Tensor]) -> None:
        if not space.is_identity:
            rotated[:] = [h.contiguous() for h in rotated]
        kept = self._moments(params, rotated)
        narrow = group.get("state_dtype", "auto") == "bfloat16"
        means, squares = (widened_moments(m, rotated) for m in kept) if narrow else kept
        group["step"] += 1
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        if space.is_identity:
            _as_torch(group, params, rotated, means, squares)
        else:
            moves = _moves(group, rotated, means, squares)
            rotated.clear()  # reuse its memory for the inverse map
            torch._foreach_add_(params, space.backward(moves))
        if narrow:
            number = next(i for i, g in enumerate(self.param_groups) if g is group)
            for which, (moments, values) in enumerate(zip(kept, (means, squares), strict=True)):
                keep(moments, values, number, group["step"], which)

    def _moments(self, params: list[Tensor], rotated: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The moments m and v of the parameters, in the shapes of their rotated gradients; zeros at first."""
        for p, h in zip(params, rotated, strict=True):
            if "exp_avg" not in self.state[p]:
                for key in ("exp_avg", "exp_avg_sq"):
                    self.state[p][key] = torch.zeros_like(h, dtype=self._state_dtype(p, h))
        return [self.state[p]["exp_avg"] for p in params], [self.state[p]["exp_avg_sq"] for p in params]

    def _state_dtype(self, p: Tensor, rotated: Tensor) -> torch.dtype:
        group = next(g for g in self.param_groups if any(p is x for x in g["params"]))
        return torch.bfloat16 if group.get("state_dtype", "auto") == "bfloat16" else rotated.dtype

    def move_moments(self, space: Space) -> None:
        """Move m and v into the basis just learned by `space`."""
        if any("exp_avg" not in self.state[p] for p in space.params):
            self._moments(space.params, space.forward(space.params))
        for key, squared in (("exp_avg", False), ("exp_avg_sq", True)):
            moved = space.moved([self.state[p][key] for p in space.params], squared=squared)
            for p, moment in zip(space.params, moved, strict=True):
                self.state[p][key] = moment.contiguous().to(self.state[p][key].dtype)


def _as_torch(
    group: dict[str, Any], params: list[Tensor], gradients: list[Tensor], means: list[Tensor], squares: list[Tensor]
) -> None:
    """Update the moments and step, in the order of operations of `torch.optim.AdamW` (foreach and fused off)."""
    beta1, beta2 = group["betas"]
    torch._foreach_lerp_(means, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
    denominators = torch._foreach_sqrt(squares)
    torch._foreach_div_(denominators, (1 - beta2 ** group["step"]) ** 0.5)  # `math.sqrt` sometimes differs by one ulp
    torch._foreach_add_(denominators, group["eps"])
    size = group["lr"] / (1 - beta1 ** group["step"])
    torch._foreach_addcdiv_(params, means, denominators, value=-size)


def _moves(
    group: dict[str, Any],
    rotated: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    skipped: Tensor | None = None,
    late: Tensor | None = None,
) -> list[Tensor]:
    """Update the moments; returns -lr q in their shapes. Torch's fused kernel steps from zero: one pass over memory,
    not ten.

    It reads memory in storage order: the tensors of a parameter must be stored alike, without gaps. If `skipped`, moves
    are 0 and moments unchanged; `late` is how much too high the step counter is.
    """
    moves = [torch.empty_like(h) for h in rotated]
    torch._foreach_zero_(moves)
    for device, _, chosen in alike(rotated):
        step = torch.full((), float(group["step"]), dtype=torch.float32, device=device)
        if late is not None:
            step = step - late.to(device)
        torch._fused_adamw_(
            [moves[i] for i in chosen],
            [rotated[i] for i in chosen],
            [means[i] for i in chosen],
            [squares[i] for i in chosen],
            [],
            [step] * len(chosen),
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            found_inf=None if skipped is None else skipped.to(device),
        )
    return moves
