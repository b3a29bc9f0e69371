"""The sweep file as pydantic models: keys, types, a sentence for each. They generate the JSON Schema for editors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from optim_core import plugins
from orchestrator.definition.field_types import (
    Address,
    Bytes,
    Seconds,
    Share,
    amount,
    number_or_auto,
)
from orchestrator.definition.parameter_models import Given, GroupModel, Model
from orchestrator.definition.training_model import TrainingModel


class ArmModel(Model):
    """One optimizer with its own search space."""

    optimizer: str | None = Field(
        None, description="A registered name or package.module.Class; default: the arm's name."
    )
    parameters: dict[str, Given] = Field({}, description="Hyperparameters of this arm only.")
    groups: dict[str, GroupModel] = Field({}, description="Groups of the model's parameters in this arm only.")


class MetricModel(Model):
    """What is tuned."""

    name: str = Field(description="A metric of the task, for instance accuracy/val.")
    goal: Literal["minimize", "maximize"] = Field(description="The direction.")
    select: Literal["last", "best"] = Field(
        "last",
        description="The search judges a trial by its value at the end of the budget, or the best along the way. "
        "Arms are compared at the end.",
    )
    report_metric: str | None = Field(
        None, description="The metric that the final tables show first; default: the tuned one."
    )


METHODS = ("grid", "random", "sobol", "tpe", "gp", "cmaes")
SAMPLERS = "geosweep.samplers"
"""Entry points by which installed packages offer samplers."""


def _method_name(value: str) -> str:
    if value in METHODS or "." in value or value.startswith("optunahub/") or value in plugins.offered(SAMPLERS):
        return value
    words = f"{', '.join(METHODS[:-1])} or {METHODS[-1]}, nor a sampler as package.module.Class"
    if installed := [name for name in plugins.offered(SAMPLERS) if name not in METHODS]:
        words += f"; installed: {', '.join(installed)}"
    raise PydanticCustomError("literal_error", "no method", {"expected": words})


class MethodModel(Model):
    """How configurations are proposed."""

    name: Annotated[str, AfterValidator(_method_name)] = Field(
        "tpe",
        description="grid, random, sobol, tpe, gp or cmaes; or an Optuna sampler as package.module.Class, "
        "by the name of an installed plug-in, or as optunahub/PACKAGE:Class.",
    )
    arguments: dict[str, Any] | None = Field(None, description="Arguments of the sampler, besides its seed.")
    ref: str | None = Field(None, description="optunahub: the commit of its registry, all 40 digits.")
    registry: str | None = Field(None, description="optunahub: a local copy of a registry, instead of ref.")
    random_share: Share = Field(
        0.5, description="tpe, gp, cmaes: this share of an arm's trials is random, before the model starts."
    )
    seed: int = Field(0, ge=0, description="Seed of the search.")
    replay: Literal["off", "strict"] = Field(
        "off", description="strict: suggestions depend only on this file, not on speed, workers, crashes or retries."
    )
    lag: int = Field(4, ge=1, description="strict: suggestion n knows exactly the results up to n - lag.")


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class BudgetModel(Model):
    """What may be spent."""

    unit: Literal["grad_evals", "steps", "seconds", "tokens", "epochs"] = Field(
        "grad_evals",
        description="What arms get equal amounts of. grad_evals: forward and backward of one batch; steps: optimizer "
        "steps; seconds: of training, calibrated per arm before its first trial; tokens: in the batches of "
        "its gradient evaluations (examples, for a task that counts those); epochs: for scripts only. A script gets "
        "the number and counts it itself.",
    )
    per_trial: Annotated[int | float, BeforeValidator(amount)] = Field(
        gt=0, le=10**15, description="What one trial may spend, in this unit; seconds also as 90s or 1h30m."
    )
    trials_per_arm: int | None = Field(
        None, gt=0, le=1_000_000, description="Configurations tried for each arm; a grid has its own size."
    )
    wall_clock: Seconds | None = Field(
        None, description="Limit on the time spent, for instance 30m; downtime is not counted."
    )
    grad_evals: int | float | None = Field(None, gt=0, description="Limit on the gradient evaluations of all trials.")
    gpu_hours: int | float | None = Field(None, gt=0, description="Limit on GPUs x hours of training.")
    money: int | float | None = Field(None, gt=0, description="Limit on price_per_gpu_hour x gpu_hours.")
    price_per_gpu_hour: int | float | None = Field(None, gt=0, description="Price of a GPU per hour.")


class StoppingModel(Model):
    """Stopping trials early, inside an arm only."""

    type: Literal["asha", "hyperband", "median", "pbt"] = Field(description="asha, hyperband, median or pbt.")
    eta: int = Field(
        3, ge=2, description="asha, hyperband: one in eta trials continues at a rung. pbt: one in eta is replaced."
    )
    min_budget: Share = Field(
        0.2, gt=0, lt=1, description="Share of the budget before the first rung, such as 20%; pbt: before each rung."
    )
    audit_share: Share = Field(
        0.0, description="Share of the stopped trials that are finished anyway, to see what stopping cost."
    )


class RacingModel(Model):
    """Racing in the confirm stage: an arm that can no longer be the best runs no more seeds."""

    level: float = Field(
        0.05, gt=0, lt=1, description="Probability that any of several equal arms is stopped, over all looks."
    )
    looks: int = Field(3, ge=1, description="How often the arms are compared before the last seed.")


class ObjectiveModel(Model):
    """An additional metric of a multi-objective search."""

    name: str = Field(description="A metric of the task.")
    goal: Literal["minimize", "maximize"] = Field(description="The direction.")


class SeedsModel(Model):
    """A number: that many seeds in each study; a list is divided among them. No two studies share a seed."""

    studies: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Independent searches of each arm, paired between arms. A verdict on methods takes 6 or more; "
        "1 compares the configurations found.",
    )
    tune: Annotated[int, Field(ge=1)] | Annotated[list[int | list[int]], Field(min_length=1)] = Field(
        1, description="Seeds of the search, for each configuration; a list, or one list for each study."
    )
    confirm: Annotated[int, Field(ge=0)] | list[int | list[int]] = Field(
        6, description="Fresh seeds for the best configuration of each study; a list, or one list for each study."
    )


class ResourcesModel(Model):
    """What one trial gets."""

    cpu: int = Field(1, ge=1, le=4096, description="CPUs, and threads, of each process of a trial.")
    gpu: int | float = Field(0, ge=0, description="GPUs of one trial; a fraction shares a device.")
    processes: int | Literal["auto"] = Field(
        "auto", description="Processes that train one trial together on parts of each batch; auto: one per GPU."
    )
    pack: int = Field(
        1,
        ge=1,
        le=256,
        description="Trials of one arm that a worker steps together, their weights stacked: many times the trials an "
        "hour of small models on a GPU. They share its CPUs and GPU; each is what it is alone, up to rounding.",
    )
    readers: Annotated[
        Annotated[int, Field(ge=0, le=64)] | Literal["auto"], BeforeValidator(number_or_auto("threads", 0, 64))
    ] = Field(
        "auto",
        description="Threads of each process that prepare batches ahead, where the task reads data (images, tokens); "
        "auto: as many as CPUs, at most 4, with a GPU, none without. Results do not change.",
    )
    checkpoints: Bytes | None = Field(
        None, description="Space for the checkpoints of all trials, for instance 20GB; null: two per running trial."
    )
    checkpoint_every: Seconds = Field(
        10.0,
        json_schema_extra={"default": "10s"},
        description="Time between a trial's checkpoints, the most that losing its worker costs; longer "
        "where writing them would take more than a tenth of the time.",
    )
    max_concurrent: int | Literal["auto"] = Field("auto", description="Concurrent trials; auto: as many as fit.")
    wait: Seconds = Field(
        7200.0,
        description="How long a sweep waits while there are no workers, for instance 2h; not counted in wall_clock.",
    )


class TrackingModel(Model):
    """Where runs are shown."""

    mlflow: str | None = Field(
        None, description="MLflow tracking URI, with ${env:NAME} for secrets; null: the store inside the root folder."
    )


class NotifyModel(Model):
    """Where messages go: webhooks of Slack, Discord, ntfy, or any URL that accepts JSON; https://... or ${env:NAME}.

    They are not part of the sweep: its id, its seal and its folder do not contain them.
    """

    done: Address = Field(None, description="When the sweep is done.")
    diverged: Address = Field(None, description="When trials diverge; at most one message a minute.")
    failed: Address = Field(
        None, description="When trials fail, or the sweep as a whole; at most one message a minute."
    )
    stuck: Address = Field(None, description="When no trial has reported for stuck_after.")
    stuck_after: Seconds = Field(
        1800.0, json_schema_extra={"default": "30m"}, description="Time without a report, for instance 30m."
    )


class DiagnosticsModel(Model):
    """Measurements of the geometry during training, logged as geometry/..."""

    names: list[str] = Field(min_length=1, description="Diagnostics of optim_core, for instance sharpness.")
    every: int = Field(1, ge=1, description="At every n-th evaluation, and at the last.")
    batches: int = Field(1, ge=1, description="Training batches per measurement.")


class AnalysisModel(Model):
    """The analysis, declared before the results are known; it is sealed with the sweep."""

    baseline: str | None = Field(None, description="Compare every arm with this one; null: all pairs.")
    margin: int | float = Field(
        0, ge=0, description="Differences up to this margin, in the metric's units, count as none."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Level of the tests, after Holm's correction.")
    expected_best: bool = Field(True, description="Report the expected best value against the tuning budget.")
    twin: bool = Field(
        False,
        description="Add an identical copy of the baseline, tuned independently: what no difference looks like here.",
    )
    waive: dict[str, str] = Field(
        {}, description="Fairness rules that this sweep breaks on purpose, each with its reason."
    )
    looks: int = Field(
        1, ge=1, le=100, description="How often results are looked at before the last extension; they share alpha."
    )


class EnvironmentModel(Model):
    """What trials need on other machines besides geosweep and this file's folder. Does not change the id."""

    requirements: str | list[str] | None = Field(
        None, description="Extra packages, each NAME==VERSION: a list, or a requirements file next to this one."
    )
    image: str | None = Field(None, description="Kubernetes: a custom image for all Pods, with tag or digest.")


