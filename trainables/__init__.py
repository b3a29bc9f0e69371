"""Tasks, their data and the training loop. Public names only."""

from trainables import tasks as tasks
from trainables.registry import build, conflict, is_bundled, lookup, name_of, names, parameters, registered, task
from trainables.task import Batch, Metric, Model, Task

__all__ = [
    "Batch",
    "Metric",
    "Model",
    "Task",
    "build",
    "conflict",
    "is_bundled",
    "lookup",
    "name_of",
    "names",
    "parameters",
    "registered",
    "task",
]
