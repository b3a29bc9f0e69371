"""Tasks and optimizers built from a sweep file: with the files that it names, and all that a run hands over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optim_core
import trainables
from orchestrator.definition.places import found

if TYPE_CHECKING:
    from trainables import Task
    from trainables.loop import Build

NO_GROUPS: Mapping[str, Mapping[str, Any]] = {}


def build(task: str, values: Mapping[str, Any]) -> Task:
    """The task; files named by parameters of a user's task are also looked up next to the sweep file."""
    return trainables.build(task, **placed(task, values))


def placed(task: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a task with the paths of files that were found; bundled tasks have rules of their own."""
    if trainables.is_bundled(task):
        return dict(values)
    return {key: found(value) if isinstance(value, str) else value for key, value in values.items()}


def optimizer_builder(
    name: str, parameters: Mapping[str, Any], seed: int, groups: Mapping[str, Mapping[str, Any]] = NO_GROUPS
) -> Build:
    """How a training run with this seed builds the named optimizer, including the batches and the seed it needs."""

    def build(model: Any, loss: Any, refresh: Any) -> Any:
        extra = {"loss": loss, "refresh_batches": refresh} if optim_core.needs_batches(name) else {}
        if optim_core.needs_run_seed(name):
            extra["run_seed"] = seed
        return optim_core.build(name, model, groups=groups, **parameters, **extra)

    return build
