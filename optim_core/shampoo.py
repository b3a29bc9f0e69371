"""Shampoo with its step length grafted from Adam or SGD (Gupta et al. 2018, arXiv 1802.09568; Shi et al. 2023,
2309.06497).

For every axis k of a gradient G of n axes, with G_k its unfolding [d_k, rest], and m the bias-corrected average of G:

    L_k <- beta2 L_k + (1 - beta2) G_k G_k^T          (beta2 = 1: the sum, as in AdaGrad)
    P = m with (L_k / c + epsilon I)^(-1 / 2n) along every axis,   c = 1 - beta2^t
    P_graft = m / (sqrt(v) + grafting_epsilon), Adam's step, or m for SGD
    w <- (1 - lr weight_decay) w - lr P |P_graft| / |P|,   norms of the whole tensor

so that Adam's learning rates carry over. Roots are recomputed every `precondition_frequency` steps, from
`start_preconditioning_step` on; earlier steps are the grafted ones alone. Vectors have a root too, unless
`precondition_1d` is false.

Agrees step by step with the authors' code (github.com/facebookresearch/optimizers, see tests/golden/agreement) without
its merging of axes and its blocks: an axis above `max_precond_dim` has no factor here. Memory, besides Adam's: 2 d_k^2
per axis. A step costs 4 p sum_k d_k multiplications for p entries, a root about 10 d_k^3.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Params
from optim_core.baselines import Betas, check_adam
from optim_core.declarations import COUNT, INF, NOT_NEGATIVE, SHARE, Limit
from optim_core.layerwise import LayerWise
from optim_core.ranges import check_positive, check_share
from optim_core.registry import register
from optim_core.rotations.decompose import robust
from optim_core.soap import average_grams, rotated_axes, transformed, whole_gram
from optim_core.turned import FAILURES

GRAFTING = ("adam", "sgd", "none")
NEVER = 10**9


@register("shampoo")
class Shampoo(Betas, LayerWise):
    """All parameters.

    lr, weight_decay >= 0; beta1 in [0, 1), beta2 in [0, 1], of m and of L; epsilon > 0, of the roots
    grafting                        adam, sgd or none; grafting_beta2 in [0, 1) and grafting_epsilon > 0 are Adam's
    precondition_frequency          steps between roots, 1 or above
    start_preconditioning_step      1 or above; -1: precondition_frequency
    max_precond_dim                 longest axis with a factor, 1 or above
    """

    CHANGEABLE = frozenset({"lr", "weight_decay", "beta1", "precondition_frequency"})
    BOUNDS: ClassVar = {
        "weight_decay": NOT_NEGATIVE, "beta1": SHARE, "beta2": SHARE, "grafting_beta2": SHARE,
        "precondition_frequency": COUNT, "start_preconditioning_step": (-1, INF), "max_precond_dim": COUNT,
    }  # fmt: skip
    WHOLE: ClassVar = {"precondition_frequency": 1, "start_preconditioning_step": -1, "max_precond_dim": 1}
    LIMITS = (
        Limit(
            equals="adamw",
            at={"start_preconditioning_step": NEVER, "grafting_beta2": 0.999, "grafting_epsilon": 1e-8},
            where={"grafting": ("adam",)},
            other={"beta2": 0.999, "eps": 1e-8},
            deviation=1e-12,
        ),
        Limit(
            equals="sgd",
            at={"start_preconditioning_step": NEVER, "beta1": 0.0, "weight_decay": 0.0},
            where={"grafting": ("sgd",)},
            other={"momentum": 0.0, "nesterov": False},
        ),
    )

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-12,
        grafting: str = "adam",
        grafting_beta2: float = 0.999,
        grafting_epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        start_preconditioning_step: int = -1,
        max_precond_dim: int = 8192,
        precondition_1d: bool = True,
    ) -> None:
        super().__init__(params, self.checked(locals(), paired=True))

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        super().check_values(**values)
        check_adam(**{k: v for k, v in values.items() if k != "beta2" or v != 1})
        check_share(**{k: values[k] for k in ("grafting_beta2",) if k in values})
        check_positive(**{k: values[k] for k in ("epsilon", "grafting_epsilon") if k in values})
        if values.get("grafting", "none") not in GRAFTING:
            raise ValueError(f"grafting is {values['grafting']!r}; it must be one of {', '.join(GRAFTING)}")
        if values.get("start_preconditioning_step") == 0:
            raise ValueError("start_preconditioning_step is 0; it must be a whole number above 0, or -1")

    def move(self, group: dict[str, Any], state: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        """L, m, the grafted length and w of the module's formula."""
        beta1, beta2 = group["betas"]
        if "step" not in state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        axes = rotated_axes(gradient, group["max_precond_dim"], vectors=group["precondition_1d"])
        average_grams(state, gradient, axes, beta2)
        start = group["start_preconditioning_step"]
        start = group["precondition_frequency"] if start < 0 else start
        if state["step"] == start or (state["step"] > start and state["step"] % group["precondition_frequency"] == 0):
            self._take_roots(group, state, gradient.ndim, axes)
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        mean = state["exp_avg"] / (1 - beta1 ** state["step"])
        grafted = _grafted(group, state, gradient, mean)
        if state["step"] < start and group["grafting"] != "none":
            direction = grafted
        else:
            direction = transformed(mean, [state.get(f"root_{k}") for k in range(gradient.ndim)])
            if group["grafting"] != "none":
                length = torch.linalg.vector_norm(direction)
                direction = direction * (torch.linalg.vector_norm(grafted) / (length + 1e-16))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(direction.to(p.dtype), alpha=-group["lr"])

    def _take_roots(self, group: dict[str, Any], state: dict[str, Any], order: int, axes: list[int]) -> None:
        beta2 = group["betas"][1]
        correction = 1 - beta2 ** state["step"] if beta2 < 1 else 1.0
        power = partial(_power, exponent=-1 / (2 * max(order, 1)), epsilon=group["epsilon"])
        for k in axes:
            gram = state.get(f"gram_{k}")
            found = None if gram is None else robust(power, whole_gram(gram) / correction)
            if found is None:
                group[FAILURES] = group.get(FAILURES, 0) + 1
            else:
                state[f"root_{k}"] = found[0]


def _power(matrix: Tensor, exponent: float, epsilon: float) -> list[Tensor]:
    """[(A + epsilon I)^exponent] of a symmetric A [n, n]; eigenvalues that are negative by rounding are raised to
    epsilon.
    """
    values, vectors = torch.linalg.eigh(matrix + epsilon * torch.eye(len(matrix)).to(matrix))
    lowest = values.min()
    lifted = torch.where(lowest < epsilon, values - lowest + epsilon, values)
    return [(vectors * lifted.pow(exponent)) @ vectors.T]


def _grafted(group: dict[str, Any], state: dict[str, Any], gradient: Tensor, mean: Tensor) -> Tensor:
    """The step that provides the length; its second moments are updated."""
    if group["grafting"] != "adam":
        return mean
    beta2 = group["grafting_beta2"]
    state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    squares = state["exp_avg_sq"] / (1 - beta2 ** state["step"])
    found: Tensor = mean / (squares.sqrt_() + group["grafting_epsilon"])
    return found
