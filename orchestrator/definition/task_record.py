"""A task's declarations, as the sweep's folder keeps them: a finished sweep is read without the task, or torch.

A folder of an earlier version has no such record; then the task's class is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.definition.resolved import Resolved
from orchestrator.definition.states import Goal


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A metric of a task."""

    goal: Goal
    bounds: tuple[float, float] | None = None
    """Lowest and highest possible value; None: inferred from its name, or unbounded."""


@dataclass(frozen=True, kw_only=True)
class Declares:
    """The declarations of `trainables.Task` that results are read by; see there."""

    metrics: Mapping[str, Declared]
    table: tuple[str, ...] = ()
    figures: frozenset[str] = frozenset()
    game: bool = False
    free: frozenset[str] | None = None
    counts: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON; an infinite end is null."""
        return {
            "metrics": {
                name: {"goal": m.goal, **({"bounds": [_finite(end) for end in m.bounds]} if m.bounds else {})}
                for name, m in self.metrics.items()
            },
            "table": list(self.table),
            "figures": sorted(self.figures),
            "game": self.game,
            "free": None if self.free is None else sorted(self.free),
            "counts": self.counts,
        }


def of_class(task: Any) -> Declares:
    """Of a class of tasks."""
    known = getattr(task, "METRICS", {})
    return Declares(
        metrics={name: Declared(goal=Goal(m.goal), bounds=m.bounds) for name, m in known.items()},
        table=tuple(task.TABLE),
        figures=frozenset(task.FIGURES),
        game=task.GAME,
        free=task.FREE,
        counts=task.COUNTS,
    )


def of_sweep(resolved: Resolved) -> Declares:
    """Of a sweep's resolved.json. Raises KeyError for a task that no longer exists and left no record."""
    kept = resolved.declares
    if kept is None:
        from orchestrator.definition import program

        return of_class(program.declared(resolved.definition, resolved.report_metric))
    return Declares(
        metrics={
            name: Declared(goal=Goal(m["goal"]), bounds=_ends(m["bounds"]) if "bounds" in m else None)
            for name, m in kept["metrics"].items()
        },
        table=tuple(kept["table"]),
        figures=frozenset(kept["figures"]),
        game=bool(kept["game"]),
        free=None if kept["free"] is None else frozenset(kept["free"]),
        counts=str(kept["counts"]),
    )


def _finite(end: float) -> float | None:
    return end if math.isfinite(end) else None


def _ends(kept: Any) -> tuple[float, float]:
    low, high = kept
    return (-math.inf if low is None else float(low), math.inf if high is None else float(high))
