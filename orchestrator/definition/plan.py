"""From a budget to trials, gradient evaluations, steps and cost: pure arithmetic, nothing is started.

A trial of unit `steps` spends start + n c gradient evaluations, with the cost of its start and c of a step, refreshes
amortised; one of unit `tokens` as many as batches hold so many tokens; one of unit `seconds` what its arm's calibration
says, unknown before it. Of a script only what it is told is known: its trials "spend" its budget in whatever unit that
is, and gradient evaluations only where that is the unit.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optim_core
import trainables
from orchestrator.definition import batches, grouping, program
from orchestrator.definition.model import ArmSpec, Spec, sweep_id
from orchestrator.definition.parts import Parts, split
from orchestrator.definition.planned import ArmPlan, BudgetPlan, Plan
from orchestrator.definition.space import from_unit, grid, satisfied
from trainables.ramp import Ramp

PROBES, DRAWN, MOMENTS = 64, 1000, 32


def grad_evals_of(spec: Spec, arm: ArmSpec, config: Mapping[str, Any]) -> float:
    """Gradient evaluations of a trial of this configuration; nan for a budget in seconds before calibration.

    For a script: its budget, in the budget's own unit.
    """
    budget = spec.budget
    if spec.task.is_program:
        return budget.per_trial
    parts = split(config)
    if budget.unit == "steps":
        return of_steps(arm.optimizer, parts, budget.per_trial)
    if budget.unit == "seconds":
        return budget.calibrated.get(arm.name, math.nan)
    if budget.tokens_per_batch is not None:
        held = batches.per_batch(spec.task.name, spec.task.parameters, parts.task) if parts.task else None
        return budget.per_trial / (held or budget.tokens_per_batch)
    return budget.per_trial


def of_steps(optimizer: str, parts: Parts, steps: float) -> float:
    """Gradient evaluations of so many steps; of a schedule that changes what a step costs, the mean over it."""
    costs = [float(optim_core.cost_per_step(optimizer, **values)) for values in _on_the_way(parts)]
    begun = next(_on_the_way(parts))
    return float(optim_core.cost_of_start(optimizer, **begun)) + steps * sum(costs) / len(costs)


def steps_of(spec: Spec, arm: ArmSpec, config: Mapping[str, Any]) -> int:
    """Optimizer steps that the budget affords with this configuration, after the cost of its start; 0 if unknown."""
    if spec.task.is_program:
        return int(spec.budget.per_trial) if spec.budget.unit == "steps" else 0
    budget = grad_evals_of(spec, arm, config)
    if math.isnan(budget):
        return 0
    found = [optim_core.steps_within(arm.optimizer, budget, **values) for values in _on_the_way(split(config))]
    return int(sum(found) / len(found))


def start_of(arm: ArmSpec, config: Mapping[str, Any]) -> float:
    """Gradient evaluations that this configuration spends before its first step."""
    if not arm.optimizer:
        return 0.0
    return float(optim_core.cost_of_start(arm.optimizer, **next(_on_the_way(split(config)))))


def _on_the_way(parts: Parts) -> Iterator[dict[str, Any]]:
    """The optimizer's arguments, at even shares of the budget where some follow a schedule."""
    ramps = {name: Ramp(**fields) for name, fields in parts.ramps.items()}
    for i in range(MOMENTS if ramps else 1):
        yield {**parts.optimizer, **{name: ramp.at(i / MOMENTS) for name, ramp in ramps.items()}}


def facts(spec: Spec, arm: ArmSpec) -> Callable[[Mapping[str, Any]], dict[str, float]]:
    """What constraints may name besides parameters: `steps` and `grad_evals` of a configuration."""

    def of(config: Mapping[str, Any]) -> dict[str, float]:
        if spec.task.is_program:
            return {spec.budget.unit: spec.budget.per_trial}
        return {"steps": steps_of(spec, arm, config), "grad_evals": grad_evals_of(spec, arm, config)}

    return of


def check_feasible(spec: Spec, arm: ArmSpec) -> None:
    """Raises ValueError if none of DRAWN configurations satisfies the constraints: a search would find nothing."""
    known, draw = facts(spec, arm), random.Random(0)
    for _ in range(DRAWN):
        config = from_unit(arm.parameters, [draw.random() for _ in arm.parameters])
        if satisfied(spec.constraints, config, **known(config)):
            return
    raise ValueError(
        f"none of {DRAWN:,} configurations drawn at random satisfies the constraints ({'; '.join(spec.constraints)}); "
        "loosen them, or change the ranges"
    )


def grid_points(spec: Spec, arm: ArmSpec) -> list[dict[str, Any]]:
    """The points of the arm's grid that satisfy the constraints. Raises SpaceError for a continuous parameter."""
    known = facts(spec, arm)
    return [c for c in grid(arm.parameters) if satisfied(spec.constraints, c, **known(c))]


def grid_size(spec: Spec, arm: ArmSpec) -> int:
    """Points of the arm's grid."""
    found = len(grid_points(spec, arm))
    if not found:
        raise ValueError("no point of the grid satisfies the constraints; loosen them")
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


