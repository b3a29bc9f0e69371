"""Tasks by name: `@task("digits")`, `names()`, `build(name, **parameters)`; `package.module:Task` for a user's own."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from trainables.task import Task

T = TypeVar("T", bound=type[Task])
_REGISTRY: dict[str, type[Task]] = {}


def task(name: str) -> Callable[[T], T]:
    """Class decorator that makes a task reachable as `name`. A name taken twice raises ValueError."""

    def add(cls: T) -> T:
        if name in _REGISTRY:
            raise ValueError(f"task {name!r} is registered twice")
        _REGISTRY[name] = cls
        return cls

    return add


def names() -> list[str]:
    """All registered names, sorted."""
    return sorted(_REGISTRY)


def lookup(name: str) -> type[Task]:
    """The class behind `name`. Raises KeyError with the nearest registered name."""
    if name in _REGISTRY:
        return _REGISTRY[name]
    if ":" in name:
        module_name, _, class_name = name.partition(":")
        try:
            cls = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError) as error:
            raise KeyError(f"no task {name!r}: {error}") from None
        if not (isinstance(cls, type) and issubclass(cls, Task)):
            raise KeyError(f"{name!r} is not a trainables.Task")
        return cls
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {close[0]}?" if close else f"there is: {', '.join(names())}; or package.module:Task"
    raise KeyError(f"no task {name!r}; {hint}")


def parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """The task's own parameters: its constructor's keyword arguments, with their defaults."""
    found = inspect.signature(lookup(name).__init__).parameters
    return {k: p for k, p in found.items() if k != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def build(name: str, **values: Any) -> Task:
    """The named task with these parameters."""
    return lookup(name)(**values)
