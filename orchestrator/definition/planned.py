"""What a sweep will cost, arm by arm: made by `plan.plan`, shown by `geosweep plan`, kept in resolved.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Amount = float | Sequence[float] | None
"""A number of steps or gradient evaluations; least and most, if it depends on the configuration; None: unknown."""
SCHEMA = "geosweep/plan/1"


@dataclass(frozen=True, kw_only=True)
class GroupSize:
    """How much of the model is in a group of parameters."""

    tensors: int
    weights: int


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """The trials of one arm."""

    trials: int
    """Over all studies, those of the confirm stage included."""
    steps: Amount = None
    """Of a trial, of the optimizer; of a script, its budget if that is in steps."""
    grad_evals_per_trial: Amount = None
    grad_evals: float | None = None
    """Of all trials, at most."""
    studies: int | None = None
    """None: one."""
    configurations_per_study: int | None = None
    """For several studies."""
    grad_evals_before_first_step: Amount = None
    """None: the optimizer spends none."""
    per_batch: Sequence[float] | None = None
    """What the smallest and the largest batch hold, if batches differ."""
    groups: Mapping[str, GroupSize] | None = None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None or name not in SOMETIMES}


SOMETIMES = {"studies", "configurations_per_study", "grad_evals_before_first_step", "per_batch", "groups"}
"""Fields of an arm's plan that its document has only where they are not None."""


@dataclass(frozen=True, kw_only=True)
class BudgetPlan:
    """What each trial gets."""

    unit: str
    per_trial: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep before it starts."""

    sweep_id: str = ""
    """Empty: of imported results, of which only the trials are known."""
    arms: Mapping[str, ArmPlan] = field(default_factory=dict)
    total_grad_evals: float | None = None
    """At most; None: unknown."""
    budget: BudgetPlan | None = None
    """None: it is in gradient evaluations."""
    script: str = ""
    """The program that trials run; empty: none."""
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Plan:
        """From JSON. Raises TypeError or KeyError for other content."""
        found = {one.name: document[one.name] for one in fields(cls) if one.name in document}
        found["arms"] = {arm: _arm(row) for arm, row in document["arms"].items()}
        if found.get("budget"):
            found["budget"] = BudgetPlan(unit=found["budget"]["unit"], per_trial=found["budget"]["per_trial"])
        return cls(**found)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        if not self.sweep_id:
            return {"arms": {arm: {"trials": one.trials} for arm, one in self.arms.items()}}
        return {
            "schema": SCHEMA,
            "sweep_id": self.sweep_id,
            "arms": {arm: one.document() for arm, one in self.arms.items()},
            "total_grad_evals": self.total_grad_evals,
            **({"budget": asdict(self.budget)} if self.budget else {}),
            **({"script": self.script} if self.script else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }


def _arm(row: Mapping[str, Any]) -> ArmPlan:
    found = {one.name: row[one.name] for one in fields(ArmPlan) if one.name in row}
    if found.get("groups"):
        found["groups"] = {
            name: GroupSize(tensors=size["tensors"], weights=size["weights"]) for name, size in found["groups"].items()
        }
    return ArmPlan(**found)
