"""The keys of `task: {program: train.py, ..}`, a script of the user's in place of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from orchestrator.definition.field_types import Seconds
from orchestrator.definition.parameter_models import Model

NAME = "program"
"""The name of such a task where others have their registered name."""


class ProgramModel(Model):
    """The section `task` of a script."""

    program: str = Field(min_length=1, description="The script, relative to the current folder or to the sweep file.")
    command: list[str] | None = Field(None, min_length=1, description="The command line, with ${program} and ${args}.")
    metrics: list[dict[str, str]] | None = Field(
        None, description="Where to find its metrics: pattern, jsonl, csv or tensorboard; null: it reports them."
    )
    step: str = Field("", description="The field that counts the budget's unit; default: step.")
    goals: dict[str, Literal["minimize", "maximize"]] = Field({}, description="Direction of its other metrics.")
    worst: int | float | None = Field(None, description="The tuned metric of a trial that diverged.")
    seed_arg: str | None = Field(None, description="The argument, or parameter, that takes the seed.")
    budget_arg: str | None = Field(None, description="The argument, or parameter, that takes the budget.")
    output_arg: str | None = Field(None, description="The argument, or parameter, that takes the trial's own folder.")
    resume_arg: str | None = Field(None, description="What to append to the command line to resume a trial.")
    checkpoints: str = Field("", description="Its checkpoints, such as ckpt*.pt in ${trial_dir}; it resumes from them.")
    env: dict[str, str] = Field({}, description="Additional environment variables.")
    cwd: Literal["start", "trial"] = Field(
        "start", description="Where it runs: where the sweep was started, or trial_dir."
    )
    grace: Seconds = Field(
        10.0, json_schema_extra={"default": "10s"}, description="Time between SIGTERM and SIGKILL when it is stopped."
    )
    prove: bool = Field(True, description="Count gradients and hash weights and batches in its process.")


def is_program(task: Mapping[str, Any]) -> bool:
    """Whether the section `task` of a sweep file is a script."""
    return "program" in task and "name" not in task


def filled(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a resolved sweep, which omits defaults, with all keys."""
    return {**ProgramModel.model_construct(program="").model_dump(), **parameters}
