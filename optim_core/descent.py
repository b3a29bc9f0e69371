"""The step of SGD or AdamW along given gradients, used by SAM and LLQR.

    sgd:    m <- momentum m + (g + weight_decay w),  w <- w - lr m                          (Polyak 1964)
    adamw:  w <- (1 - lr weight_decay) w - lr mhat / (sqrt(vhat) + eps)      (Loshchilov and Hutter 2019, Alg. 2)

torch's own kernels are used, in the same mode as in the registered `sgd` and `adamw`, so that the limits in which a
method reduces to its base optimizer hold bit for bit. `p.grad` is neither read nor written.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from optim_core.declarations import NOT_NEGATIVE, SHARE
from optim_core.kernels import all_stored_like, stored_like, without_gaps
from optim_core.ranges import check_not_negative, check_positive, check_share
from optim_core.selection import sgd_unless
from optim_core.sharded import locals_of

BASES = ("sgd", "adamw")
CHANGEABLE = frozenset({"lr", "momentum", "weight_decay", "beta1", "beta2", "eps"})
BOUNDS = {"momentum": SHARE, "weight_decay": NOT_NEGATIVE, "beta1": SHARE, "beta2": SHARE}
"""Declarations of a wrapping method about its base's hyperparameters (see `Counting`)."""
State = MutableMapping[Tensor, dict[str, Any]]


def base_defaults(
    *, base: str, lr: float, momentum: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> dict[str, Any]:
    """The checked parameter-group entries of a base optimizer, only those that it reads, under torch's names.

    So torch's schedulers find the existing momentum (`momentum` of sgd, the first of `betas` of adamw). Raises
    ValueError for an unknown base, a negative lr or weight_decay, or a momentum or beta outside [0, 1).
    """
    if base not in BASES:
        raise ValueError(f"base is {base!r}; it must be one of {', '.join(BASES)}")
    check_not_negative(lr=lr, weight_decay=weight_decay)
    check_share(momentum=momentum, beta1=beta1, beta2=beta2)
    check_positive(eps=eps)
    shared = {"base": base, "lr": lr, "weight_decay": weight_decay}
    own = {"momentum": momentum} if base == "sgd" else {"betas": (beta1, beta2), "eps": eps}
    return {**shared, **own}


def descend(
    group: Mapping[str, Any],
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    state: State,
    scratch: Sequence[Tensor] | None = None,
    skipped: Tensor | None = None,
) -> None:
    """Move `params` by one step of the group's base optimizer along `grads`, with its buffers in `state`.

    `scratch`, tensors like `params` that may be overwritten, saves SGD with weight decay a copy of the gradients.
    `skipped` tells the device not to move anything (see `selection`).
    """
    if not params:
        return
    if skipped is not None and group["base"] == "sgd":
        sgd_where_taken(skipped, group, params, grads, state)
        return
    if scratch is not None and group["base"] == "sgd" and group["weight_decay"] != 0:
        torch._foreach_copy_(locals_of(scratch), locals_of(grads))
        torch._foreach_add_(list(scratch), list(params), alpha=group["weight_decay"])
        group, grads = {**group, "weight_decay": 0.0}, scratch
    if group["base"] == "sgd":
        _sgd(group, list(params), list(grads), state)
    else:
        _adamw(group, list(params), list(grads), state, skipped)


def sgd_where_taken(
    skipped: Tensor, group: Mapping[str, Any], params: Sequence[Tensor], grads: Sequence[Any], state: State
) -> None:
    """SGD with torch's fused kernel, unless `skipped`; a missing buffer starts at 0."""
    if not params:
        return
    buffers: list[Tensor] = []
    if group["momentum"] != 0:
        for p in params:
            if state[p].get("momentum_buffer") is None:
                state[p]["momentum_buffer"] = torch.zeros_like(p)
            state[p]["momentum_buffer"] = stored_like(state[p]["momentum_buffer"], p)
        buffers = [state[p]["momentum_buffer"] for p in params]
    rest = {k: group[k] for k in ("dampening", "nesterov", "maximize") if k in group}
    sgd_unless(
        skipped, params, grads, buffers, lr=group["lr"], momentum=group["momentum"],
        weight_decay=group["weight_decay"], **rest,
    )  # fmt: skip


def _sgd(group: Mapping[str, Any], params: list[Tensor], grads: list[Tensor], state: State) -> None:
    buffers: list[Tensor | None] = [state[p].get("momentum_buffer") for p in params]
    sgd(
        params,
        grads,
        buffers,
        foreach=True,
        lr=group["lr"],
        momentum=group["momentum"],
        weight_decay=group["weight_decay"],
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
    if group["momentum"] != 0:
        for p, buffer in zip(params, buffers, strict=True):
            state[p]["momentum_buffer"] = buffer


def _adamw(
    group: Mapping[str, Any], params: list[Tensor], grads: list[Tensor], state: State, skipped: Tensor | None
) -> None:
    beta1, beta2 = group["betas"] if "betas" in group else (group["beta1"], group["beta2"])  # older checkpoints
    for p in params:
        own = state[p]
        if "exp_avg" not in own:
            own["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            own["exp_avg"] = torch.zeros_like(p)
            own["exp_avg_sq"] = torch.zeros_like(p)
    with without_gaps(params):
        for key in ("exp_avg", "exp_avg_sq"):
            for p in params:
                state[p][key] = stored_like(state[p][key], p)
        adamw(
            params,
            all_stored_like(grads, params),
            [state[p]["exp_avg"] for p in params],
            [state[p]["exp_avg_sq"] for p in params],
            [],
            [state[p]["step"] for p in params],
            fused=True,
            found_inf=skipped,
            amsgrad=False,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            maximize=False,
        )
