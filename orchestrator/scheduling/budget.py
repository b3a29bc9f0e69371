"""What a sweep may spend, what it has spent, and what the confirm stage still needs.

The search may spend only what the confirm stage does not need: another round of configurations starts if it fits in
addition to the reserve. A round is one configuration of every arm, so all arms get the same effort whichever limit is
reached. Seconds and GPU-hours of future trials are estimated from the pace of those that ended or were stopped.
"""

from __future__ import annotations

from orchestrator.definition.model import Spec
from orchestrator.trial.job import Result

HOUR = 3600.0


class Ledger:
    """The declared limits of a sweep, its past trials and its future ones."""

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
        """grad_evals, wall_clock (seconds), gpu_hours and money: those set in the sweep file."""
        self._seconds = self._trained = 0.0

    def trained(self, result: Result) -> None:
        """Record a trial that ended or was stopped."""
        if not result.cached_from:  # a reused trial says nothing about the pace
            self._seconds += result.seconds
            self._trained += result.grad_evals

    def spent(self, *, grad_evals: float, seconds: float) -> dict[str, float]:
        """Amounts spent, by name of the limit; `seconds` of wall clock."""
        hours = self._seconds * self._gpu / HOUR
        return {
            "grad_evals": grad_evals,
            "wall_clock": seconds,
            "gpu_hours": hours,
            "money": hours * self._price,
        }

    def needs(self, grad_evals: float, workers: int) -> dict[str, float]:
        """What this many gradient evaluations on this many workers will cost."""
        seconds = grad_evals * self._seconds / self._trained if self._trained else 0.0
        hours = seconds * self._gpu / HOUR
        return {
            "grad_evals": grad_evals,
            "wall_clock": seconds / max(1, workers),
            "gpu_hours": hours,
            "money": hours * self._price,
        }

    def exceeded(self, *uses: dict[str, float]) -> str:
        """The name of the first limit that the sum of the uses exceeds; empty if none."""
        for name, limit in self.limits.items():
            if sum(use[name] for use in uses) > limit * (1 + 1e-9):
                return name
        return ""
