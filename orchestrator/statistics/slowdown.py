"""How much longer one learning curve takes than another to reach the same loss (after Zhang et al. 2024, arXiv
2410.19964).

With L the final loss of the slower run and T its length, and T_0 the first step at which the baseline is at L or below:

    slowdown = T / T_0 - 1;   when the baseline is slower, roles are swapped and the sign is flipped

A loss here is already a mean over the steps between two evaluations. Curves are linear between points.
"""

from __future__ import annotations

from collections.abc import Sequence

Curve = Sequence[tuple[float, float]]
"""(step in gradient evaluations, loss), in increasing order of steps."""


def slowdown(curve: Curve, baseline: Curve) -> float | None:
    """0.16: 16% longer than the baseline; negative: faster. None if a curve is empty or not finite at its end."""
    if not curve or not baseline or not _finite(curve[-1][1]) or not _finite(baseline[-1][1]):
        return None
    if curve[-1][1] >= baseline[-1][1]:
        return curve[-1][0] / _reaches(baseline, curve[-1][1]) - 1
    return -(baseline[-1][0] / _reaches(curve, baseline[-1][1]) - 1)


def relative(slowdown: float) -> float:
    """The same relative to the baseline's length: 0.16 for 16% longer, -0.5 for half as long; above -1."""
    return slowdown if slowdown >= 0 else 1 / (1 - slowdown) - 1


def _reaches(curve: Curve, level: float) -> float:
    """First step at which the curve, which ends at or below `level`, reaches it."""
    before: tuple[float, float] | None = None
    for step, loss in curve:
        if loss <= level:
            if before is None:
                return step
            share = (before[1] - level) / (before[1] - loss)
            return before[0] + share * (step - before[0])
        before = (step, loss)
    return curve[-1][0]


def _finite(x: float) -> bool:
    return abs(x) < float("inf")
