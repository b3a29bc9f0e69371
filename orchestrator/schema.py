"""The sweep file as pydantic models: keys, types, a sentence for each. The JSON Schema for editors is made of them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: Any) -> Any:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value)):
        return float(found[1]) * UNITS[found[2]]
    raise ValueError("a time carries its unit, for instance 90s, 30m or 2h")


def _share(value: Any) -> Any:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)):
        return float(found[1]) / 100
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, json_schema_extra={"type": "string"})]
Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
Scalar = bool | int | float | str | None


class Model(BaseModel):
    """Unknown keys are errors, nothing is converted silently, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ParameterModel(Model):
    """One hyperparameter, in the words of W&B sweeps."""

    value: Scalar = Field(None, description="A fixed value.")
    values: list[Scalar] | None = Field(None, min_length=1, description="A list of values to choose from.")
    distribution: str | None = Field(
        None,
        description="uniform, int_uniform, log_uniform_values, q_uniform, q_log_uniform_values, "
        "one_minus_log_uniform_values, categorical or constant.",
    )
    min: int | float | None = Field(None, description="Smallest value (a value, never an exponent).")
    max: int | float | None = Field(None, description="Largest value.")
    q: int | float | None = Field(None, gt=0, description="Quantum: values are multiples of it from min on.")
    when: dict[str, Scalar | list[Scalar]] | None = Field(
        None, description="Active only while each named parameter has one of these values."
    )


class ArmModel(Model):
    """One optimizer with its own search space."""

    optimizer: str | None = Field(
        None, description="A registered name or package.module.Class; default: the arm's name."
    )
    parameters: dict[str, ParameterModel | Scalar] = Field({}, description="Hyperparameters of this arm alone.")


class MetricModel(Model):
    """What is tuned."""

    name: str = Field(description="A metric of the task, for instance accuracy/val.")
    goal: Literal["minimize", "maximize"] = Field(description="The direction.")
    select: Literal["last", "best"] = Field(
        "last", description="Value at the end of the budget, or the best on the way."
    )
    report_metric: str | None = Field(
        None, description="The metric that the final tables show first; default: the tuned one."
    )


class MethodModel(Model):
    """How configurations are proposed."""

    name: Literal["grid", "random", "sobol", "tpe"] = Field("tpe", description="grid, random, sobol or tpe.")
    random_share: Share = Field(
        0.5, description="tpe: this share of an arm's trials is random, before the model starts."
    )
    seed: int = Field(0, ge=0, description="Seed of the search.")


class BudgetModel(Model):
    """What may be spent."""

    unit: Literal["grad_evals"] = Field(
        "grad_evals", description="Gradient evaluations: forward and backward of one batch."
    )
    per_trial: int | float = Field(gt=0, description="Gradient evaluations of one trial.")
    trials_per_arm: int | None = Field(
        None, gt=0, description="Configurations tried for each arm; a grid has its own size."
    )
    wall_clock: Seconds | None = Field(
        None, description="Limit on the time spent, for instance 30m; time down is not counted."
    )


class SeedsModel(Model):
    """A number means that many seeds; tune and confirm seeds never overlap."""

    tune: Annotated[int, Field(ge=1)] | Annotated[list[int], Field(min_length=1)] = Field(
        1, description="Seeds of the search, for each configuration."
    )
    confirm: Annotated[int, Field(ge=0)] | list[int] = Field(
        6, description="Fresh seeds for the best configuration of each arm."
    )


class ResourcesModel(Model):
    """What one trial gets."""

    cpu: int = Field(1, ge=1, description="CPUs, and threads, of one trial.")
    gpu: int | float = Field(0, ge=0, description="GPUs of one trial; a fraction shares a device.")
    max_concurrent: int | Literal["auto"] = Field("auto", description="Trials at a time; auto: what fits.")


class TrackingModel(Model):
    """Where runs are shown."""

    mlflow: str | None = Field(None, description="MLflow tracking URI; null: the store inside the root folder.")


class DiagnosticsModel(Model):
    """What trials measure of the geometry while they train, logged as geometry/..."""

    names: list[str] = Field(min_length=1, description="Diagnostics of optim_core, for instance sharpness.")
    every: int = Field(1, ge=1, description="At every n-th evaluation, and at the last.")
    batches: int = Field(1, ge=1, description="Training batches that a measurement looks at.")


class AnalysisModel(Model):
    """The analysis, declared before the results are known; it is sealed with the sweep."""

    baseline: str | None = Field(None, description="Compare every arm with this one; null: all pairs.")
    margin: int | float = Field(0, ge=0, description="A difference within it, in the metric's units, counts as none.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Level of the tests, after Holm's correction.")
    expected_best: bool = Field(True, description="Report the expected best value against the tuning budget.")


class SweepModel(Model):
    """A sweep file, schema version 1."""

    schema_version: Literal[1] = Field(description="1.")
    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", description="Lower case, digits and dashes, at most 40."
    )
    description: str = Field("", description="The question, in a sentence.")
    task: dict[str, Any] = Field(description="name and the task's own parameters.")
    metric: MetricModel
    arms: dict[str, ArmModel | None] = Field(min_length=1, description="What the sweep compares.")
    parameters: dict[str, ParameterModel | Scalar] = Field(
        {}, description="Hyperparameters shared by the arms that have them."
    )
    constraints: list[str] = Field(
        [], description="Comparisons that every configuration obeys; steps and grad_evals are known."
    )
    method: MethodModel = Field(default_factory=lambda: MethodModel.model_validate({}))
    budget: BudgetModel
    seeds: SeedsModel = Field(default_factory=lambda: SeedsModel.model_validate({}))
    resources: ResourcesModel = Field(default_factory=lambda: ResourcesModel.model_validate({}))
    tracking: TrackingModel = Field(default_factory=lambda: TrackingModel.model_validate({}))
    diagnostics: DiagnosticsModel | None = Field(
        None, description="Measurements of the geometry while trials train; they are not charged to the budget."
    )
    analysis: AnalysisModel = Field(default_factory=lambda: AnalysisModel.model_validate({}))
    controls: list[str] | Literal["auto"] = Field(
        [], description="Special cases with a known answer, run first; auto: all that fit an arm."
    )
    evaluations: int = Field(
        8, ge=1, description="Evaluations of a trial, evenly over its budget, the same for all arms."
    )
    max_failed: int = Field(0, ge=0, description="Failed trials allowed before the command exits with 8.")
