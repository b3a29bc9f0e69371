"""The keys of `task: {program: train.py, ..}`, a script of the user's in place of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from orchestrator.definition.field_types import Seconds
from orchestrator.definition.parameter_models import Model

NAME = "program"
"""What such a task is called where others have their registered name."""


class ProgramModel(Model):
    """The section `task` of a script."""

    program: str = Field(
        min_length=1, description="The script, relative to where the sweep is started, or to its file."
    )
    command: list[str] | None = Field(None, min_length=1, description="The command line, with ${program} and ${args}.")
    metrics: list[dict[str, str]] | None = Field(
        None, description="Where its metrics are found: pattern, jsonl, csv or tensorboard; null: it reports them."
    )
    step: str = Field("", description="The field of these that counts the budget's unit; default: step.")
    goals: dict[str, Literal["minimize", "maximize"]] = Field({}, description="Direction of its further metrics.")
    worst: int | float | None = Field(None, description="The tuned metric of a trial that diverged.")
    seed_arg: str | None = Field(None, description="The argument, or parameter, that takes the seed.")
    budget_arg: str | None = Field(None, description="The argument, or parameter, that takes the budget.")
    output_arg: str | None = Field(None, description="The argument, or parameter, that takes a folder of the trial's.")
    resume_arg: str | None = Field(None, description="What is added to the command line to go on with a trial.")
    checkpoints: str = Field("", description="Its checkpoints, such as ckpt*.pt in ${trial_dir}; it resumes from them.")
    env: dict[str, str] = Field({}, description="Further environment variables.")
    cwd: Literal["start", "trial"] = Field("start", description="Where it runs: where the sweep began, or trial_dir.")
    grace: Seconds = Field(
        10.0, json_schema_extra={"default": "10s"}, description="Time between SIGTERM and SIGKILL when it is ended."
    )
    prove: bool = Field(True, description="Count gradients and hash weights and batches in its process.")


def is_program(task: Mapping[str, Any]) -> bool:
    """Whether the section `task` of a sweep file is a script."""
    return "program" in task and "name" not in task


def filled(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a resolved sweep, which has what is not at its default, with all keys."""
    return {**ProgramModel.model_construct(program="").model_dump(), **parameters}
