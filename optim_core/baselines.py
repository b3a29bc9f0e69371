"""torch's own optimizers under the names and the closure contract of this project, so that arms are uniform.

On CPU and CUDA the fused kernels are used, so that baselines are not handicapped (3 x on CPU).
"""

from __future__ import annotations

import torch

from optim_core.base import Baseline, Params
from optim_core.registry import register


@register("sgd")
class SGD(Baseline, torch.optim.SGD):
    """Gradient descent with heavy-ball momentum in [0, 1) and coupled weight decay (Polyak 1964)."""

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            foreach=True,  # type: ignore[arg-type]
        )


@register("adamw")
class AdamW(Baseline, torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, Alg. 2); beta1 and beta2 in [0, 1)."""

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=(beta1, beta2),
            eps=eps,
            weight_decay=weight_decay,
            fused=True,  # type: ignore[arg-type]
        )
