"""How close to orthogonal the update of each matrix is (Zhang et al. 2024, arXiv 2410.19964, sections 4.2 and C.4).

    CV = std(s) / mean(s),   score = (sum s)^2 / (k sum s^2) = 1 / (1 + CV^2),   s the k = min(out, in) singular values

Including zeros, population std. 0 and 1: all singular values are equal, as in Muon. Square Gaussian matrices have CV
0.62. In the paper, lower CV went with better training; compare it only between equal shapes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from optim_core.diagnostics.basis import parameters
from optim_core.diagnostics.registry import Subject, diagnostic


def variation(update: Tensor) -> float:
    """CV of the singular values of an update [out, ...], seen as a matrix; NaN for a zero update."""
    s = torch.linalg.svdvals(update.reshape(update.shape[0], -1).double())
    return float(s.std(correction=0) / s.mean())


def score(update: Tensor) -> float:
    """1 / (1 + CV^2), in (0, 1]; 1 is semi-orthogonal up to scale. NaN for a zero update."""
    s = torch.linalg.svdvals(update.reshape(update.shape[0], -1).double())
    return float(s.sum() ** 2 / (len(s) * s.square().sum()))


def next_update(subject: Subject) -> dict[Tensor, Tensor]:
    """What the optimizer would add next to each parameter, on the first batch, without decay; up to the step size.

    A real step from a copy of the optimizer's state, at its peak learning rate, so it works for any optimizer and is
    not lost in rounding; weights and state are restored. [*shape] per parameter.
    """
    optimizer = subject.optimizer
    assert optimizer is not None
    saved, params = copy.deepcopy(optimizer.state_dict()), parameters(subject)
    home = [p.detach().clone() for p in params]
    inputs, targets = subject.batches[0]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = subject.loss(subject.model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    try:
        for group in optimizer.param_groups:
            group["lr"] = group.get("initial_lr", group.get("lr"))
            if "weight_decay" in group:
                group["weight_decay"] = 0.0
        optimizer.step(closure)  # type: ignore[arg-type]
        return {p: p.detach() - w for p, w in zip(params, home, strict=True)}
    finally:
        with torch.no_grad():
            for p, w in zip(params, home, strict=True):
                p.copy_(w)
        optimizer.load_state_dict(saved)


@diagnostic("update_orthogonality")
def update_orthogonality(subject: Subject) -> dict[str, float]:
    """Means over the matrices of the model: geometry/update_cv, geometry/update_score. Costs one optimizer step."""
    if subject.optimizer is None:
        return {}
    updates = [u for u in next_update(subject).values() if u.ndim > 1 and float(u.abs().max()) > 0]
    if not updates or not all(bool(torch.isfinite(u).all()) for u in updates):
        return {}
    return {
        "geometry/update_cv": sum(map(variation, updates)) / len(updates),
        "geometry/update_score": sum(map(score, updates)) / len(updates),
    }
