"""SPlus: sign of the momentum in Shampoo's eigenbasis, stable step size, averaged weights (Frans et al. 2025).

For a matrix W [m, n] with gradient G (arXiv 2506.07254, Alg. 1):

    M <- beta1 M + (1 - beta1) G;   W <- W - s Q_L sign(Q_L^T M Q_R) Q_R^T,   s = 2 lr / (m + n)
    L <- beta2 L + (1 - beta2) G G^T,  R likewise;   Q: their eigenvectors, at the first step and every
    `precondition_frequency` steps, used from the step after on
    A <- average_decay A + (1 - average_decay) W,  then  W <- (1 - s weight_decay) W

Parameters that are not matrices, or have an axis above `max_precond_dim`, move with s = lr nonstandard_constant,
without a basis for the long axis. The weights evaluated are A / (1 - average_decay^t): `eval()` puts them into the
parameters and `train()` restores W bit for bit, which `judged_weights` does around an evaluation, so trials need
nothing else.

If L or R is singular (an axis longer than the other, the rows of a head before a softmax), the sign along a direction
without gradient is that of rounding: runs that differ by rounding drift apart, as with `soap`.

Agrees step by step with the authors' code (github.com/kvfrans/splus), weights and averages, see tests/golden/agreement;
there an axis of exactly the maximum length has no basis. Memory: M, A, and 2 d^2 per axis. A step costs 2 m n (m + n)
multiplications for the update and m n (m + n) for L and R, a refresh about 10 d^3 per axis.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Closure, Params
from optim_core.baselines import Betas, check_adam
from optim_core.declarations import COUNT, NOT_NEGATIVE, SHARE
from optim_core.layerwise import LayerWise
from optim_core.ranges import check_not_negative, check_share
from optim_core.registry import register
from optim_core.rotations.decompose import eigenvectors, robust
from optim_core.rotations.layout import widened
from optim_core.soap import average_grams, rotated_axes, transformed, whole_gram
from optim_core.turned import FAILURES


@register("splus")
class SPlus(Betas, LayerWise):
    """All parameters; two groups may differ in all settings.

    lr, weight_decay, nonstandard_constant >= 0; beta1, beta2, average_decay in [0, 1)
    precondition_frequency   steps between refreshes of the bases, 1 or above
    max_precond_dim          longest axis with a basis, 1 or above
    """

    CHANGEABLE = frozenset({"lr", "weight_decay", "beta1", "beta2", "precondition_frequency", "nonstandard_constant"})
    BOUNDS: ClassVar = {
        "weight_decay": NOT_NEGATIVE, "beta1": SHARE, "beta2": SHARE, "average_decay": SHARE,
        "nonstandard_constant": NOT_NEGATIVE, "precondition_frequency": COUNT, "max_precond_dim": COUNT,
    }  # fmt: skip
    WHOLE: ClassVar = {"precondition_frequency": 1, "max_precond_dim": 1}

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 0.1,
        beta1: float = 0.9,
        beta2: float = 0.999,
        average_decay: float = 0.999,
        weight_decay: float = 0.01,
        precondition_frequency: int = 100,
        nonstandard_constant: float = 0.001,
        max_precond_dim: int = 10000,
    ) -> None:
        super().__init__(params, {**self.checked(locals(), paired=True), "training": True})

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        super().check_values(**values)
        check_adam(**values)
        check_share(**{k: values[k] for k in ("average_decay",) if k in values})
        check_not_negative(**{k: values[k] for k in ("nonstandard_constant",) if k in values})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it. Raises RuntimeError between `eval()` and `train()`."""
        if not all(group["training"] for group in self.param_groups):
            raise RuntimeError("the parameters hold the average for evaluation; call train() before step")
        return super().step(closure)

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average into the parameters; a no-op if it is already there, or before the first step."""
        with self.layers.whole(self, lambda *_: True, gradients=False):
            for group in self.param_groups:
                for p in group["params"] if group["training"] else ():
                    if "average" in (state := self.state.get(p, {})):
                        state["weights"] = p.clone()
                        p.copy_(state["average"] / (1 - group["average_decay"] ** state["step"]))
                group["training"] = False

    @torch.no_grad()
    def train(self) -> None:
        """Put the weights back; a no-op if they are already there."""
        with self.layers.whole(self, lambda *_: True, gradients=False):
            for group in self.param_groups:
                for p in group["params"]:
                    if "weights" in (state := self.state.get(p, {})):
                        p.copy_(state.pop("weights"))
                group["training"] = True

    def move(self, group: dict[str, Any], state: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        """M, W, L, R and A of the module's formula."""
        if "step" not in state:
            state["step"] = 0
            state["momentum_buffer"], state["average"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        state["momentum_buffer"].lerp_(gradient, 1 - beta1)
        axes = rotated_axes(gradient, group["max_precond_dim"], vectors=False) if gradient.ndim == 2 else []
        bases = [state.get(f"basis_{k}") for k in range(gradient.ndim)]
        inwards = [None if basis is None else basis.T for basis in bases]
        update = transformed(transformed(state["momentum_buffer"], inwards).sign(), bases)
        standard = gradient.ndim == 2 and len(axes) == 2
        size = group["lr"] * (2 / sum(p.shape) if standard else group["nonstandard_constant"])
        average_grams(state, gradient, axes, beta2)
        if state["step"] == 1 or state["step"] % group["precondition_frequency"] == 0:
            for k in axes:
                found = robust(eigenvectors, whole_gram(state[f"gram_{k}"]))
                if found is None:
                    group[FAILURES] = group.get(FAILURES, 0) + 1
                else:
                    state[f"basis_{k}"] = found[0]
        p.add_(update.to(p.dtype), alpha=-size)
        state["average"].lerp_(widened(p), 1 - group["average_decay"])
        p.mul_(1 - size * group["weight_decay"])
