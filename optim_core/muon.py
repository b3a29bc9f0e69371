"""Muon for the matrices of hidden layers, AdamW for everything else, so that it trains any model (Jordan et al. 2024).

    matrices:  B <- momentum B + (1 - momentum) G;  M = momentum B + (1 - momentum) G
               W <- (1 - lr weight_decay) W - lr s NS(M),   NS(M) about U V^T of M by five Newton-Schulz steps
    the rest:  AdamW with lr * adamw_lr_scale (embeddings, the head, biases, norms)

    s = sqrt(max(1, m / n))  (adjust_lr: original)   or   0.2 sqrt(max(m, n))  (match_rms_adamw; Liu et al. 2025)

Agrees with torch's `Muon` and AdamW bit for bit, and step by step with the author's code (github.com/KellerJordan/Muon,
see tests/golden/agreement). Convolutions are treated as [m, n] = (out, in * height * width), also in s, where that code
uses height and width for m and n. A step costs 4 m n min(m, n) + 2 min(m, n)^3 multiplications for each of the five
iterations.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from optim_core.base import Params
from optim_core.hidden import HiddenMatrices
from optim_core.linalg import newton_schulz
from optim_core.registry import register

ADJUST = ("original", "match_rms_adamw")
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@register("muon")
class Muon(HiddenMatrices):
    """Two parameter groups: hidden matrices and the rest (see `optim_core.hidden`).

    lr, weight_decay, adamw_lr_scale >= 0; momentum, betas in [0, 1). adjust_lr: `match_rms_adamw` gives matrices
    updates of AdamW's size, so one lr suits both groups; `original` is the author's. newton_schulz_dtype is bfloat16,
    float32 or float64.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        adjust_lr: str = "match_rms_adamw",
        adamw_lr_scale: float = 1.0,
        newton_schulz_dtype: str = "bfloat16",
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, self.checked(locals()))

    def direction(self, group: dict[str, Any], state: dict[str, Any], update: Tensor) -> Tensor:
        """The direction from NS(M) [m, n] before scaling by lr s; variants of Muon differ here."""
        return update

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        super().check_values(**values)
        for name, choices in (("adjust_lr", ADJUST), ("newton_schulz_dtype", tuple(DTYPES))):
            if values.get(name, choices[0]) not in choices:
                raise ValueError(f"{name} is {values[name]!r}; it must be one of {', '.join(choices)}")

    def move(self, group: dict[str, Any], state: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        """B, M and W of the module's formula."""
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(buffer, group["momentum"]).reshape(p.shape[0], -1)
        m, n = ahead.shape
        size = math.sqrt(max(1, m / n)) if group["adjust_lr"] == "original" else 0.2 * math.sqrt(max(m, n))
        orthogonal = newton_schulz(ahead, dtype=DTYPES[group["newton_schulz_dtype"]])
        update = self.direction(group, state, orthogonal)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(update.reshape(p.shape), alpha=-group["lr"] * size)
