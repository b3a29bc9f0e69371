"""A table by the values of a hyperparameter: its rows, and the whole as `geosweep table --json` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.definition.states import Goal, Stage
from orchestrator.statistics.pairing import Unit


@dataclass(frozen=True, kw_only=True)
class AgainstBaseline:
    """A row against the baseline of its optimizer, on shared seeds with equal initial weights and data."""

    n: int
    """Studies or seeds."""
    difference: float
    interval: tuple[float, float] | None
    """95% t, as all of the table; None for a single unit."""
    ratio: float | None
    """Of the means; None unless the baseline's is above zero."""
    slowdown: float | None
    """How much longer it took to the same training loss, as `statistics.slowdown` has it; None: never there."""
    slowdown_n: int

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "interval": self.interval and list(self.interval)}


@dataclass(frozen=True, kw_only=True)
class Row:
    """The best configuration of an optimizer with one value of the hyperparameter."""

    optimizer: str
    value: Any
    arm: str
    """The first that has it."""
    stage: Stage
    configurations: int
    """Tried with this value."""
    feasible: bool | None
    """Whether it satisfies the outcome constraints; None in a sweep without any."""
    parameters: Mapping[str, Any]
    """What was chosen besides the value. Over several studies, where they differ: the lowest and highest number, or
    all values.
    """
    differ: Sequence[str]
    """Names of these."""
    n: int
    """Studies or seeds."""
    diverged: int
    """Trials that did."""
    mean: float | None
    """None: all diverged, or it was not measured."""
    interval: tuple[float, float] | None
    against_baseline: AgainstBaseline | None
    """None: there is none, it is the row itself, or nothing is shared."""
    columns: Mapping[str, float | None]
    """Further final metrics."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = {**vars(self), "interval": self.interval and list(self.interval)}
        found["against_baseline"] = self.against_baseline and self.against_baseline.document()
        if self.feasible is None:
            del found["feasible"]
        return found


@dataclass(frozen=True, kw_only=True)
class ByValue:
    """One row per value of a hyperparameter."""

    sweep_id: str = ""
    by: str
    metric: str
    tuned: str
    goal: Goal
    """Of the tuned metric."""
    baseline: str | None
    columns: Sequence[str]
    """Further final metrics."""
    unit: Unit
    varied: Sequence[str]
    """Parameters other than `by` that take more than one value."""
    rows: Sequence[Row]
    """By optimizer, the best first."""
    bounds: tuple[float, float] | None = None
    """Range of the metric, if it has one."""
    reused: Mapping[str, int] = field(default_factory=dict)
    """Arm -> trials whose result is that of an earlier sweep."""
    exploratory: Sequence[str] = ()

    def document(self) -> dict[str, Any]:
        """As JSON; what there is nothing to say about is left out."""
        found = {"schema": "geosweep/table/1", **vars(self), "rows": [row.document() for row in self.rows]}
        found["bounds"] = self.bounds and list(self.bounds)
        return {name: value for name, value in found.items() if value or name not in ("bounds", "reused")}
