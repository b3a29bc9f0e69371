"""A sweep file, read, checked and resolved. Nothing is started before this has passed.

Every rejection is a `SpecError`: file, line, column, key, the offending value and a way out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import optim_core
from orchestrator.definition import budget, declared, plan, resolve
from orchestrator.definition.addresses import EVENTS
from orchestrator.definition.errors import SpecError, read
from orchestrator.definition.location import Where
from orchestrator.definition.messages import explained
from orchestrator.definition.model import (
    AnalysisSpec,
    ArmSpec,
    DiagnosticsSpec,
    MethodSpec,
    MetricSpec,
    NotifySpec,
    ObjectiveSpec,
    ResourcesSpec,
    Spec,
    StoppingSpec,
    TaskSpec,
    TrackingSpec,
    twin_of,
)
from orchestrator.definition.schema import SweepModel
from orchestrator.definition.space import SpaceError, movable
from orchestrator.definition.states import Goal
from orchestrator.definition.yaml12 import YamlError, parse

NOTE = "# given on the command line: "
"""Begins a line of an effective file for each override in it (see `overrides`)."""


def load(path: Path) -> Spec:
    """Read a sweep file. Raises SpecError."""
    return loads(read(path), str(path))


def loads(text: str, file: str = "<text>") -> Spec:
    """Read a sweep from text; `file` is the name that errors show."""
    try:
        document = parse(text)
    except YamlError as error:
        raise SpecError(file, error.line, error.column, error.path, str(error)) from None
    where = Where(file, document)
    if not isinstance(document.value, dict):
        raise where.error((), "is not a sweep: the file has to hold keys such as name, task, arms")
    try:
        model = SweepModel.model_validate(document.value)
    except ValidationError as error:
        raise explained(error, document, where) from None
    given = tuple(line.removeprefix(NOTE) for line in text.splitlines() if line.startswith(NOTE))
    return replace(_build(model, where, file), overrides=given)


def _build(model: SweepModel, where: Where, file: str) -> Spec:
    task_name, task_parameters, metrics = resolve.task(model, where)
    report = resolve.metrics(model, metrics, where)
    seeds = resolve.seeds(model, where)
    arms = {
        name: ArmSpec(name=name, optimizer=optimizer, parameters=parameters)
        for name, (optimizer, parameters) in resolve.arms(model, where).items()
    }
    if model.analysis.twin and (of := model.analysis.baseline) in arms:
        assert of is not None
        if (name := twin_of(of)) in arms:
            raise where.error(("arms", name), "analysis.twin adds an arm of this name; rename one")
        arms[name] = replace(arms[of], name=name)
    resolve.constraints(model, {p.name for a in arms.values() for p in a.parameters}, where)
    spec = Spec(
        schema_version=1,
        name=model.name,
        description=model.description,
        task=TaskSpec(name=task_name, parameters=task_parameters),
        metric=MetricSpec(name=model.metric.name, goal=Goal(model.metric.goal), select=model.metric.select),
        report_metric=report,
        arms=arms,
        constraints=tuple(model.constraints),
        method=MethodSpec(**model.method.model_dump()),
        budget=budget.resolved(model, where),
        seeds=seeds,
        resources=ResourcesSpec(
            cpu=model.resources.cpu,
            gpu=model.resources.gpu,
            max_concurrent=None if model.resources.max_concurrent == "auto" else int(model.resources.max_concurrent),
            processes=resolve.processes(model, where),
            checkpoints=model.resources.checkpoints,
            checkpoint_every=model.resources.checkpoint_every,
        ),
        tracking=TrackingSpec(mlflow=model.tracking.mlflow),
        notify=NotifySpec(
            addresses={event: address for event in EVENTS if (address := getattr(model.notify, event))},
            stuck_after=model.notify.stuck_after,
        ),
        evaluations=model.evaluations,
        max_failed=model.max_failed,
        early_terminate=StoppingSpec(**resolve.stopping(model, where)),
        racing=declared.racing(model, seeds, where),
        objectives=tuple(ObjectiveSpec(**o) for o in resolve.objectives(model, metrics, where)),
        warm_start=tuple(model.warm_start),
        cache=":" not in task_name if model.cache is None else model.cache,
        diagnostics=DiagnosticsSpec(**resolve.diagnostics(model, where)),
        analysis=AnalysisSpec(**declared.analysis(model, where)),
        controls=declared.controls(model, [arm.optimizer for arm in arms.values()], where),
        training=resolve.training(model, where),
        source=file,
    )
    _check_size(spec, where)
    budget.check(spec, where)
    return spec


def _check_size(spec: Spec, where: Where) -> None:
    """Effort that fits the space: grids within their limit, feasible constraints."""
    for arm in spec.arms.values():
        path = ("arms", arm.name)
        changeable = optim_core.changeable(arm.optimizer)
        if spec.early_terminate.type == "pbt" and not movable(arm.parameters, changeable):
            raise where.error(
                path,
                f"pbt changes hyperparameters while training, and this arm searches none that can change; search one "
                f"of {', '.join(sorted(changeable))}, or stop early by another type",
            )
        try:
            size = plan.grid_size(spec, arm) if spec.method.name == "grid" else None
            limit = spec.budget.trials_per_arm
            if size is None and limit is None:
                raise where.error(("budget",), "trials_per_arm: missing; say how many configurations each arm may try")
            if size is not None and limit is not None and limit < size:
                raise where.error(
                    ("budget", "trials_per_arm"),
                    f"{limit}, but the grid of arm {arm.name} has {size} points; raise it, or leave it out",
                )
            if spec.constraints and size is None:
                plan.check_feasible(spec, arm)
            plan.steps_range(spec, arm)
        except (SpaceError, TypeError, ValueError) as error:
            if isinstance(error, SpecError):
                raise
            raise where.error(path, str(error)) from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the format, for editors."""
    return SweepModel.model_json_schema()
