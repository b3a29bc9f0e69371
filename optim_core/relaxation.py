"""The scalable relaxation of the layerwise LQR: learn U so that the step u = -U g lowers the quadratic model.

    min_U  J(u = -U g),   J(u) = g^T u + 1/2 u^T (s H + damping) u        (Dufort-Labbe et al. 2026, arXiv 2605.04230)

by a few steps of gradient descent with momentum from the current U. g and H belong to one batch and are held fixed;
only U is block-diagonal, the curvature H is not. With c = g + (s H + damping) u, the gradient in a parameter phi of U
is (du/dphi)^T c, so an inner step costs one curvature product, which also gives J = 1/2 (g + c)^T u.

The method is few steps and an average over many batches: on one gradient J does not determine U.

Scales (`metric_scale`), with B the number of samples averaged in the loss:
    mean         H as it is
    sum          B H, as in the authors' code for the Fisher metric: the divergence is summed, the loss averaged
    normalised   g / rms(g) and H / |g^T H g / g^T g|, then times `curvature_scale`: U does not depend on the scale of
                 the loss, on B or on the width, and U = 1 / curvature_scale is the best step along g
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optim_core.curvature import Curvature, dot
from optim_core.preconditioners import Factors, Structure
from optim_core.pullback import pulled

SCALES = ("normalised", "mean", "sum")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How the two terms of J are weighted."""

    kind: str
    """One of SCALES."""
    curvature: float = 1.0
    """An additional factor of H, above 0."""
    damping: float = 0.0
    """>= 0; in units of the Rayleigh quotient of H along g if normalised."""


@dataclass(frozen=True, kw_only=True)
class Inner:
    """The inner descent."""

    steps: int
    lr: float
    momentum: float
    clip: float
    """Bound on the gradient of each tensor of U: its RMS if normalised, otherwise its Euclidean norm."""
    clip_rms: bool


class Objective:
    """J on one batch, at one scale; `samples` is B."""

    def __init__(self, curvature: Curvature, scale: Scale, samples: int) -> None:
        self._product, self._damping = curvature.product, scale.damping
        self.gradient = curvature.gradient
        self._factor: Tensor | float = scale.curvature * (samples if scale.kind == "sum" else 1)
        if scale.kind == "normalised":
            g = curvature.gradient
            squared = dot(g, g)
            rayleigh = (dot(g, curvature.product(g)) / squared).abs()
            rms = (squared / sum(x.numel() for x in g)).sqrt()
            self.gradient = list(torch._foreach_div(g, rms))
            self._factor = scale.curvature / rayleigh

    def slope(self, u: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """J(u), a scalar tensor, and c = dJ/du."""
        bend = torch._foreach_mul(self._product(u), self._factor)  # in new tensors: autograd gives the same one to
        if self._damping:  # parameters that enter as a sum, and expanded ones where a sum is undone
            torch._foreach_add_(bend, list(u), alpha=self._damping)
        slope = torch._foreach_add(bend, self.gradient)
        return dot(torch._foreach_add(slope, self.gradient), u) / 2, list(slope)


def control(blocks: Sequence[Structure], factors: Sequence[Factors], gradient: Sequence[Tensor]) -> list[Tensor]:
    """The step -U g, one tensor for each weight."""
    return [-b.act(f, g) for b, f, g in zip(blocks, factors, gradient, strict=True)]


@torch.no_grad()
def total(blocks: Sequence[Structure], factors: Sequence[Factors], objectives: Sequence[Objective]) -> Tensor:
    """J of U, summed over the batches: one curvature product per batch."""
    return torch.stack([o.slope(control(blocks, factors, o.gradient))[0] for o in objectives]).sum()


def descend(
    blocks: Sequence[Structure], factors: Sequence[Factors], objectives: Sequence[Objective], inner: Inner
) -> tuple[Tensor, Tensor]:
    """Improve `factors` in place by the inner steps, which cycle through the batches.

    Returns J, summed over the batches, before and after, as scalar tensors. Non-finite entries of a gradient become 0
    (NaN) or the sign (infinities). Costs steps + 2 x batches - 1 products.
    """
    leaves = [f.requires_grad_() for own in factors for f in own.values()]
    bounds = [inner.clip * (f.numel() ** 0.5 if inner.clip_rms else 1.0) for f in leaves]
    limits = torch.tensor(bounds, device=leaves[0].device, dtype=leaves[0].dtype)
    velocity = [torch.zeros_like(f) for f in leaves]
    before = total(blocks, factors, objectives[1:]) if len(objectives) > 1 else torch.zeros_like(limits[0])
    for step in range(inner.steps):
        objective = objectives[step % len(objectives)]
        with torch.enable_grad():
            u = control(blocks, factors, objective.gradient)
        value, slope = objective.slope([x.detach() for x in u])
        if step == 0:
            before = before + value
        pull = _tamed([g for g in pulled(u, leaves, slope) if g is not None], limits)
        torch._foreach_mul_(velocity, inner.momentum)
        torch._foreach_add_(velocity, pull)
        with torch.no_grad():
            torch._foreach_add_(leaves, velocity, alpha=-inner.lr)
    for f in leaves:
        f.requires_grad_(False).nan_to_num_(nan=0.0)
    return before, total(blocks, factors, objectives)


def _tamed(gradients: Sequence[Tensor], limits: Tensor) -> list[Tensor]:
    """Replace non-finite entries, then clip each tensor to its limit; new tensors and no read-back."""
    tame = [g.nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0) for g in gradients]
    norms = torch.stack([n.to(limits.device, limits.dtype) for n in torch._foreach_norm(tame)])
    shares = (limits / norms.clamp_min(torch.finfo(limits.dtype).tiny)).clamp_max(1.0)
    torch._foreach_mul_(tame, list(shares.unbind()))
    return tame


def samples_of(targets: object) -> int:
    """B: the number of class labels, or else the length of the targets."""
    if isinstance(targets, Tensor) and targets.ndim:
        return len(targets) if targets.is_floating_point() else targets.numel()
    return 1
