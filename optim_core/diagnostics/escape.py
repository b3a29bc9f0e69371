"""The two-timescale claim of LLQR+SAM: does SAM leave a narrow well, and does the learned metric decide it?

In a well of curvature c seen by the step, U the learned metric (or I) and g the gradient, SAM's step with heavy-ball
momentum m is

    w <- w - lr c (1 + sam_radius c / |U g|) w + m D,      c = lambda_max(U H)

    escape ratio = lr c (1 + sam_radius c / |U g|) / (2 (1 + m))                   (cf. Dufort-Labbe et al. 2605.16134)

Above 1 the step overshoots the bottom and ends farther away than before. Near the bottom of any well it does, because
|U g| vanishes there: SAM never comes to rest, it jumps from side to side at the distance where the ratio is 1,

    amplitude = lr sam_radius c / (2 (1 + m) - lr c),      infinite from lr c = 2 (1 + m) on.

With momentum there are longer cycles too, some of them several times as wide; this is the one that alternates at every
step. Whether SAM escapes depends on the width of the well along the leading eigenvector of U H: from the bottom to
where the curvature of the loss vanishes and the restoring slope begins to decrease.

    escape reach = amplitude / width

Below 1 the well contains the jumps. Above 1 they pass the point of strongest restoring slope, and escape unless the
remaining slope suffices. 0 on a quadratic, which has no such point. In a consistent basin a slow U has c about 1; in a
well narrower than the memory of the average U, c is far above 1 along a formerly flat axis, and reach and ratio with U
exceed those without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optim_core.diagnostics.basis import Product, gradient, hessian_product, parameters
from optim_core.diagnostics.registry import Subject, diagnostic
from optim_core.diagnostics.sharpness import leading
from optim_core.geometry import LearnedGeometry
from optim_core.llqr_settings import is_positive

FARTHEST = 16.0
"""Widths are searched between 1 / FARTHEST and FARTHEST amplitudes, in steps of sqrt 2."""


def escape_ratio(curvature: float, norm: float, *, lr: float, sam_radius: float = 0.0, momentum: float = 0.0) -> float:
    """Above 1 the step overshoots along the direction of this curvature; `norm` is |U g| of the ascent, above 0."""
    return lr * curvature * (1 + sam_radius * curvature / max(norm, 1e-12)) / (2 * (1 + momentum))


def amplitude(curvature: float, *, lr: float, sam_radius: float = 0.0, momentum: float = 0.0) -> float:
    """Distance from the bottom of a quadratic at which SAM oscillates; infinite if the step diverges, 0 without a
    well.
    """
    if curvature <= 0:
        return 0.0
    room = 2 * (1 + momentum) - lr * curvature
    return lr * sam_radius * curvature / room if room > 0 else math.inf


def width(along: Callable[[float], float], unit: float, epsilon: float) -> float:
    """Distance t from the bottom 0 at which the curvature of the loss `along(t)` vanishes, on the nearer side.

    Chords of the loss between unit / FARTHEST and unit FARTHEST, each sqrt 2 times as far: the first one that is less
    steep than its predecessor by more than rounding (`epsilon` of the loss) is beyond that point. Infinite if there is
    none.
    """
    count = round(4 * math.log2(FARTHEST))
    points = [0.0, *(unit * 2 ** ((k - count / 2) / 2) for k in range(count + 1))]
    found = math.inf
    for side in (1, -1):
        values = [along(side * t) for t in points]
        noise = 4 * epsilon * max(abs(v) for v in values)
        steepest, margin = -math.inf, 0.0
        for k in range(1, len(points)):
            gap = points[k] - points[k - 1]
            slope = (values[k] - values[k - 1]) / gap
            if slope < steepest - margin - noise / gap:
                found = min(found, points[k - 1])
                break
            if slope > steepest:
                steepest, margin = slope, noise / gap
    return found


@diagnostic("escape")
def escape(subject: Subject) -> dict[str, float]:
    """geometry/escape_ratio_plain and geometry/escape_reach_plain with U = I, and both without `_plain` in the learned
    metric; geometry/escape_amplitude likewise, left out where it is infinite.

    For SGD steps: lr, sam_radius and momentum are the current ones of the optimizer's first group. A reach lies in [0,
    16]: 16 also if a step diverges by itself. Without a learned metric, or with one that is not kept positive, only the
    plain values are returned. About 120 gradients per batch.
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
    found = _measured(subject, slope, step, "_plain")
    optimizer = subject.optimizer
    if isinstance(optimizer, LearnedGeometry) and all(is_positive(g) for g in optimizer.param_groups):

        def metric(vectors: Sequence[Tensor]) -> list[Tensor]:
            return _in_metric(optimizer, dict(zip(params, vectors, strict=True)))

        found.update(_measured(subject, slope, step, "", metric))
    return found


def _measured(
    subject: Subject, slope: list[Tensor], step: dict[str, float], suffix: str, metric: Product | None = None
) -> dict[str, float]:
    """Ratio, amplitude and reach in one metric."""
    params, product = parameters(subject), hessian_product(subject)
    curvature, _, direction = leading(product, params, seed=subject.seed, metric=metric)
    with torch.no_grad():
        norm = _norm(slope if metric is None else metric(slope))
    found = {f"geometry/escape_ratio{suffix}": escape_ratio(curvature, norm, **step)}
    size = amplitude(curvature, **step)
    reach = 0.0 if size == 0 else FARTHEST
    if 0 < size < math.inf:
        found[f"geometry/escape_amplitude{suffix}"] = size
        bend = _dot(direction, product(direction))
        bottom = -_dot(direction, slope) / bend if bend > 0 else 0.0
        epsilon = max(torch.finfo(p.dtype).eps for p in params)
        reach = min(size / width(_along(subject, direction, bottom), size, epsilon), FARTHEST)
    return {**found, f"geometry/escape_reach{suffix}": reach}


def _along(subject: Subject, direction: list[Tensor], bottom: float) -> Callable[[float], float]:
    """T -> mean loss over the batches at w + (bottom + t) direction; the weights are restored bit for bit."""
    params = parameters(subject)
    home = [p.detach().clone() for p in params]

    @torch.no_grad()
    def loss(t: float) -> float:
        try:
            for p, w, d in zip(params, home, direction, strict=True):
                p.copy_(w + (bottom + t) * d)
            return float(torch.stack([subject.loss(subject.model(x), y) for x, y in subject.batches]).double().mean())
        finally:
            for p, w in zip(params, home, strict=True):
                p.copy_(w)

    return loss


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


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))
