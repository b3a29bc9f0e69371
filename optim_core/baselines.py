"""torch's own optimizers under this project's names and closure contract, so that arms are uniform.

On CPU and CUDA the fused kernels are used, so that baselines are not slowed down (3 x on CPU).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from optim_core.base import Baseline, Counting, Params
from optim_core.declarations import SHARE, Limit
from optim_core.descent import sgd_where_taken
from optim_core.kernels import stored_like, without_gaps
from optim_core.packed import Packing
from optim_core.packed_rules import adamw_rule, sgd_rule
from optim_core.ranges import check_not_negative, check_positive, check_share, choice
from optim_core.registry import register
from optim_core.rounded import STATE_DTYPES, RoundedAdamW


class Betas(Counting):
    """beta1 and beta2 are stored as `betas` in the parameter groups, as in torch, where momentum schedulers expect
    them.

    Put it before the base in the method resolution order. Groups may give either; so may older checkpoints.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does."""
        super().add_param_group(_with_betas(param_group, self.defaults["betas"]))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """As every optimizer does."""
        groups = [_with_betas(group, self.defaults["betas"]) for group in state_dict["param_groups"]]
        super().load_state_dict({**state_dict, "param_groups": groups})


def _with_betas(group: Mapping[str, Any], default: tuple[float, float]) -> dict[str, Any]:
    """The group with `betas` instead of beta1 and beta2."""
    first, second = group.get("betas", default)
    rest = {k: v for k, v in group.items() if k not in ("beta1", "beta2")}
    return {**rest, "betas": (group.get("beta1", first), group.get("beta2", second))}


@register("sgd")
class SGD(Baseline, torch.optim.SGD):
    """Gradient descent with heavy-ball momentum in [0, 1) and coupled weight decay >= 0 (Polyak 1964); lr >= 0."""

    REFERENCE = True
    SELECTS = True
    EQUIVARIANT: ClassVar = {"momentum": 0.0, "weight_decay": 0.0, "nesterov": False}  # g -> R^T R g
    PACKING = Packing(rule=sgd_rule, apart=frozenset({"lr", "momentum", "weight_decay"}))

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.check_values(lr=lr, momentum=momentum, weight_decay=weight_decay)
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            foreach=True,  # type: ignore[arg-type]
        )

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        check_not_negative(**{k: values[k] for k in ("lr", "weight_decay") if k in values})
        check_share(**{k: values[k] for k in ("momentum",) if k in values})

    def take(self) -> None:
        """Torch's step, or the same with its fused kernel if the device decides."""
        if self._skipped is None:
            return super().take()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            sgd_where_taken(self._skipped, group, params, [p.grad for p in params], self.state)


@register("adamw")
class AdamW(Betas, Baseline, RoundedAdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, Alg. 2).

    lr, weight_decay >= 0; beta1 and beta2 in [0, 1); eps > 0. state_dtype: `auto`, moments as wide as the weights, or
    `bfloat16`, with stochastic rounding (see `optim_core.rounded`).
    """

    CHANGEABLE = Baseline.CHANGEABLE | {"beta1", "beta2", "eps"}
    REFERENCE = True
    SELECTS = True
    BOUNDS: ClassVar = {**Baseline.BOUNDS, "beta1": SHARE, "beta2": SHARE}
    LIMITS = (
        Limit(  # sqrt(vhat) is negligible against eps: w <- w - (lr / eps) g
            equals="sgd",
            at={"lr": 2e4, "eps": 1e6, "beta1": 0.0, "weight_decay": 0.0},
            other={"lr": 0.02, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False},
            deviation=1e-5,
            nested=False,
        ),
    )
    PACKING = Packing(rule=adamw_rule, apart=frozenset({"lr", "beta1", "beta2", "eps", "weight_decay"}))

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        state_dtype: str = "auto",
    ) -> None:
        self.check_values(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, state_dtype=state_dtype)
        super().__init__(
            params,
            lr=lr,
            betas=(beta1, beta2),
            eps=eps,
            weight_decay=weight_decay,
            fused=True,  # type: ignore[arg-type]
        )
        self.also(state_dtype=state_dtype)

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        check_adam(**values)
        choice("state_dtype", values.get("state_dtype", "auto"), STATE_DTYPES)

    def must_know(self) -> bool:
        """Also if moments are rounded stochastically, since that depends on the step number."""
        return super().must_know() or any(g.get("state_dtype", "auto") != "auto" for g in self.param_groups)

    def take(self) -> None:
        """Torch's step, whose fused kernel checks `found_inf` if the device decides."""
        with without_gaps(p for group in self.param_groups for p in group["params"] if p.grad is not None):
            if self._skipped is None:
                return super().take()
            self.grad_scale, self.found_inf = None, self._skipped
            try:
                super().take()
            finally:
                del self.grad_scale, self.found_inf

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """As every optimizer does; moments saved in another memory order are converted to that of the parameters."""
        super().load_state_dict(state_dict)
        for p, own in self.state.items():
            own.update({k: stored_like(v, p) for k, v in own.items() if isinstance(v, torch.Tensor)})


def check_adam(**values: Any) -> None:
    """Raise ValueError for a negative lr or weight_decay, a beta outside [0, 1) or an eps that is not positive."""
    check_not_negative(**{k: values[k] for k in ("lr", "weight_decay") if k in values})
    check_share(**{k: values[k] for k in ("beta1", "beta2") if k in values})
    check_positive(**{k: values[k] for k in ("eps",) if k in values})
