"""The history of |v| kept by an optimizer for games: divergence, restarts, the measured rate.

Everything is stored as numbers in the first parameter group, so a resumed run continues with the same history.
"""

from __future__ import annotations

import math
from typing import Any

GROWTH = 1e4
WINDOW = 20
FLOOR = 1e-11


class DivergenceWarning(RuntimeWarning):
    """A method for games diverges, or encountered values that are not finite."""


class Trace:
    """A view of the numbers kept in `group`: steps, first, largest and newest |v|, |v| at steps 1, 2, 4, 8, ...

    The geometric milestones are pairs of [gradient evaluations spent before, |v|].
    """

    def __init__(self, group: dict[str, Any]) -> None:
        self._group = group
        group.setdefault("trace", {"steps": 0, "first": 0.0, "largest": 0.0, "recent": [], "milestones": []})
        self._own: dict[str, Any] = group["trace"]

    @property
    def steps(self) -> int:
        """Steps recorded."""
        return int(self._own["steps"])

    @property
    def growth(self) -> float:
        """Largest |v| so far over the first one."""
        return float(self._own["largest"] / self._own["first"]) if self._own["first"] else 1.0

    def record(self, norm: float, grad_evals: float, allowed: float = GROWTH) -> bool:
        """Record |v| before a step and the cost up to its end; True when growth first exceeds `allowed`."""
        own = self._own
        own["steps"] += 1
        if own["first"] == 0:
            own["first"] = norm
        before = self.growth
        own["largest"] = max(own["largest"], norm)
        own["recent"] = [*own["recent"][-WINDOW:], norm]
        if own["steps"] & (own["steps"] - 1) == 0:
            own["milestones"] = [*own["milestones"], [grad_evals, norm]]
        self._own["newest"] = [grad_evals, norm]
        return before <= allowed < self.growth

    def doubled(self) -> bool:
        """Whether |v| is more than twice what it was 20 steps ago."""
        recent = self._own["recent"]
        return len(recent) == WINDOW + 1 and recent[-1] > 2 * recent[0]

    def forget_recent(self) -> None:
        """Start a new window of 20 steps."""
        self._own["recent"] = []

    def rate(self) -> float | None:
        """Measured factor of |v| per gradient evaluation over the last half of the run, None before 8 steps.

        Points below 1e-11 of the first |v|, where rounding dominates, are left out.
        """
        points = [*self._own["milestones"], self._own.get("newest", [0.0, 0.0])]
        usable = [(c, n) for c, n in points if n > FLOOR * self._own["first"] and math.isfinite(n)]
        if self.steps < 8 or len(usable) < 2:
            return None
        cost, norm = usable[-1]
        start = [(c, n) for c, n in usable if c <= cost / 2 + 1] or usable[:1]
        before, earlier = start[-1]
        return float((norm / earlier) ** (1 / (cost - before))) if cost > before else None