def grad_evals_range(spec: Spec, arm: ArmSpec) -> tuple[float, float]:
    """Least and most gradient evaluations of a trial over the arm's space; nan for seconds before the calibration."""
    found = [grad_evals_of(spec, arm, config) for config in _probes(arm)]
    return min(found), max(found)


def is_known(spec: Spec) -> bool:
    """Whether the gradient evaluations of trials are known: those of seconds are not before the calibration."""
    if spec.task.is_program:
        return spec.budget.unit == "grad_evals"
    return spec.budget.unit != "seconds" or spec.arms.keys() <= spec.budget.calibrated.keys()


def start_range(arm: ArmSpec) -> tuple[float, float]:
    """Least and most gradient evaluations before the first step over the arm's space."""
    found = [start_of(arm, config) for config in _probes(arm)]
    return min(found), max(found)


def _probes(arm: ArmSpec) -> list[dict[str, Any]]:
    """Configurations whose costs are looked at; one where they cannot differ (dotted names: schedules, the task)."""
    width = len(arm.parameters)
    alike = arm.optimizer and optim_core.costs_alike(arm.optimizer) and not any("." in p.name for p in arm.parameters)
    units = [[((i * (j + 1)) % PROBES + 0.5) / PROBES for j in range(width)] for i in range(1 if alike else PROBES)]
    return [from_unit(arm.parameters, u) for u in units]


def plan(spec: Spec) -> Plan:
    """The plan; of a budget in seconds that is not calibrated, gradient evaluations and steps are unknown."""
    arms = {name: _arm(spec, arm) for name, arm in spec.arms.items()}
    spent = [one.grad_evals for one in arms.values() if one.grad_evals is not None]
    return Plan(
        sweep_id=sweep_id(spec),
        arms=arms,
        total_grad_evals=sum(spent) if len(spent) == len(arms) else None,
        budget=None
        if spec.budget.unit == "grad_evals"
        else BudgetPlan(unit=spec.budget.unit, per_trial=spec.budget.per_trial),
        script=spec.task.parameters["program"] if spec.task.is_program else "",
        notes=list(_notes(spec, arms)),
    )


def _arm(spec: Spec, arm: ArmSpec) -> ArmPlan:
    count, script, several = trials(spec, arm), spec.task.is_program, spec.seeds.studies > 1
    each = _span(*grad_evals_range(spec, arm)) if is_known(spec) else None
    least, most = (0.0, 0.0) if script else start_range(arm)
    return ArmPlan(
        trials=count,
        steps=_steps(spec, arm, each is not None),
        grad_evals_per_trial=each,
        grad_evals=None if each is None else count * (each[1] if isinstance(each, list) else each),
        studies=spec.seeds.studies if several else None,
        configurations_per_study=configurations(spec, arm) if several else None,
        grad_evals_before_first_step=_span(least, most) if most else None,
        per_batch=None if script else batches.span(spec.task.name, spec.task.parameters, arm.parameters),
        groups=grouping.counts(spec, arm) if arm.groups else None,
    )


def whole_by_chance(spec: Spec) -> Iterator[str]:
    """Sentences on real-valued hyperparameters that are searched in whole numbers because their ends are whole."""
    said = set[str]()
    for arm in spec.arms.values() if not spec.task.is_program else ():
        known = optim_core.hyperparameters(arm.optimizer)
        for p in arm.parameters:
            if p.kind != "int" or p.name in said or p.name not in known:
                continue
            kind, default = known[p.name].annotation, known[p.name].default
            if kind in (float, "float") or (isinstance(default, float) and not default.is_integer()):
                said.add(p.name)
                yield (
                    f"{p.name} from {p.low:g} to {p.high:g} is searched in whole numbers only, because both ends are "
                    f"whole; write {p.low:.1f} to search real numbers."
                )


def _notes(spec: Spec, arms: Mapping[str, ArmPlan]) -> Iterator[str]:
    if spec.seeds.studies > 1 and spec.method.name == "grid":
        yield "Every study trains the same points of the grid, on new seeds."
    if (pack := spec.resources.pack) > 1:
        yield f"A worker steps up to {pack} trials of an arm together; times and memory here are of a trial alone."
    yield from whole_by_chance(spec)
    if spec.task.is_program:
        yield from program.promises(spec.task.parameters, spec.budget.unit)
    held = [size for one in arms.values() for size in one.per_batch or ()]
    if held:
        counted = trainables.lookup(spec.task.name).COUNTS
        yield (
            f"A batch holds {min(held):,} to {max(held):,} {counted}, depending on the configuration, so a gradient "
            f"evaluation is not a fixed amount of work; unit: tokens counts {counted}."
            if spec.budget.unit != "tokens"
            else f"A batch holds {min(held):,} to {max(held):,} {counted}, depending on the configuration; "
            "every trial sees the same total."
        )


def _steps(spec: Spec, arm: ArmSpec, known: bool) -> float | list[float] | None:
    if spec.task.is_program:
        return spec.budget.per_trial if spec.budget.unit == "steps" else None
    return _span(*steps_range(spec, arm)) if known else None


def _span(least: float, most: float) -> float | list[float]:
    return least if least == most else [least, most]
