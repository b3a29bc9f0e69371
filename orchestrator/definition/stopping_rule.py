"""The early stopping rule for trials, and its rungs (see `scheduling.stopping`)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How trials of an arm are stopped early."""

    type: str
    """`none`, `asha`, `hyperband`, `median` or `pbt`."""
    eta: int
    """One in this many trials at a rung continues."""
    rungs: tuple[int, ...]
    """Numbers of the evaluations (1, 2, ...) at which trials are judged, the last evaluation left out."""

    def brackets(self) -> int:
        """How many brackets there are: trial number n belongs to bracket n modulo this."""
        return max(1, len(self.rungs)) if self.type == "hyperband" else 1

    def rungs_of(self, number: int) -> tuple[int, ...]:
        """The rungs that configuration `number` of the search is judged at."""
        return self.rungs[number % self.brackets() :]


def rungs(kind: str, *, eta: int, min_share: float, evaluations: int) -> tuple[int, ...]:
    """Evaluations at which trials are judged: min_share x eta^i of the budget, rounded up.

    median: every one from the first; pbt: every min_share of the budget.
    """
    first = max(1, math.ceil(min_share * evaluations - 1e-9))
    if kind == "median":
        return tuple(range(first, evaluations))
    found, at = [], float(first)
    while at < evaluations:
        found.append(math.ceil(at - 1e-9))
        at = at + min_share * evaluations if kind == "pbt" else at * eta
    return tuple(dict.fromkeys(found))
