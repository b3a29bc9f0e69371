"""KL-Shampoo: factors of a covariance S_1 x .. x S_n that minimize a Kullback-Leibler divergence (Lin et al. 2025).

For every axis k of a gradient G with p entries (arXiv 2509.03378), the other axes are whitened by their own factors:

    W_k = G with S_j^(-1/2) along every axis j but k;   S_k <- shampoo_beta S_k + (1 - shampoo_beta) (d_k / p) W_k W_k^T
    w <- w - lr (m with S_k^(-1/2) along every axis),  m the average of G, then  w <- (1 - lr weight_decay) w

which needs no grafting. S_k^(-1/2) is stored as Q_k diag(r_k) Q_k^T: the inverse roots r_k follow the diagonal of W_k
W_k^T in the basis Q_k at every step, and Q_k becomes qr(S_k Q_k) every `precondition_frequency` steps. As in `soap`,
bases learn after the step, and the first gradient of a parameter is only used for them. Vectors use AdamW.

Agrees step by step with the authors' code (github.com/yorkerlin/KL-Methods) on matrices, see tests/golden/agreement;
with three axes that code updates the last two eigenvalues before it whitens the first axis, here all are updated at
once. Memory, besides m: 2 d_k^2 + d_k per axis. A step costs about 8 p sum_k d_k multiplications, a refresh 3 d_k^3 per
axis.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Params
from optim_core.baselines import Betas, check_adam
from optim_core.declarations import COUNT, NOT_NEGATIVE, SHARE, Limit
from optim_core.layerwise import LayerWise
from optim_core.ranges import check_positive
from optim_core.registry import register
from optim_core.rotations.decompose import eigenvectors, robust
from optim_core.soap import check_decay, decay_of, gram_of, rotated_axes, transformed
from optim_core.turned import FAILURES

LOWEST_CAP = 10.0
"""Cap of the inverse roots of a short axis."""


@register("kl_shampoo")
class KLShampoo(Betas, LayerWise):
    """Parameters with two or more axes; AdamW on the rest.

    lr, weight_decay >= 0; beta1, beta2, shampoo_beta in [0, 1), shampoo_beta -1: beta2; eps, initial_eigenvalue > 0
    precondition_frequency   steps between refreshes of the bases, 1 or above
    max_inverse_root         cap of r_k > 0, lowered to the length of the axis, but not below 10
    max_precond_dim          longest axis with a factor; 0: none, AdamW throughout
    """

    CHANGEABLE = frozenset({"lr", "weight_decay", "beta1", "eps", "precondition_frequency"})
    BOUNDS: ClassVar = {
        "weight_decay": NOT_NEGATIVE, "beta1": SHARE, "beta2": SHARE, "shampoo_beta": (-1.0, 1.0),
        "precondition_frequency": COUNT, "max_precond_dim": NOT_NEGATIVE,
    }  # fmt: skip
    WHOLE: ClassVar = {"precondition_frequency": 1, "max_precond_dim": 0}
    LIMITS = (Limit(equals="adamw", at={"max_precond_dim": 0}),)

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.98,
        shampoo_beta: float = -1.0,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        initial_eigenvalue: float = 0.1,
        max_inverse_root: float = 4000.0,
        max_precond_dim: int = 10000,
    ) -> None:
        super().__init__(params, self.checked(locals(), paired=True))

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        super().check_values(**values)
        check_adam(**values)
        check_decay(**values)
        check_positive(**{k: values[k] for k in ("initial_eigenvalue", "max_inverse_root") if k in values})

    def takes(self, group: dict[str, Any], p: Tensor) -> bool:
        """Those with a factor."""
        return bool(rotated_axes(p, group["max_precond_dim"], vectors=False))

    def move(self, group: dict[str, Any], state: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        """W and w of the module's formula, then S, r and Q."""
        axes = rotated_axes(gradient, group["max_precond_dim"], vectors=False)
        if "step" not in state:
            self._begin(group, state, gradient, axes)
            return
        state["step"] += 1
        bases = [state.get(f"basis_{k}") for k in range(p.ndim)]
        back = [None if basis is None else basis.T for basis in bases]
        state["exp_avg"].lerp_(gradient, 1 - group["betas"][0])
        roots = _broadcast(state, axes, p.ndim)
        whole = torch.ones_like(gradient)
        for root in roots.values():
            whole = whole * root
        move = transformed(transformed(state["exp_avg"], back) * (whole / (1 + whole * group["eps"])), bases)
        p.sub_(group["lr"] * move.to(p.dtype))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        _learn(state, transformed(gradient, back), roots, decay_of(group), group["max_inverse_root"])
        if state["step"] % group["precondition_frequency"] == 0:
            for k in axes:
                found = robust(lambda s, k=k: [torch.linalg.qr(s @ state[f"basis_{k}"])[0]], state[f"gram_{k}"])  # type: ignore[misc]
                if found is None:
                    group[FAILURES] = group.get(FAILURES, 0) + 1
                else:
                    state[f"basis_{k}"] = found[0]

    def _begin(self, group: dict[str, Any], state: dict[str, Any], gradient: Tensor, axes: list[int]) -> None:
        """Compute all first factors and bases, or none if one fails: the next gradient tries again."""
        weight = 1 - decay_of(group)
        grams = {k: gram_of(gradient, k) * (weight * gradient.shape[k] / gradient.numel()) for k in axes}
        bases = {k: robust(eigenvectors, gram) for k, gram in grams.items()}
        for k, basis in bases.items():
            if basis is None:
                group[FAILURES] = group.get(FAILURES, 0) + 1
                return
            state[f"gram_{k}"], state[f"basis_{k}"] = grams[k], basis[0]
            state[f"root_{k}"] = torch.full_like(grams[k][0], 1 / math.sqrt(group["initial_eigenvalue"]))
        state["step"], state["exp_avg"] = 0, torch.zeros_like(gradient)


def _broadcast(state: dict[str, Any], axes: list[int], order: int) -> dict[int, Tensor]:
    """r_k in the shape for multiplying a tensor along its axis k."""
    return {k: state[f"root_{k}"].view([-1 if j == k else 1 for j in range(order)]) for k in axes}


def _learn(state: dict[str, Any], rotated: Tensor, roots: dict[int, Tensor], decay: float, cap: float) -> None:
    """Update S_k and r_k of every axis from the gradient in all bases; every axis uses the previous factors."""
    for k in roots:
        whitened = rotated
        for j, root in roots.items():
            whitened = whitened if j == k else whitened * root
        others = [j for j in range(rotated.ndim) if j != k]
        basis, length = state[f"basis_{k}"], rotated.shape[k]
        gram = gram_of(transformed(whitened, [basis if j == k else None for j in range(rotated.ndim)]), k)
        state[f"gram_{k}"].mul_(decay).add_(gram, alpha=(1 - decay) * length / rotated.numel())
        values = state[f"root_{k}"].pow(-2).lerp_(whitened.square().mean(dim=others), 1 - decay)
        state[f"root_{k}"] = values.rsqrt_().clamp_(max=max(LOWEST_CAP, min(length, cap)))
