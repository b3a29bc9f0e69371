"""A sweep, resolved: every default filled in, nothing left to look up. Its id is the hash of what changes results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.definition.outcome import OutcomeConstraint
from orchestrator.definition.racing import Racing
from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Goal
from orchestrator.definition.stopping_rule import Rule

if TYPE_CHECKING:
    from trainables.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Data, model, loss and metrics."""

    name: str
    parameters: Mapping[str, Any]
    """The fixed parameters: those that every arm searches are left out."""
    folder: str = field(default="", compare=False)
    """For a script: the folder on this machine that its path is relative to."""

    @property
    def is_program(self) -> bool:
        """Whether it is a script of the user's (see `program`)."""
        return bool(self.folder)


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """What is tuned."""

    name: str
    goal: Goal
    select: str


@dataclass(frozen=True, kw_only=True)
class ArmSpec:
    """One optimizer with its space, shared parameters merged in, parents first."""

    name: str
    optimizer: str
    """Empty when a script's arm names none."""
    parameters: tuple[Parameter, ...]
    """Dotted names are of the task, of training, of groups and of schedules (see `parts`)."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Group of the model's parameters -> patterns of their names; the first that matches has them."""


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """How configurations are proposed."""

    name: str
    random_share: float
    seed: int
    replay: str
    lag: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """For a third-party sampler (see `method`)."""
    ref: str = ""
    registry: str = ""


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """What may be spent; times in seconds."""

    unit: str
    """grad_evals, steps, seconds or tokens."""
    per_trial: float
    """In that unit."""
    trials_per_arm: int | None
    wall_clock: float | None
    grad_evals: float | None
    gpu_hours: float | None
    money: float | None
    price_per_gpu_hour: float | None
    tokens_per_batch: int | None = None
    """For unit tokens: how many a nominal batch holds, according to the task."""
    first_trials: int | None = None
    """For an extended sweep: the configurations of each study as first planned."""
    calibrated: Mapping[str, float] = field(default_factory=dict)
    """For unit seconds: arm -> gradient evaluations of each of its trials, once known."""


@dataclass(frozen=True, kw_only=True)
class SeedsSpec:
    """Disjoint sets of seeds, those of study 1 first; every study has equally many."""

    tune: tuple[int, ...]
    confirm: tuple[int, ...]
    studies: int = 1
    """Independent searches of each arm."""
    first_is_unnumbered: bool = False
    """Study 1 was the only one until others were added: names omit its number."""

    def index(self, study: int) -> int | None:
        """The number of a study in names, counted from 1; None for one that is, or was, the only one."""
        return None if self.studies == 1 or (self.first_is_unnumbered and study == 1) else study

    def tune_of(self, study: int) -> tuple[int, ...]:
        """The tune seeds of a study, counted from 1."""
        return _share(self.tune, self.studies, study)

    def confirm_of(self, study: int) -> tuple[int, ...]:
        """The confirm seeds of a study, counted from 1."""
        return _share(self.confirm, self.studies, study)


def _share(seeds: tuple[int, ...], studies: int, study: int) -> tuple[int, ...]:
    each = len(seeds) // studies
    return seeds[(study - 1) * each : study * each]


@dataclass(frozen=True, kw_only=True)
class ResourcesSpec:
    """What one trial gets."""

    cpu: int
    gpu: float
    max_concurrent: int | None
    processes: int = 1
    """Processes that train one trial together."""
    pack: int = 1
    """Trials of one arm that a worker steps together."""
    readers: int = 0
    """Threads of each process of a trial that prepare batches ahead."""
    checkpoints: int | None = None
    """Bytes for the checkpoints of all trials."""
    checkpoint_every: float = 10.0
    """Seconds."""
    wait: float = 7200.0
    """Seconds without any worker after which the sweep gives up."""


@dataclass(frozen=True, kw_only=True)
class TrackingSpec:
    """Where runs are shown."""

    mlflow: str | None


