"""Tasks built of what a sweep file says, with the files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trainables
from orchestrator.definition.places import found

if TYPE_CHECKING:
    from trainables import Task


def build(task: str, values: Mapping[str, Any]) -> Task:
    """The task; a file that a parameter of a user's own task names is looked for beside the sweep file, too."""
    return trainables.build(task, **placed(task, values))


def placed(task: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a task with the paths of files that were found; what is bundled has rules of its own."""
    if trainables.is_bundled(task):
        return dict(values)
    return {key: found(value) if isinstance(value, str) else value for key, value in values.items()}
