"""What a trial is given, what it says while it trains, how it ended: data between conductor, executors and trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.definition.states import Goal, Stage, State


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a trial needs, picklable."""

    trial_id: str
    arm: str
    stage: Stage
    configuration: int
    """Number of the configuration in its arm's study."""
    seed: int
    optimizer: str
    parameters: Mapping[str, Any]
    """Arguments of the optimizer alone; `values` has all that was chosen."""
    task: str
    task_parameters: Mapping[str, Any]
    budget: float
    """Gradient evaluations."""
    evaluations: int
    metric: str
    goal: Goal
    select: str
    folder: str
    """Where the trial is kept: an absolute path, or a URI of an object store; `stop_file` likewise."""
    stop_file: str
    threads: int = 1
    lineage: Sequence[tuple[int, Mapping[str, Any]]] = ()
    """The stretches before `values` held, oldest first: (evaluation at which it ended, its values)."""
    inherited: float = 0.0
    """Gradient evaluations of the budget that another trial has spent: this one began with its checkpoint and log."""
    until: int = 0
    """Evaluation (1, 2, ...) after which the trial pauses with a checkpoint, to be told how it goes on; 0: none."""
    rungs: tuple[int, ...] = ()
    """Evaluations (1, 2, ...) after which the trial reports and waits whether it goes on."""
    cache: str = ""
    """Folder of the trial cache; empty: the trial is trained, whatever was trained before."""
    diagnostics: tuple[str, ...] = ()
    """Names of the diagnostics to measure."""
    diagnose_every: int = 1
    diagnose_batches: int = 1
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `trainables.recipe.Recipe`; empty: the task's own."""
    ramps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Argument of the optimizer -> fields of the schedule (`trainables.ramp.Ramp`) that it follows within the trial."""
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Group of the model's parameters -> patterns of their names, under `match`, and arguments of its own."""
    point: Mapping[str, Any] = field(default_factory=dict)
    """The configuration as it was chosen, by dotted names (`definition.parts`); empty: it is `parameters`."""
    processes: int = 1
    """Workers that train this trial together."""
    gpu: float = 0.0
    """GPUs of each process: 1, or its share of one."""
    pack: int = 1
    """Trials of a worker that may be stepped together with this one, itself included (`trial.crew`)."""
    alone: bool = False
    """Not to be stepped with others, since the worker that did was lost."""
    readers: int = 0
    """Threads of each process that prepare batches ahead, where the task can."""
    step_timeout_s: float | None = None
    """Seconds after which a step counts as hung."""
    checkpoint_s: float = 10.0
    """Seconds between checkpoints; longer where writing them would take more than CHECKPOINT_SHARE of the time."""
    checkpoint_quota: int | None = None
    """Bytes for the checkpoints of all trials beside this one's folder."""
    slice_s: float = 1.0
    """A trial reports to its executor about this often, in seconds."""
    study: int = 1
    """Which independent search of the arm, from 1."""
    program: Mapping[str, Any] = field(default_factory=dict)
    """Of a trial that is a script (`trial.program`), whose budget is in a unit of its own: `folder` that its path is
    relative to, `unit`, `worst`. Empty: ours."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The whole configuration, by dotted names: what records and tables show."""
        return self.point or self.parameters


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a trial tells its executor after a slice of work."""

    trial_id: str
    grad_evals: float
    """Spent by this trial."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Newest metrics."""
    seconds: float = 0.0
    """Of training."""
    evaluation: int = 0
    """Number of the newest evaluation, from 1."""
    durable: float = -1.0
    """Points up to this many gradient evaluations are final: a checkpoint covers them."""
    checkpoint_s: float = 0.0
    """Seconds between checkpoints as they are: above `Job.checkpoint_s` where writing or uploading one takes long."""
    done: bool = False
    state: State = State.RUNNING
    """RUNNING, COMPLETE, DIVERGED, FAILED, or with a checkpoint: INTERRUPTED (drained), PAUSED (see `Job.until`)."""


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """Where and why the stopping rule ended a trial."""

    rung: int
    """Evaluation (1, 2, ...) at which it was judged."""
    value: float
    """The tuned metric there."""
    reason: str
    audit_value: float | None = None
    """The value at the end, when the trial was finished for the audit."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a trial ended; `result.json`."""

    state: State
    """COMPLETE, DIVERGED, PRUNED or FAILED."""
    value: float | None
    """The selected metric; the worst value of that metric when diverged, None when failed."""
    metrics: dict[str, float]
    grad_evals: float
    seconds: float
    init_digest: str = ""
    data_digest: str = ""
    error: str = ""
    stopped: Stopped | None = None
    """Of a PRUNED trial."""
    cached_from: str = ""
    """The trial that this result was taken from instead of training."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the task says its data are, for instance a SHA-256."""
    last_lines: str = ""
    """Of a FAILED trial: what it printed last (see `logs`)."""
    code: str = ""
    """Digest of the source that the worker trained it with (see `source`)."""
    changed: tuple[str, ...] = ()
    """What global state it changed: kept from other trials, and not in its checkpoints (see `ambient`)."""
    proof: Mapping[str, Any] = field(default_factory=dict)
    """Of a script: what is known of its seed and its budget (see `program.proof`). Empty: ours, where all is proved."""