@dataclass(frozen=True, kw_only=True)
class NotifySpec:
    """Where messages go."""

    addresses: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Event -> address, references to variables as they stand in the file."""
    stuck_after: float = 1800.0
    """Seconds."""


@dataclass(frozen=True, kw_only=True)
class StoppingSpec(Rule):
    """How trials are stopped early, and how many of the stopped ones are finished."""

    audit_share: float = 0.0


NEVER = StoppingSpec(type="none", eta=3, rungs=())


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """An additional metric of a multi-objective search."""

    name: str
    goal: Goal


@dataclass(frozen=True, kw_only=True)
class DiagnosticsSpec:
    """What trials measure while they train; nothing when there are no names."""

    names: tuple[str, ...] = ()
    every: int = 1
    batches: int = 1


@dataclass(frozen=True, kw_only=True)
class AnalysisSpec:
    """What `compare` does by default."""

    baseline: str | None = None
    margin: float = 0.0
    alpha: float = 0.05
    expected_best: bool = True
    twin: bool = False
    """Whether an identical copy of the baseline is an arm, too (see `twin_of`)."""
    waive: Mapping[str, str] = field(default_factory=dict)
    """Code of a fairness rule -> why it is broken on purpose."""
    looks: int = 1
    """How often results are looked at: so many parts of alpha are made (see `statistics.spending`)."""

    @property
    def first_level(self) -> float:
        """Level of the tests at the first look at results."""
        return self.alpha / self.looks


def twin_of(baseline: str) -> str:
    """The name of the arm that is an identical copy of the baseline, tuned on its own."""
    return f"{baseline}-twin"


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """How trials are trained: the task's recipe with what the file changes, and a limit that changes no result."""

    recipe: Recipe
    step_timeout: float | None = 600.0
    """Seconds."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec:
    """What trials need on other machines; empty when geosweep itself suffices."""

    requirements: tuple[str, ...] = ()
    """Extra packages, each pinned."""
    image: str = ""
    file: Path | None = field(default=None, compare=False)
    """The requirements file, if they were read from one."""


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
    training: TrainingSpec
    outcome_constraints: tuple[OutcomeConstraint, ...] = ()
    environment: EnvironmentSpec = field(default_factory=EnvironmentSpec)
    source: str = field(default="", compare=False)
    notify: NotifySpec = field(default_factory=NotifySpec, compare=False)
    overrides: tuple[str, ...] = field(default=(), compare=False)
    """Keys that were given on the command line, as it shows them."""


def comparisons(spec: Spec) -> int:
    """How many comparisons the declared analysis makes, not counting the twin's."""
    arms = len(spec.arms) - spec.analysis.twin
    return arms - 1 if spec.analysis.baseline else arms * (arms - 1) // 2


def definition(spec: Spec) -> dict[str, Any]:
    """Everything that changes results, as plain JSON; the sweep's id is its hash."""
    found = asdict(spec)
    for key in ("description", "resources", "tracking", "source", "max_failed", "cache", "analysis", "controls"):
        del found[key]
    del found["environment"]
    del found["task"]["folder"]
    del found["overrides"], found["notify"], found["seeds"]["first_is_unnumbered"]
    found["budget"] = {key: found["budget"][key] for key in ("unit", "per_trial", "trials_per_arm")}
    # Defaults are left out, so sweeps of earlier versions keep their ids.
    if spec.seeds.studies == 1:
        del found["seeds"]["studies"]
    for arm in found["arms"].values():
        if not arm["groups"]:
            del arm["groups"]
        for p in arm["parameters"]:
            if not p["prior_confidence"]:
                del p["prior"], p["prior_confidence"]
    for key in ("arguments", "ref", "registry"):
        if not found["method"][key]:
            del found["method"][key]
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
    found["outcome_constraints"] = [str(one) for one in spec.outcome_constraints]
    if not spec.outcome_constraints:
        del found["outcome_constraints"]
    found["training"] = found["training"]["recipe"]
    if spec.training.recipe == type(spec.training.recipe)(schedule="cosine"):
        del found["training"]
    # The order of groups matters: they are kept as a list.
    for arm in found["arms"].values():
        if "groups" in arm:
            arm["groups"] = [{"name": name, "match": list(match)} for name, match in arm["groups"].items()]
    plain: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True))
    return plain


def sweep_id(spec: Spec) -> str:
    """`<name>-<first 8 hex of the hash of the definition>`."""
    text = json.dumps(definition(spec), sort_keys=True, separators=(",", ":"))
    return f"{spec.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