class SweepModel(Model):
    """A sweep file, schema version 1."""

    schema_version: Literal[1] = Field(description="1.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9_-]{0,38}[A-Za-z0-9])?$",
        description="Letters, digits, dashes and underscores, at most 40.",
    )
    description: str = Field("", description="The question, in a sentence.")
    task: dict[str, Any] = Field(
        description="name and the task's parameters; or program, your own script (docs/scripts.md)."
    )
    metric: MetricModel
    arms: dict[str, ArmModel | None] = Field(min_length=1, description="What the sweep compares.")
    parameters: dict[str, Given] = Field(
        {},
        description="Hyperparameters shared by the arms that have them, and whatever else is searched: task.KEY, "
        "training.KEY.",
    )
    groups: dict[str, GroupModel] = Field(
        {}, description="Groups of the model's parameters with hyperparameters of their own, in all arms."
    )
    constraints: list[str] = Field(
        [],
        description="Comparisons that every configuration satisfies; they may use steps and grad_evals, "
        "but not with a budget in seconds.",
    )
    method: Annotated[MethodModel, BeforeValidator(_by_name, json_schema_input_type=MethodModel | str)] = Field(
        default_factory=lambda: MethodModel.model_validate({}), description="A name is short for {name: NAME}."
    )
    outcome_constraints: list[str] = Field(
        [],
        description="What the chosen configuration satisfies, on average over its tune seeds: METRIC <= NUMBER or "
        "METRIC >= NUMBER, optionally with a unit, for instance time/step_s <= 100ms.",
    )
    budget: BudgetModel
    seeds: SeedsModel = Field(default_factory=lambda: SeedsModel.model_validate({}))
    resources: ResourcesModel = Field(default_factory=lambda: ResourcesModel.model_validate({}))
    tracking: TrackingModel = Field(default_factory=lambda: TrackingModel.model_validate({}))
    notify: NotifyModel = Field(default_factory=lambda: NotifyModel.model_validate({}))
    early_terminate: StoppingModel | None = Field(
        None, description="Stop trials early by the tuned metric; null: every trial is trained to its budget."
    )
    racing: RacingModel | None = Field(
        None, description="Stop arms in the confirm stage by signed-rank tests; null: every arm runs every seed."
    )
    objectives: list[ObjectiveModel] = Field(
        [], description="Additional metrics to search by; metric still stops trials and picks winners."
    )
    warm_start: list[str] = Field([], description="Sweeps under the same root with results to start the search from.")
    cache: bool | None = Field(
        None,
        description="Reuse trials that were already trained anywhere under the root; null: for bundled tasks only. "
        "true for a task of your own: its result depends only on its source and its facts(), on no other file.",
    )
    diagnostics: DiagnosticsModel | None = Field(
        None, description="Measurements of the geometry during training; they are not charged to the budget."
    )
    analysis: AnalysisModel = Field(default_factory=lambda: AnalysisModel.model_validate({}))
    controls: list[str] | Literal["auto"] = Field(
        [], description="Special cases with a known answer, run first; auto: all that fit an arm."
    )
    training: TrainingModel = Field(default_factory=lambda: TrainingModel.model_validate({}))
    environment: EnvironmentModel = Field(default_factory=lambda: EnvironmentModel.model_validate({}))
    evaluations: int = Field(
        8,
        ge=1,
        le=1_000_000,
        description="Evaluations per trial, evenly spaced over its budget, the same for all arms.",
    )
    max_failed: int = Field(0, ge=0, description="Failed trials allowed before the command exits with 8.")
