"""Tasks and optimizers that workers cannot find by name are sent to them and registered there.

These are classes from a notebook or the started script, which are sent by value with what they use from `__main__`
(`class_code` replaces their source files); and classes registered by one of the user's modules, which the worker
imports.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping

import cloudpickle

import optim_core
import trainables
from orchestrator.definition.errors import UsageError
from orchestrator.trial import source
from orchestrator.trial.class_code import MAIN
from orchestrator.trial.named_class import class_of
from trainables import Task


def carried(names: Iterable[str]) -> dict[str, type]:
    """Name -> class, for those that a process which imports geosweep does not know by itself."""
    short = [name for name in names if source.module_of(name) in ("", MAIN)]
    found = {name: class_of(name) for name in short}
    return {name: cls for name, cls in found.items() if cls is not None and not source.is_ours(cls.__module__)}


def dumps(names: Iterable[str]) -> bytes:
    """What a worker needs to know these names; empty if it can import them all.

    Raises UsageError for a class that holds something that cannot be sent, such as a lock.
    """
    found = carried(names)
    try:
        return bytes(cloudpickle.dumps(found)) if found else b""
    except (TypeError, pickle.PicklingError) as error:
        raise UsageError(
            f"{', '.join(found)}: cannot be sent to workers ({error}); define it in a module and name it "
            "package.module:Task, or run with executor debug"
        ) from None


def loads(sent: bytes) -> None:
    """Register in this process what `dumps` sent."""
    found: Mapping[str, type] = pickle.loads(sent) if sent else {}
    for name, cls in found.items():
        inner = name.rpartition("(")[2].rstrip(")")
        if issubclass(cls, Task):
            trainables.task(inner)(cls)
        else:
            optim_core.adopt(inner, cls)
