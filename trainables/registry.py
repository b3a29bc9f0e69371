"""Tasks by name: `@task("digits")`, `names()`, `build(name, **parameters)`; `package.module:Task` for a user's own."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from optim_core import plugins
from optim_core.named import Named
from trainables.task_class import Task

T = TypeVar("T", bound=type[Task])
GROUP = "geosweep.tasks"
"""The entry points of plug-ins."""
HOMES: Mapping[str, tuple[str, ...]] = {
    "affine_games": ("bilinear", "quadratic_game", "shape_game"),
    "digits": ("digits",),
    "digits_fit": ("digits_fit",),
    "gan_ring": ("gan_ring",),
    "images": ("images",),
    "kronecker": ("kronecker",),
    "least_squares": ("least_squares",),
    "logistic_game": ("logistic_game",),
    "offset_rotated": ("offset_rotated",),
    "potholes": ("potholes",),
    "quadratic": ("quadratic",),
    "stdlib_lm": ("stdlib_lm",),
    "tokens": ("tokens",),
}
"""Module of `trainables.tasks` -> tasks that its import registers."""
_REGISTRY: Named[type[Task]] = Named("task", "trainables.tasks", HOMES)
_PLUGINS: set[str] = set()


def task(name: str) -> Callable[[T], T]:
    """Class decorator that makes a task reachable as `name`. A name taken twice raises ValueError."""
    return _REGISTRY.add(name)


def names() -> list[str]:
    """All names, registered or offered by an installed distribution, sorted."""
    return sorted({*_REGISTRY.names(), *plugins.offered(GROUP)})


def registered() -> list[str]:
    """The names that are there without importing anything, sorted."""
    return _REGISTRY.names()


def name_of(cls: type) -> str:
    """The name under which a task was registered, else `package.module:Task`."""
    known = (name for name, found in _REGISTRY.loaded().items() if found is cls)
    return next(known, f"{cls.__module__}:{cls.__qualname__}")


def conflict(name: str) -> str:
    """Why a name means more than one task, or nothing (see `optim_core.plugins`)."""
    return plugins.conflict("task", GROUP, name, ours=name in _REGISTRY.names() and name not in _PLUGINS)


def is_bundled(name: str) -> bool:
    """Whether the named task is one of this package."""
    found = _REGISTRY.get(name)
    return found is not None and found.__module__.partition(".")[0] == __name__.partition(".")[0]


def lookup(name: str) -> type[Task]:
    """The class behind `name`: a registered one, `package.module:Task`, or one that an installed distribution offers.

    Raises KeyError with the nearest name.
    """
    if (registered := _REGISTRY.get(name) or _plugin(name)) is not None:
        return registered
    if ":" in name:
        module_name, _, class_name = name.partition(":")
        try:
            return _checked(name, getattr(importlib.import_module(module_name), class_name))
        except (ImportError, AttributeError) as error:
            raise KeyError(f"no task {name!r}: {error}") from error
        except (Exception, SystemExit) as error:
            raise KeyError(f"no task {name!r}: {plugins.broken(module_name, error)}") from error
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {close[0]}?" if close else f"there is: {', '.join(names())}; or package.module:Task"
    raise KeyError(f"no task {name!r}; {hint}")


def _checked(name: str, cls: Any) -> type[Task]:
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise KeyError(f"{name!r} is not a trainables.Task")
    return cls


def _plugin(name: str) -> type[Task] | None:
    """The task that an installed distribution offers as `name`, from now on a registered one."""
    try:
        found = plugins.load("task", GROUP, name)
    except plugins.PluginError as error:
        raise KeyError(str(error)) from None
    if found is None:
        return None
    _PLUGINS.add(name)
    return _REGISTRY.get(name) or _REGISTRY.add(name)(_checked(name, found))  # its module may register it by itself


def parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """The task's own parameters: its constructor's keyword arguments, with their defaults."""
    found = inspect.signature(lookup(name).__init__).parameters
    return {k: p for k, p in found.items() if k != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def build(name: str, **values: Any) -> Task:
    """The named task with these parameters."""
    return lookup(name)(**values)
