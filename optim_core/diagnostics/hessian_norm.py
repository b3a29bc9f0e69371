"""L-infinity geometry in the optimizer's basis (Zhang et al. 2024, arXiv 2410.19964, 4.1; Xie and Li, 2410.08198).

    gradient bound  C(R) = max over batches of |R g|_inf                                              (its Algorithm 1)
    (1,1)-norm      |H|_(1,1) = sum_mn |H_mn|, reported per coordinate, |H|_(1,1) / d

By rows: mean 1-norm of sampled rows H_R e_i, one product each; few rows are a poor sample if rows differ. By Cauchy
probes: for x with independent standard Cauchy entries, (H x)_i is Cauchy with scale |row i|_1, estimated by the median
of |(H x)_i| over the probes; every row is covered, at one product per probe. Both are biased upwards by minibatch
noise: use many batches. The paper found the gradient bound misleading: it decreases under global rotations that train
worse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optim_core.diagnostics.basis import Product, gradient, product_in_basis, shapes_in_basis, to_basis
from optim_core.diagnostics.registry import Subject, diagnostic

PROBES, ROWS = 100, 32


def norm_by_cauchy(product: Product, like: list[Tensor], *, probes: int, seed: int) -> float:
    """|H|_(1,1); error 3% at 200 probes, more if rows depend on each other. Memory: `probes` vectors."""
    draws = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(probes):
        x = [torch.empty(t.shape, dtype=torch.float64).cauchy_(generator=draws).to(t) for t in like]
        seen.append(torch.cat([h.reshape(-1) for h in product(x)]).abs())
    return float(torch.stack(seen).median(0).values.sum())


def norm_by_rows(product: Product, like: list[Tensor], *, rows: int, seed: int) -> float:
    """|H|_(1,1) from `rows` rows drawn without replacement; exact if all coordinates are drawn."""
    d = sum(t.numel() for t in like)
    chosen = torch.randperm(d, generator=torch.Generator().manual_seed(seed))[:rows]
    total = 0.0
    for i in chosen.tolist():
        total += sum(float(h.abs().sum()) for h in product(unit(like, i)))
    return total * d / len(chosen)


def unit(like: list[Tensor], i: int) -> list[Tensor]:
    """The i-th unit vector over all coordinates."""
    flat = torch.zeros(sum(t.numel() for t in like), dtype=like[0].dtype, device=like[0].device)
    flat[i] = 1
    return [x.view_as(t).to(t) for x, t in zip(torch.split(flat, [t.numel() for t in like]), like, strict=True)]


@diagnostic("gradient_linf")
def gradient_linf(subject: Subject) -> dict[str, float]:
    """Largest entry of the rotated gradient over the batches: geometry/gradient_linf. One gradient per batch."""
    largest = 0.0
    for batch in range(len(subject.batches)):
        with torch.enable_grad():
            g = gradient(subject, batch)
        largest = max(largest, *(float(h.abs().max()) for h in to_basis(subject, g) if h.numel()))
    return {"geometry/gradient_linf": largest}


@diagnostic("hessian_11_cauchy")
def hessian_11_cauchy(subject: Subject) -> dict[str, float]:
    """geometry/hessian_11_cauchy: |H|_(1,1) / d by 100 Cauchy probes over the mean loss of the batches."""
    like = shapes_in_basis(subject)
    found = norm_by_cauchy(product_in_basis(subject), like, probes=PROBES, seed=subject.seed)
    return {"geometry/hessian_11_cauchy": found / sum(t.numel() for t in like)}


@diagnostic("hessian_11_rows")
def hessian_11_rows(subject: Subject) -> dict[str, float]:
    """geometry/hessian_11_rows: |H|_(1,1) / d by 32 rows."""
    like = shapes_in_basis(subject)
    found = norm_by_rows(product_in_basis(subject), like, rows=ROWS, seed=subject.seed)
    return {"geometry/hessian_11_rows": found / sum(t.numel() for t in like)}
