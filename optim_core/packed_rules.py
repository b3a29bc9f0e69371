"""The arithmetic of a step on rows of weights, one row per trial (`packed`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

Columns = dict[str, Tensor]
Values = Mapping[str, Tensor]


class Rule(Protocol):
    """The arithmetic of one parameter group."""

    state: tuple[str, ...]
    """Names of state tensors, shaped like their parameters."""
    counter: str
    """Name of the state's step counter; empty if there is none."""

    def columns(self, values: Values, steps: Tensor) -> Columns:
        """Values for a step from hyperparameters [steps, K] and each step's number, from 1, in float64."""

    def update(self, w: Tensor, g: Tensor, state: list[Tensor], at: Columns) -> None:
        """Take the step of all rows in place; `at` has the columns, [K, 1] each."""

    def update_row(
        self, w: list[Tensor], g: list[Tensor], state: list[list[Tensor]], at: Mapping[str, float], step: Tensor
    ) -> None:
        """Take the step of one row on a CPU, all of whose tensors come in the same parts; `at` has hyperparameters."""

    def kept(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The state tensors that the optimizer itself would have with these settings."""


class HeavyBall:
    """SGD with momentum and coupled weight decay."""

    state: tuple[str, ...] = ("momentum_buffer",)
    counter = ""

    def __init__(self, *, nesterov: bool) -> None:
        self._nesterov, self._decays = nesterov, True

    def columns(self, values: Values, steps: Tensor) -> Columns:
        """See `Rule`."""
        self._decays = bool(values["weight_decay"].any())
        return {"move": -values["lr"], "momentum": values["momentum"], "decay": values["weight_decay"]}

    def update(self, w: Tensor, g: Tensor, state: list[Tensor], at: Columns) -> None:
        """See `Rule`."""
        if self._decays:
            g.addcmul_(w, at["decay"])
        m = state[0].mul_(at["momentum"]).add_(g)
        w.addcmul_(g.addcmul_(m, at["momentum"]) if self._nesterov else m, at["move"])

    def update_row(
        self, w: list[Tensor], g: list[Tensor], state: list[list[Tensor]], at: Mapping[str, float], step: Tensor
    ) -> None:
        """See `Rule`."""
        torch._fused_sgd_(
            w, g, state[0] if at["momentum"] != 0 else [], weight_decay=at["weight_decay"], momentum=at["momentum"],
            lr=at["lr"], dampening=0.0, nesterov=self._nesterov, maximize=False, is_first_step=False,
        )  # fmt: skip

    def kept(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """No buffer without momentum."""
        return self.state if group["momentum"] != 0 else ()


class Moments:
    """AdamW."""

    state: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    counter = "step"

    def columns(self, values: Values, steps: Tensor) -> Columns:
        """See `Rule`."""
        beta1, beta2, lr = values["beta1"], values["beta2"], values["lr"]
        return {
            "keep": 1 - lr * values["weight_decay"],
            "share1": 1 - beta1,
            "beta2": beta2,
            "share2": 1 - beta2,
            "root": (1 - beta2**steps).sqrt(),
            "eps": values["eps"],
            "move": -lr / (1 - beta1**steps),
        }

    def update(self, w: Tensor, g: Tensor, state: list[Tensor], at: Columns) -> None:
        """See `Rule`."""
        m, v = state
        m.lerp_(g, at["share1"].expand_as(g))
        v.mul_(at["beta2"]).addcmul_(g * g, at["share2"])
        width = v.sqrt().div_(at["root"]).add_(at["eps"])
        w.mul_(at["keep"]).addcmul_(torch.div(m, width, out=width), at["move"])

    def update_row(
        self, w: list[Tensor], g: list[Tensor], state: list[list[Tensor]], at: Mapping[str, float], step: Tensor
    ) -> None:
        """See `Rule`."""
        m, v = state
        torch._fused_adamw_(
            w, g, m, v, [], [step] * len(w), lr=at["lr"], beta1=at["beta1"], beta2=at["beta2"], eps=at["eps"],
            weight_decay=at["weight_decay"], amsgrad=False, maximize=False,
        )  # fmt: skip

    def kept(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """Both."""
        return self.state


def sgd_rule(group: Mapping[str, Any]) -> Rule | None:
    """The rule of `sgd`, and of methods over it."""
    return HeavyBall(nesterov=bool(group.get("nesterov", False)))


def adamw_rule(group: Mapping[str, Any]) -> Rule | None:
    """The rule of `adamw`; stochastically rounded moments would need a random stream per trial."""
    return Moments() if group.get("state_dtype", "auto") == "auto" else None


def base_rule(group: Mapping[str, Any]) -> Rule | None:
    """The rule of a method over one of the two (`descent`)."""
    return sgd_rule(group) if group["base"] == "sgd" else adamw_rule(group)
