"""Tasks built from a sweep file, with the files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trainables
from orchestrator.definition.places import found

if TYPE_CHECKING:
    from trainables import Task


def build(task: str, values: Mapping[str, Any]) -> Task:
    """The task; files named by parameters of a user's task are also looked up next to the sweep file."""
    return trainables.build(task, **placed(task, values))


def placed(task: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a task with the paths of files that were found; bundled tasks have rules of their own."""
    if trainables.is_bundled(task):
        return dict(values)
    return {key: found(value) if isinstance(value, str) else value for key, value in values.items()}
