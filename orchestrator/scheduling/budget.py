"""What a sweep may spend, what it has spent, and what the confirm stage still needs.

The search may only spend what the confirm stage does not need: one more round of configurations is begun when it fits
beside the reserve, a round being one configuration of every arm, so that arms get the same effort whatever runs out.
Seconds and GPU-hours of trials to come are reckoned at the pace of those that ended or were stopped.
"""

from __future__ import annotations

from orchestrator.definition.model import Spec
from orchestrator.trial.job import Result

HOUR = 3600.0


class Ledger:
    """The declared limits of a sweep against trials done and trials to come."""

    def __init__(self, spec: Spec) -> None:
        budget = spec.budget
        self._gpu, self._price = spec.resources.gpu, budget.price_per_gpu_hour or 0.0
        named = {
            "grad_evals": budget.grad_evals,
            "wall_clock": budget.wall_clock,
            "gpu_hours": budget.gpu_hours,
            "money": budget.money,
        }
        self.limits = {name: limit for name, limit in named.items() if limit is not None}
        """grad_evals, wall_clock (seconds), gpu_hours and money, those that the sweep file sets."""
        self._seconds = self._trained = 0.0

    def trained(self, result: Result) -> None:
        """A trial ended, or was stopped, with this result."""
        if not result.cached_from:  # one that was taken over says nothing about the pace
            self._seconds += result.seconds
            self._trained += result.grad_evals

    def spent(self, *, grad_evals: float, seconds: float) -> dict[str, float]:
        """What was spent, under the names of the limits; `seconds` of wall clock."""
        hours = self._seconds * self._gpu / HOUR
        return {
            "grad_evals": grad_evals,
            "wall_clock": seconds,
            "gpu_hours": hours,
            "money": hours * self._price,
        }

    def needs(self, grad_evals: float, workers: int) -> dict[str, float]:
        """What so many gradient evaluations on so many workers will spend."""
        seconds = grad_evals * self._seconds / self._trained if self._trained else 0.0
        hours = seconds * self._gpu / HOUR
        return {
            "grad_evals": grad_evals,
            "wall_clock": seconds / max(1, workers),
            "gpu_hours": hours,
            "money": hours * self._price,
        }

    def exceeded(self, *uses: dict[str, float]) -> str:
        """The first limit that the uses together are above, by name, or nothing."""
        for name, limit in self.limits.items():
            if sum(use[name] for use in uses) > limit * (1 + 1e-9):
                return name
        return ""
