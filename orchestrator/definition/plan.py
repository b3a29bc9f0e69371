"""From a budget in gradient evaluations to trials, steps and cost. Pure arithmetic, nothing is started."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import optim_core
from orchestrator.definition.model import ArmSpec, Spec, sweep_id
from orchestrator.definition.space import from_unit, grid, satisfied

PROBES, DRAWN = 64, 1000


def steps_of(spec: Spec, arm: ArmSpec, config: Mapping[str, Any]) -> int:
    """Optimizer steps that the budget affords with this configuration, after what its start costs."""
    return optim_core.steps_within(arm.optimizer, spec.budget.per_trial, **config)


def start_of(arm: ArmSpec, config: Mapping[str, Any]) -> float:
    """Gradient evaluations that this configuration spends before its first step."""
    return float(optim_core.cost_of_start(arm.optimizer, **config))


def facts(spec: Spec, arm: ArmSpec) -> Callable[[Mapping[str, Any]], dict[str, float]]:
    """What constraints may name besides parameters: `steps` and `grad_evals` of a configuration."""

    def of(config: Mapping[str, Any]) -> dict[str, float]:
        return {"steps": steps_of(spec, arm, config), "grad_evals": spec.budget.per_trial}

    return of


def check_feasible(spec: Spec, arm: ArmSpec) -> None:
    """Raises ValueError when none of DRAWN configurations obeys the constraints: a search would look in vain."""
    known, draw = facts(spec, arm), random.Random(0)
    for _ in range(DRAWN):
        config = from_unit(arm.parameters, [draw.random() for _ in arm.parameters])
        if satisfied(spec.constraints, config, **known(config)):
            return
    raise ValueError(
        f"none of {DRAWN:,} configurations drawn at random obeys the constraints ({'; '.join(spec.constraints)}); "
        "loosen them, or change the ranges"
    )


def grid_points(spec: Spec, arm: ArmSpec) -> list[dict[str, Any]]:
    """The arm's grid, constraints obeyed. Raises SpaceError for a continuous parameter."""
    known = facts(spec, arm)
    return [c for c in grid(arm.parameters) if satisfied(spec.constraints, c, **known(c))]


def grid_size(spec: Spec, arm: ArmSpec) -> int:
    """Points of the arm's grid."""
    found = len(grid_points(spec, arm))
    if not found:
        raise ValueError("no point of the grid obeys the constraints; loosen them")
    return found


def configurations(spec: Spec, arm: ArmSpec) -> int:
    """Configurations that each study of this arm tries."""
    if spec.method.name == "grid":
        return grid_size(spec, arm)
    assert spec.budget.trials_per_arm is not None
    return spec.budget.trials_per_arm


def trials(spec: Spec, arm: ArmSpec) -> int:
    """Trials of an arm: every configuration of every study on the study's tune seeds, and the confirm seeds."""
    return configurations(spec, arm) * len(spec.seeds.tune) + len(spec.seeds.confirm)


def steps_range(spec: Spec, arm: ArmSpec) -> tuple[int, int]:
    """Fewest and most steps over the arm's space (probed along its diagonals)."""
    found = [steps_of(spec, arm, config) for config in _probes(arm)]
    return min(found), max(found)


def start_range(arm: ArmSpec) -> tuple[float, float]:
    """Least and most gradient evaluations before the first step over the arm's space."""
    found = [start_of(arm, config) for config in _probes(arm)]
    return min(found), max(found)


def _probes(arm: ArmSpec) -> list[dict[str, Any]]:
    width = len(arm.parameters)
    units = [[((i * (j + 1)) % PROBES + 0.5) / PROBES for j in range(width)] for i in range(PROBES)]
    return [from_unit(arm.parameters, u) for u in units]


def plan(spec: Spec) -> dict[str, Any]:
    """The `plan` document."""
    arms: dict[str, dict[str, Any]] = {}
    for name, arm in spec.arms.items():
        count = trials(spec, arm)
        low, high = steps_range(spec, arm)
        least, most = start_range(arm)
        arms[name] = {
            "trials": count,
            "steps": low if low == high else [low, high],
            "grad_evals_per_trial": spec.budget.per_trial,
            "grad_evals": count * spec.budget.per_trial,
        }
        if spec.seeds.studies > 1:
            arms[name] |= {"studies": spec.seeds.studies, "configurations_per_study": configurations(spec, arm)}
        if most:
            arms[name]["grad_evals_before_first_step"] = least if least == most else [least, most]
    total = sum(row["grad_evals"] for row in arms.values())
    document = {"schema": "geosweep/plan/1", "sweep_id": sweep_id(spec), "arms": arms, "total_grad_evals": total}
    if spec.seeds.studies > 1 and spec.method.name == "grid":
        document["notes"] = ["Every study trains the same points of the grid, on new seeds."]
    return document
