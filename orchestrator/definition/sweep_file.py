"""A sweep file, read, checked and resolved. Nothing is started before this has passed.

Every rejection is a `SpecError`: file, line, column, key, the offending value and a way out.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import optim_core
import trainables
from orchestrator.definition import (
    arms,
    budget,
    declared,
    environment,
    every_error,
    foreign,
    grouping,
    method,
    opened,
    packs,
    plan,
    program,
    program_arms,
    resolve,
    task_values,
)
from orchestrator.definition.addresses import EVENTS
from orchestrator.definition.errors import SpecError, read
from orchestrator.definition.isolated import isolated
from orchestrator.definition.json_schema import made
from orchestrator.definition.location import Where
from orchestrator.definition.messages import explained
from orchestrator.definition.model import (
    AnalysisSpec,
    DiagnosticsSpec,
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
from orchestrator.definition.program_keys import is_program
from orchestrator.definition.schema import SweepModel
from orchestrator.definition.space import SpaceError, movable
from orchestrator.definition.states import Goal
from orchestrator.definition.yaml12 import Document, YamlError, parse

NOTE = "# given on the command line: "
"""Starts a line of an effective file for each override in it (see `overrides`)."""


def load(path: Path) -> Spec:
    """Read a sweep file. Raises SpecError."""
    return loads(read(path), str(path))


def loads(text: str, file: str = "<text>") -> Spec:
    """Read a sweep from text; `file` is the name that errors show. Raises SpecError, with all that is wrong."""
    opened.watch()  # before a module of the user is imported
    try:
        document = parse(text)
    except YamlError as error:
        raise SpecError(file, error.line, error.column, error.path, str(error)) from None
    where = Where(file, document)
    if not isinstance(document.value, dict):
        raise where.error((), "is not a sweep: the file must have keys such as name, task, arms")
    if other := foreign.system(document.value):
        raise where.error((), foreign.advice(other, file))
    if foreign.IMPORTED in document.value:
        raise where.error(
            (foreign.IMPORTED,), "a record of imported results, which can be compared and reported, but not run"
        )
    given = tuple(line.removeprefix(NOTE) for line in text.splitlines() if line.startswith(NOTE))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the user's modules print is not part of a document
            return replace(_read(document, file), overrides=given)
    except SpecError as error:
        raise every_error.every(error, document, lambda repaired: _read(repaired, file)) from None


def _read(document: Document, file: str) -> Spec:
    """The sweep of a document. Raises the first SpecError."""
    where = Where(file, document)
    try:
        model = SweepModel.model_validate(document.value)
    except ValidationError as error:
        said = explained(error, document, where)
        said.is_of_form = True
        raise said from None
    return _build(model, where, file)


def _build(model: SweepModel, where: Where, file: str) -> Spec:
    script = is_program(model.task)
    if script:
        return _checked(model, where, file)
    task_values.lookup(model, where)  # what its import sets holds for every trial
    with isolated() as state:  # tasks and optimizers are built to see whether they accept their values
        found = _checked(model, where, file)
        state.settle()
    return found


def _checked(model: SweepModel, where: Where, file: str) -> Spec:
    """The sweep of a form whose task exists."""
    script = is_program(model.task)
    processes = resolve.processes(model, where)
    read = program_arms.resolved(model, where) if script else arms.resolved(model, processes, where)
    task = program.task(model, where) if script else task_values.resolved(model, read, where)
    if script:
        program.check(model, where)
    report = resolve.metrics(model, task.metrics, where)
    seeds = resolve.seeds(model, where)
    found = dict(read.arms)
    if model.analysis.twin and (of := model.analysis.baseline) in found:
        assert of is not None
        if (name := twin_of(of)) in found:
            raise where.error(("arms", name), "analysis.twin adds an arm of this name; rename one")
        found[name] = replace(found[of], name=name)
    constraints = resolve.constraints(model, read, where)
    spec = Spec(
        schema_version=1,
        name=model.name,
        description=model.description,
        task=TaskSpec(
            name=task.name, parameters=task.parameters, folder=program.folder(model.task, where) if script else ""
        ),
        metric=MetricSpec(name=model.metric.name, goal=Goal(model.metric.goal), select=model.metric.select),
        report_metric=report,
        arms=found,
        constraints=constraints,
        method=method.resolved(model, where),
        budget=budget.resolved(model, task.example, where),
        seeds=seeds,
        resources=ResourcesSpec(
            cpu=model.resources.cpu,
            gpu=model.resources.gpu,
            max_concurrent=None if model.resources.max_concurrent == "auto" else int(model.resources.max_concurrent),
            processes=processes,
            pack=model.resources.pack,
            readers=resolve.readers(model, where),
            checkpoints=model.resources.checkpoints,
            checkpoint_every=model.resources.checkpoint_every,
            wait=model.resources.wait,
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
        objectives=tuple(ObjectiveSpec(**o) for o in resolve.objectives(model, task.metrics, where)),
        warm_start=tuple(model.warm_start),
        cache=(trainables.is_bundled(task.name) and not script) if model.cache is None else model.cache,
        diagnostics=DiagnosticsSpec(**resolve.diagnostics(model, where)),
        analysis=AnalysisSpec(**declared.analysis(model, where)),
        outcome_constraints=declared.outcomes(model, task.metrics, where),
        environment=environment.resolved(model, where, file),
        controls=() if script else declared.controls(model, [arm.optimizer for arm in found.values()], where),
        training=resolve.training(model, task.example, read, where),
        source=file,
    )
    for arm in () if script else read.arms.values():
        grouping.check_patterns(spec, arm, where)
    _check_size(spec, where)
    budget.check(spec, where)
    packs.check(spec, {} if script else read.places, where)
    return spec


def _check_size(spec: Spec, where: Where) -> None:
    """Effort that fits the space: grids within their limit, feasible constraints."""
    for arm in spec.arms.values():
        path = ("arms", arm.name)
        changeable = optim_core.changeable(arm.optimizer) if arm.optimizer else frozenset[str]()
        if spec.early_terminate.type == "pbt" and not movable(arm.parameters, changeable):
            raise where.error(
                path,
                f"pbt changes hyperparameters during training, but this arm searches none that can change; search one "
                f"of {', '.join(sorted(changeable))}, or choose another type of early stopping",
            )
        try:
            size = plan.grid_size(spec, arm) if spec.method.name == "grid" else None
            limit = spec.budget.trials_per_arm
            guessed = next((p.name for p in arm.parameters if p.prior_confidence), "")
            if guessed and size is not None:
                raise where.error(path, f"{guessed} has a prior, but a grid tries every value; remove one of them")
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
    return made()
