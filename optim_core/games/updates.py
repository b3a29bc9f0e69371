"""The update rules for games as functions of tensors: each method's direction, and the step along it.

v is the field at w, one tensor for each parameter, J its Jacobian. Every method is

    w <- w + D,  D <- momentum D - lr d,  D_0 = 0,  with the direction d

    gda, alternating_gda   v(w)
    extragradient          v(w - extrapolation v(w))                        (Korpelevich 1976)
    optimistic             2 v(w_t) - v(w_{t-1}), at first v(w_0)           (Popov 1980)
    bilinear_optimal       (v(w - gamma v) - v(w)) / gamma = -J v for affine v
    hamiltonian            J' v, the gradient of |v|^2 / 2
    consensus              v + consensus J' v                               (Mescheder et al. 2017)

All functions work on lists of tensors of equal shapes, [*shape] each, and use foreach kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Tensors = Sequence[Tensor]


def optimistic(field: Tensors, previous: Tensors) -> list[Tensor]:
    """2 v(w_t) - v(w_{t-1})."""
    return list(torch._foreach_sub(torch._foreach_mul(list(field), 2.0), list(previous)))


def bilinear(ahead: Tensors, field: Tensors, gamma: float) -> list[Tensor]:
    """(v(w - gamma v) - v(w)) / gamma; zeros for gamma = infinity, where v vanishes."""
    return list(torch._foreach_mul(torch._foreach_sub(list(ahead), list(field)), 1 / gamma))


def consensus(field: Tensors, pulled: Tensors, weight: float) -> list[Tensor]:
    """V + weight J'v; `pulled` is J'v."""
    return list(torch._foreach_add(list(field), list(pulled), alpha=weight))


def step(params: Tensors, direction: Tensors, displacement: Tensors | None, lr: float, momentum: float) -> None:
    """Move `params` in place by D <- momentum D - lr d, with D in `displacement`; None means momentum 0."""
    if displacement is None:
        torch._foreach_add_(list(params), list(direction), alpha=-lr)
        return
    torch._foreach_mul_(list(displacement), momentum)
    torch._foreach_add_(list(displacement), list(direction), alpha=-lr)
    torch._foreach_add_(list(params), list(displacement))
