"""Tasks, their data and the training loop. Public names only.

Names are loaded, and torch with them, on first use: `import trainables` itself takes milliseconds.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables import disproof as disproof
    from trainables import loop as loop
    from trainables import pack as pack
    from trainables import packable as packable
    from trainables import tasks as tasks
    from trainables.registry import build, conflict, is_bundled, lookup, name_of, names, parameters, registered, task
    from trainables.task_class import Batch, Metric, Model, Task

HOMES = {"task_class": ("Batch", "Metric", "Model", "Task")}
"""Module -> its public names; names listed under no module belong to the registry."""

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


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = next((module for module, names in HOMES.items() if name in names), "registry")
        globals()[name] = found = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        return found
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
