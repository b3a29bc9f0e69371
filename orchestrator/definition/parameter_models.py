"""A hyperparameter in a sweep file, as pydantic models: a value, values, a range, a schedule; and groups.

Anything but a mapping is a fixed value, lists included. A mapping with the key `schedule` changes during a trial; any
other one says where values come from.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Scalar = bool | int | float | str | None


def as_share(value: Any) -> Any:
    """`5%` as 0.05; anything else as it is."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)):
        return float(found[1]) / 100
    return value


class Model(BaseModel):
    """Unknown keys are errors, nothing is converted silently, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ParameterModel(Model):
    """One hyperparameter, in W&B's terms."""

    value: Any = Field(None, description="A fixed value: a number, text, true or false, null, a list or a mapping.")
    values: list[Any] | None = Field(None, min_length=1, description="A list of values to choose from, of any kind.")
    distribution: str | None = Field(
        None,
        description="uniform, int_uniform, log_uniform_values, q_uniform, q_log_uniform_values, "
        "one_minus_log_uniform_values, categorical or constant.",
    )
    min: int | float | str | None = Field(None, description="Smallest value (a value, never an exponent).")
    max: int | float | str | None = Field(None, description="Largest value.")
    q: int | float | str | None = Field(None, description="Quantum: values are min, min + q, min + 2 q and so on.")
    prior: Any = Field(None, description="A guess at a good value: draws come more often from around it.")
    prior_confidence: Literal["low", "medium", "high"] | None = Field(
        None, description="low, medium (default) or high: half, 70% or 90% of the draws come from around the guess."
    )
    when: dict[str, Any] | None = Field(
        None, description="Active only while each named parameter has one of these values."
    )


Part = ParameterModel | int | float | str
"""A field of a schedule: a number, or its source."""


class RampModel(Model):
    """A hyperparameter that changes during a trial; every field may be searched."""

    schedule: Literal["linear", "cosine", "step"] | ParameterModel = Field(
        description="How it gets from start to end: linear, cosine, or step (start, then end from until on)."
    )
    start: Part = Field(description="The value at the beginning.")
    end: Part = Field(description="The value at the end.")
    begin: Part | None = Field(None, description="Share of the budget at which it starts to change; default 0.")
    until: Part | None = Field(None, description="Share of the budget at which it reaches end; default 1.")
    when: dict[str, Any] | None = Field(
        None, description="Active only while each named parameter has one of these values."
    )


def _kind(given: Any) -> str:
    if isinstance(given, RampModel) or (isinstance(given, dict) and "schedule" in given):
        return "<schedule>"
    if isinstance(given, ParameterModel | dict):
        return "<parameter>"
    return "<list>" if isinstance(given, list) else "<scalar>"


Given = Annotated[
    Annotated[ParameterModel, Tag("<parameter>")]
    | Annotated[RampModel, Tag("<schedule>")]
    | Annotated[list[Any], Tag("<list>")]
    | Annotated[Scalar, Tag("<scalar>")],
    Discriminator(_kind),
]
"""What may follow the name of a hyperparameter."""


class GroupModel(Model):
    """Parameters of the model by name, with hyperparameters of their own; the first group that matches has them."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Given]

    match: list[str] = Field(
        min_length=1, description='Patterns of names in the model, such as "*.bias"; * stands for anything.'
    )
