"""A sweep file, read, checked and resolved. Nothing is started before this has passed.

Every rejection is a `SpecError`: file, line, column, key, the offending value and a way out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from orchestrator import declared, resolve
from orchestrator.errors import SpecError, read
from orchestrator.explain import explained
from orchestrator.race import Racing
from orchestrator.schema import SweepModel
from orchestrator.space import Parameter
from orchestrator.stopping import Rule
from orchestrator.where import Where
from orchestrator.yaml12 import YamlError, parse

__all__ = ["ArmSpec", "Spec", "SpecError", "definition", "json_schema", "load", "loads", "sweep_id"]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Data, model, loss and metrics."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """What is tuned."""

    name: str
    goal: Literal["minimize", "maximize"]
    select: str


@dataclass(frozen=True, kw_only=True)
class ArmSpec:
    """One optimizer with its space, shared parameters merged in, parents first."""

    name: str
    optimizer: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """How configurations are proposed."""

    name: str
    random_share: float
    seed: int
    replay: str
    lag: int


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """What may be spent; times in seconds."""

    unit: str
    per_trial: float
    trials_per_arm: int | None
    wall_clock: float | None
    grad_evals: float | None
    gpu_hours: float | None
    money: float | None
    price_per_gpu_hour: float | None


@dataclass(frozen=True, kw_only=True)
class SeedsSpec:
    """Disjoint sets of seeds."""

    tune: tuple[int, ...]
    confirm: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ResourcesSpec:
    """What one trial gets."""

    cpu: int
    gpu: float
    max_concurrent: int | None
    processes: int = 1
    """Workers that train one trial together."""
    checkpoints: int | None = None
    """Bytes for the checkpoints of all trials."""
    checkpoint_every: float = 10.0
    """Seconds."""


@dataclass(frozen=True, kw_only=True)
class TrackingSpec:
    """Where runs are shown."""

    mlflow: str | None


@dataclass(frozen=True, kw_only=True)
class StoppingSpec(Rule):
    """How trials are stopped early, and how many of the stopped ones are finished."""

    audit_share: float = 0.0


NEVER = StoppingSpec(type="none", eta=3, rungs=())


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """A further metric of a multi-objective search."""

    name: str
    goal: Literal["minimize", "maximize"]


@dataclass(frozen=True, kw_only=True)
class DiagnosticsSpec:
    """What trials measure while they train; nothing when there are no names."""

    names: tuple[str, ...] = ()
    every: int = 1
    batches: int = 1


@dataclass(frozen=True, kw_only=True)
class AnalysisSpec:
    """What `compare` does unless told otherwise."""

    baseline: str | None = None
    margin: float = 0.0
    alpha: float = 0.05
    expected_best: bool = True
    waive: Mapping[str, str] = field(default_factory=dict)
    """Code of a fairness rule -> why it is broken on purpose."""


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """How trials are trained, the task's recipe included; the fields of `trainables.recipe.Recipe` and a limit."""

    schedule: str = "cosine"
    warmup: float = 0.0
    final_lr: float = 0.0
    precision: str = "fp32"
    accumulate: int = 1
    clip_norm: float = 0.0
    weight_average: float = 0.0
    compile: bool = False
    step_timeout: float | None = 600.0
    """Seconds."""

    def recipe(self) -> dict[str, Any]:
        """What changes results."""
        return {key: value for key, value in asdict(self).items() if key != "step_timeout"}


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A sweep, resolved: every default filled in."""

    schema_version: int
    name: str
    description: str
    task: TaskSpec
    metric: MetricSpec
    report_metric: str
    arms: Mapping[str, ArmSpec]
    constraints: tuple[str, ...]
    method: MethodSpec
    budget: BudgetSpec
    seeds: SeedsSpec
    resources: ResourcesSpec
    tracking: TrackingSpec
    evaluations: int
    max_failed: int
    early_terminate: StoppingSpec = NEVER
    racing: Racing | None = None
    objectives: tuple[ObjectiveSpec, ...] = ()
    warm_start: tuple[str, ...] = ()
    cache: bool = True
    diagnostics: DiagnosticsSpec = field(default_factory=DiagnosticsSpec)
    analysis: AnalysisSpec = field(default_factory=AnalysisSpec)
    controls: tuple[str, ...] = ()
    training: TrainingSpec = field(default_factory=TrainingSpec)
    source: str = field(default="", compare=False)


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
    return _build(model, where, file)


def _build(model: SweepModel, where: Where, file: str) -> Spec:
    task_name, task_parameters, metrics = resolve.task(model, where)
    report = resolve.metrics(model, metrics, where)
    tune, confirm = resolve.seeds(model, where)
    arms = {
        name: ArmSpec(name=name, optimizer=optimizer, parameters=parameters)
        for name, (optimizer, parameters) in resolve.arms(model, where).items()
    }
    resolve.constraints(model, {p.name for a in arms.values() for p in a.parameters}, where)
    spec = Spec(
        schema_version=1,
        name=model.name,
        description=model.description,
        task=TaskSpec(name=task_name, parameters=task_parameters),
        metric=MetricSpec(name=model.metric.name, goal=model.metric.goal, select=model.metric.select),
        report_metric=report,
        arms=arms,
        constraints=tuple(model.constraints),
        method=MethodSpec(**model.method.model_dump()),
        budget=BudgetSpec(**model.budget.model_dump()),
        seeds=SeedsSpec(tune=tune, confirm=confirm),
        resources=ResourcesSpec(
            cpu=model.resources.cpu,
            gpu=model.resources.gpu,
            max_concurrent=None if model.resources.max_concurrent == "auto" else int(model.resources.max_concurrent),
            processes=resolve.processes(model, where),
            checkpoints=model.resources.checkpoints,
            checkpoint_every=model.resources.checkpoint_every,
        ),
        tracking=TrackingSpec(mlflow=model.tracking.mlflow),
        evaluations=model.evaluations,
        max_failed=model.max_failed,
        early_terminate=StoppingSpec(**resolve.stopping(model, where)),
        racing=declared.racing(model, len(confirm), where),
        objectives=tuple(ObjectiveSpec(**o) for o in resolve.objectives(model, metrics, where)),
        warm_start=tuple(model.warm_start),
        cache=model.cache,
        diagnostics=DiagnosticsSpec(**resolve.diagnostics(model, where)),
        analysis=AnalysisSpec(**declared.analysis(model, where)),
        controls=declared.controls(model, {a.name: a.optimizer for a in arms.values()}, where),
        training=TrainingSpec(**resolve.training(model, where)),
        source=file,
    )
    resolve.budget(model, len(arms), len(confirm), where)
    _check_size(spec, where)
    return spec


def _check_size(spec: Spec, where: Where) -> None:
    """Effort that fits the space: grids within their limit, feasible constraints, at least one step of each arm."""
    import optim_core
    from orchestrator import plan
    from orchestrator.population import movable
    from orchestrator.space import SpaceError

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
            steps = plan.steps_range(spec, arm)
        except (SpaceError, TypeError, ValueError) as error:
            if isinstance(error, SpecError):
                raise
            raise where.error(path, str(error)) from None
        if steps[0] < 1:
            raise where.error(
                ("budget", "per_trial"), f"{spec.budget.per_trial:g} is less than one step of arm {arm.name}; raise it"
            )
    if spec.evaluations > spec.budget.per_trial:
        raise where.error(
            ("evaluations",),
            f"{spec.evaluations} in a trial of {spec.budget.per_trial:g} gradient evaluations; lower it",
        )


def definition(spec: Spec) -> dict[str, Any]:
    """Everything that changes results, as plain JSON; the sweep's id is its hash."""
    found = asdict(spec)
    for key in ("description", "resources", "tracking", "source", "max_failed", "cache", "analysis", "controls"):
        del found[key]
    for key in ("wall_clock", "grad_evals", "gpu_hours", "money", "price_per_gpu_hour"):
        del found["budget"][key]
    # What is at its default is left out, so that sweeps of earlier versions keep their ids.
    if spec.method.replay == "off":
        del found["method"]["replay"], found["method"]["lag"]
    for key, used in (
        ("diagnostics", bool(spec.diagnostics.names)),
        ("early_terminate", spec.early_terminate != NEVER),
        ("racing", spec.racing is not None),
        ("objectives", bool(spec.objectives)),
        ("warm_start", bool(spec.warm_start)),
    ):
        if not used:
            del found[key]
    found["training"] = spec.training.recipe()
    if found["training"] == TrainingSpec().recipe():
        del found["training"]
    plain: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True))
    return plain


def sweep_id(spec: Spec) -> str:
    """`<name>-<first 8 hex of the hash of the definition>`."""
    text = json.dumps(definition(spec), sort_keys=True, separators=(",", ":"))
    return f"{spec.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the format, for editors."""
    return SweepModel.model_json_schema()
