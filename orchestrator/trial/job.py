"""What a trial is given, reports and returns: data exchanged between conductor, executors and trials."""

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
    """Arguments of the optimizer only; `values` has everything that was chosen."""
    task: str
    task_parameters: Mapping[str, Any]
    budget: float
    """Gradient evaluations."""
    evaluations: int
    metric: str
    goal: Goal
    select: str
    folder: str
    """Where the trial is stored: an absolute path, or a URI of an object store; the same for `stop_file`."""
    stop_file: str
    threads: int = 1
    lineage: Sequence[tuple[int, Mapping[str, Any]]] = ()
    """The segments before `values` applied, oldest first: (evaluation at which it ended, its values)."""
    inherited: float = 0.0
    """Gradient evaluations of the budget spent by another trial, from whose checkpoint and log this one started."""
    until: int = 0
    """Evaluation (1, 2, ...) after which the trial pauses with a checkpoint for its population's decision; 0: none."""
    rungs: tuple[int, ...] = ()
    """Evaluations (1, 2, ...) after which the trial reports and waits for the decision to continue."""
    cache: str = ""
    """Folder of the trial cache; empty: train the trial in any case."""
    diagnostics: tuple[str, ...] = ()
    """Names of the diagnostics to measure."""
    diagnose_every: int = 1
    diagnose_batches: int = 1
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `trainables.recipe.Recipe`; empty: the task's own."""
    ramps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Argument of the optimizer -> fields of the schedule (`trainables.ramp.Ramp`) that it follows during the trial."""
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Group of the model's parameters -> name patterns, under `match`, and its own arguments."""
    point: Mapping[str, Any] = field(default_factory=dict)
    """The configuration as chosen, by dotted name (`definition.parts`); empty: it is `parameters`."""
    processes: int = 1
    """Workers that train this trial together."""
    gpu: float = 0.0
    """GPUs per process: 1, or its share of one."""
    pack: int = 1
    """Maximum number of trials, including this one, that a worker may step together (`trial.crew`)."""
    alone: bool = False
    """Do not step it with others, because a worker that did was lost."""
    readers: int = 0
    """Threads per process that prefetch batches, if the task supports it."""
    step_timeout_s: float | None = None
    """Seconds after which a step counts as hung."""
    checkpoint_s: float = 10.0
    """Seconds between checkpoints; longer if writing them would take more than CHECKPOINT_SHARE of the time."""
    checkpoint_quota: int | None = None
    """Bytes available for the checkpoints of all trials next to this one's folder."""
    slice_s: float = 1.0
    """A trial reports to its executor about this often, in seconds."""
    study: int = 1
    """Which independent search of the arm, from 1."""
    program: Mapping[str, Any] = field(default_factory=dict)
    """For a trial that runs a script (`trial.program`), with a budget in its own unit: `folder` (its path is relative
    to it), `unit`, `worst`. Empty for built-in training.
    """

    @property
    def values(self) -> Mapping[str, Any]:
        """The whole configuration by dotted name, as shown in records and tables."""
        return self.point or self.parameters


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a trial reports to its executor after a slice of work."""

    trial_id: str
    grad_evals: float
    """Spent by this trial."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Newest metrics."""
    seconds: float = 0.0
    """Of training."""
    evaluation: int = 0
    """Number of the latest evaluation, from 1."""
    durable: float = -1.0
    """Points up to this many gradient evaluations are final: a checkpoint covers them."""
    checkpoint_s: float = 0.0
    """Actual seconds between checkpoints: more than `Job.checkpoint_s` if writing or uploading one takes long."""
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
    """The final value, if the trial was finished for the audit."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a trial ended; `result.json`."""

    state: State
    """COMPLETE, DIVERGED, PRUNED or FAILED."""
    value: float | None
    """The selected metric; the metric's worst value if diverged, None if failed."""
    metrics: dict[str, float]
    grad_evals: float
    seconds: float
    init_digest: str = ""
    data_digest: str = ""
    error: str = ""
    stopped: Stopped | None = None
    """For a PRUNED trial."""
    cached_from: str = ""
    """The trial whose result was reused instead of training."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the task reports about its data, for example a SHA-256."""
    last_lines: str = ""
    """For a FAILED trial: its last output (see `logs`)."""
    code: str = ""
    """Digest of the source code that the worker used (see `source`)."""
    changed: tuple[str, ...] = ()
    """The global state that it changed; isolated from other trials, and not in its checkpoints (see `ambient`)."""
    proof: Mapping[str, Any] = field(default_factory=dict)
    """For a script: what is known about its seed and budget (see `program.proof`). Empty for built-in training, where
    everything is proved.
    """
