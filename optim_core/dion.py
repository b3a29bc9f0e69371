"""Dion: a momentum matrix orthonormalized by one power iteration of low rank (Ahn et al. 2025, arXiv 2504.05295).

For a hidden matrix W [m, n], m >= n (else transposed), momentum M and a basis Q [n, r] that is carried along:

    M <- M + G;   P = orthonormal columns of M Q;   R = M^T P
    M <- M - (1 - momentum) P R^T               what the low rank misses is kept for later steps
    Q <- R, each column over (its norm + eps);   W <- (1 - lr weight_decay) W - lr sqrt(out / in) P Q^T

r = rank_fraction min(m, n), rounded up. Q starts as normal noise. AdamW moves the rest (see `optim_core.hidden`);
filters are [out, in * height * width].

Agrees step by step with the authors' reference (github.com/microsoft/dion, `dion_reference`, QR by Householder), see
tests/golden/agreement. Memory: M and Q. A step costs 6 m n r + 2 m r^2 multiplications. This is the single-device
algorithm: a sharded matrix is gathered, not multiplied in parts.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Params
from optim_core.declarations import SHARE
from optim_core.hidden import HiddenMatrices
from optim_core.probes import normal
from optim_core.registry import register
from optim_core.rotations.layout import widened


@register("dion")
class Dion(HiddenMatrices):
    """Two parameter groups: hidden matrices and the rest (see `optim_core.hidden`).

    lr, weight_decay, adamw_lr_scale >= 0; momentum, betas in [0, 1); eps > 0; rank_fraction in (0, 1].
    """

    BOUNDS: ClassVar = {**HiddenMatrices.BOUNDS, "rank_fraction": SHARE}

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 0.01,
        momentum: float = 0.95,
        rank_fraction: float = 1.0,
        weight_decay: float = 0.01,
        adamw_lr_scale: float = 1.0,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        run_seed: int = 0,
    ) -> None:
        super().__init__(params, self.checked(locals()))

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        super().check_values(**values)
        if not 0 < values.get("rank_fraction", 1) <= 1:
            raise ValueError(f"rank_fraction is {values['rank_fraction']}; it must lie in (0, 1]")

    def move(self, group: dict[str, Any], state: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        """M, P, Q and W of the module's formula."""
        flat = gradient.reshape(p.shape[0], -1)
        tall = flat.shape[0] >= flat.shape[1]
        size = math.sqrt(flat.shape[0] / flat.shape[1])
        if "basis" not in state:
            columns = min(flat.shape)
            rank = min(math.ceil(group["rank_fraction"] * columns - 1e-9), columns)
            state["momentum_buffer"] = torch.zeros_like(flat, memory_format=torch.contiguous_format)
            state["basis"] = normal((columns, rank), flat, group["run_seed"], self.place_of(p))
        momentum = state["momentum_buffer"].add_(flat)
        seen = momentum if tall else momentum.T
        left, right = approximated(widened(seen), widened(state["basis"]))
        seen.sub_((left @ right.T).to(seen.dtype), alpha=1 - group["momentum"])
        basis = right / (torch.linalg.vector_norm(right, dim=0, keepdim=True) + group["eps"])
        state["basis"].copy_(basis)
        update = left @ basis.T if tall else basis @ left.T
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(update.reshape(p.shape).to(p.dtype), alpha=-group["lr"] * size)


def approximated(matrix: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """(P [m, r], R [n, r]) with P R^T about M [m, n], from a basis Q [n, r]. (0, Q) of a matrix that is 0."""
    left, _ = torch.linalg.qr(matrix @ basis)
    right = matrix.T @ left
    anything = matrix.any()
    return left * anything, torch.where(anything, right, basis)
