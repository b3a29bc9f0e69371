"""How much an optimizer's second moments differ between coordinates (Zhang et al. 2024, arXiv 2410.19964, Fig. 6).

    spread = std(log10(v + 1e-30)),   ratio = 95th / 5th percentile of v, as log10

Concentrated second moments (small spread) mean less adaptivity; random rotations concentrate them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optim_core.diagnostics.registry import Subject, diagnostic

FLOOR = 1e-30


def spread(v: Tensor) -> float:
    """Population standard deviation of log10(v + 1e-30)."""
    return float((v.reshape(-1).double() + FLOOR).log10().std(correction=0))


def decades(v: Tensor) -> float:
    """log10 of the ratio of the 95th to the 5th percentile of v + 1e-30."""
    logs = (v.reshape(-1).double() + FLOOR).log10().sort().values
    low, high = (logs[round(share * (len(logs) - 1))] for share in (0.05, 0.95))
    return float(high - low)


@diagnostic("second_moment")
def second_moment(subject: Subject) -> dict[str, float]:
    """Means over tensors with at least two coordinates; empty for an optimizer without `exp_avg_sq`."""
    states = subject.optimizer.state.values() if subject.optimizer is not None else ()
    found = [s["exp_avg_sq"] for s in states if isinstance(s.get("exp_avg_sq"), Tensor) and s["exp_avg_sq"].numel() > 1]
    if not found or not all(bool(torch.isfinite(v).all()) for v in found):
        return {}
    return {
        "geometry/second_moment_spread": sum(map(spread, found)) / len(found),
        "geometry/second_moment_decades": sum(map(decades, found)) / len(found),
    }
