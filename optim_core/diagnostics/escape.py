"""The two-timescale claim of LLQR+SAM: does a step leave a narrow well, and does the learned metric decide it?

On a local quadratic with curvature c seen by the step, U the learned metric (or I) and g the gradient, SAM's step is

    w <- w - lr c (1 + sam_radius c / |U g|) w,      c = lambda_max(U H)

which overshoots, and climbs out of the well, when (with heavy-ball momentum)

    escape ratio = lr c (1 + sam_radius c / |U g|) / (2 (1 + momentum)) > 1        (cf. Dufort-Labbe et al. 2605.16134)

In a consistent basin a slow U has c about 1; in a well that is narrower than the average U remembers, c is far above 1
along an axis that was flat, and the ratio with U exceeds the ratio without. Both are reported.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from optim_core.diagnostics.basis import gradient, hessian_product, parameters
from optim_core.diagnostics.registry import Subject, diagnostic
from optim_core.diagnostics.sharpness import largest_eigenvalue
from optim_core.geometry import LearnedGeometry
from optim_core.llqr_settings import is_positive


def escape_ratio(curvature: float, norm: float, *, lr: float, sam_radius: float = 0.0, momentum: float = 0.0) -> float:
    """Above 1 the step overshoots along the direction of this curvature; `norm` is |U g| of the ascent, above 0."""
    return lr * curvature * (1 + sam_radius * curvature / max(norm, 1e-12)) / (2 * (1 + momentum))


@diagnostic("escape")
def escape(subject: Subject) -> dict[str, float]:
    """geometry/escape_ratio_plain with U = I and geometry/escape_ratio in the optimizer's learned metric.

    lr, sam_radius and momentum are those of the optimizer's first group as they stand. Without a learned metric, or
    with one that is not kept positive, only the plain ratio is there. About 90 gradients for each batch.
    """
    group = subject.optimizer.param_groups[0] if subject.optimizer is not None else {}
    step = {
        "lr": float(group.get("lr", 1.0)),
        "sam_radius": float(group.get("sam_radius", 0.0)),
        "momentum": float(group.get("momentum", 0.0)) if group.get("base", "sgd") == "sgd" else 0.0,
    }
    params = parameters(subject)
    slopes = [gradient(subject, i) for i in range(len(subject.batches))]
    slope = [torch.stack(parts).mean(0) for parts in zip(*slopes, strict=True)]
    product = hessian_product(subject)
    curvature, _ = largest_eigenvalue(product, params, seed=subject.seed)
    found = {"geometry/escape_ratio_plain": escape_ratio(curvature, _norm(slope), **step)}
    optimizer = subject.optimizer
    if isinstance(optimizer, LearnedGeometry) and all(is_positive(g) for g in optimizer.param_groups):

        def metric(vectors: Sequence[Tensor]) -> list[Tensor]:
            return _in_metric(optimizer, dict(zip(params, vectors, strict=True)))

        with torch.no_grad():
            turned = metric(slope)
        curvature, _ = largest_eigenvalue(product, params, seed=subject.seed, metric=metric)
        found["geometry/escape_ratio"] = escape_ratio(curvature, _norm(turned), **step)
    return found


@torch.no_grad()
def _in_metric(optimizer: LearnedGeometry, vectors: dict[Tensor, Tensor]) -> list[Tensor]:
    """U v, in the order of `vectors`."""
    turned: dict[Tensor, Tensor] = {}
    for group in optimizer.param_groups:
        own = [p for p in group["params"] if p in vectors]
        turned.update(zip(own, optimizer.precondition(group, own, [vectors[p] for p in own]), strict=True))
    return [turned[p] for p in vectors]


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors)))))
