"""Tasks by name: `@task("digits")`, `names()`, `build(name, **parameters)`; `package.module:Task` for a user's own."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from optim_core import plugins
from optim_core.named import Named
from trainables.task_class import Task

T = TypeVar("T", bound=type[Task])
GROUP = "geosweep.tasks"
"""The entry point group of plug-ins."""
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
"""Module in `trainables.tasks` -> tasks that it registers on import."""
_REGISTRY: Named[type[Task]] = Named("task", "trainables.tasks", HOMES)
_PLUGINS: set[str] = set()


def task(name: str) -> Callable[[T], T]:
    """Class decorator that registers a task as `name`. Raises ValueError for a name already taken."""
    return _REGISTRY.add(name)


def names() -> list[str]:
    """All names, registered or offered by an installed distribution, sorted."""
    return sorted({*_REGISTRY.names(), *plugins.offered(GROUP)})


def registered() -> list[str]:
    """The names available without importing anything, sorted."""
    return _REGISTRY.names()


def name_of(cls: type) -> str:
    """The name under which a task was registered, or `package.module:Task`."""
    known = (name for name, found in _REGISTRY.loaded().items() if found is cls)
    return next(known, f"{cls.__module__}:{cls.__qualname__}")


def conflict(name: str) -> str:
    """Why a name is ambiguous; empty if it is not (see `optim_core.plugins`)."""
    return plugins.conflict("task", GROUP, name, ours=name in _REGISTRY.names() and name not in _PLUGINS)


def is_bundled(name: str) -> bool:
    """Whether the named task belongs to this package."""
    found = _REGISTRY.get(name)
    return found is not None and found.__module__.partition(".")[0] == __name__.partition(".")[0]


def lookup(name: str) -> type[Task]:
    """The class for `name`: a registered one, `package.module:Task`, or one offered by an installed distribution.

    Raises KeyError with the nearest name.
    """
    if (registered := _REGISTRY.get(name) or _plugin(name)) is not None:
        return registered
    module_name, colon, class_name = name.partition(":")
    if colon and "/" not in name and not module_name.endswith(".py"):
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise KeyError(f"no task {name!r}: {error}") from error
        except (Exception, SystemExit) as error:
            raise KeyError(f"no task {name!r}: {plugins.broken(module_name, error)}") from error
        found = getattr(module, class_name, None)
        if found is None or not isinstance(found, type):
            raise KeyError(f"no task {name!r}{_nearest_class(module, class_name)}")
        return _checked(name, found)
    if close := difflib.get_close_matches(name, names(), n=1):
        raise KeyError(f"no task {name!r}; did you mean {close[0]}?")
    if meant := _as_written(name):
        raise KeyError(f"no task {name!r}; did you mean {meant}?")
    raise KeyError(f"no task {name!r}; available: {', '.join(names())}; or package.module:Task")


def _nearest_class(module: ModuleType, wanted: str) -> str:
    """`; did you mean module:Class?`, or the tasks in the module."""
    known = [key for key, one in vars(module).items() if isinstance(one, type) and issubclass(one, Task)]
    known = [key for key in known if getattr(module, key) is not Task]
    by_case = {key.lower(): key for key in known}
    close = difflib.get_close_matches(wanted.lower(), by_case, n=1) or (list(by_case) if len(by_case) == 1 else [])
    if close:
        return f"; did you mean {module.__name__}:{by_case[close[0]]}?"
    listed = ", ".join(f"{module.__name__}:{key}" for key in known)
    return f": {module.__name__} has no class {wanted!r}" + (f"; it has {listed}" if listed else "")


def _as_written(name: str) -> str:
    """`module:Class` for `folder/module.py:Class`, `module.Class`, `module.py` or `module`, if the module exists.

    The module is located but not imported; only its parent packages are.
    """
    path, colon, wanted = name.partition(":")
    dotted = path.removeprefix("./").removesuffix(".py").replace("/", ".")
    outer, dot, last = dotted.rpartition(".")
    tries = [(outer, last)] if dot and not colon and not path.endswith(".py") else []
    for module, cls in (*tries, (dotted, wanted)):
        try:
            found = importlib.util.find_spec(module)
        except Exception:  # raised by a parent package
            continue
        if (
            found is None
            or not found.origin
            or (module == outer and found.submodule_search_locations)
            or module.partition(".")[0] in sys.stdlib_module_names
        ):
            continue
        return f"{module}:{cls or _first_class(found.origin)}"
    return ""


def _first_class(file: str) -> str:
    """The first class in a source file that looks like a task, or the first class, or `Task`."""
    try:
        with open(file, encoding="utf-8") as source:
            body = ast.parse(source.read()).body
    except (OSError, ValueError, SyntaxError):
        return "Task"
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    of_task = [node for node in classes if any(ast.unparse(base).endswith("Task") for base in node.bases)]
    return next((node.name for node in (*of_task, *classes)), "Task")


def _checked(name: str, cls: Any) -> type[Task]:
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise KeyError(f"{name!r} is not a trainables.Task")
    return cls


def _plugin(name: str) -> type[Task] | None:
    """The task that an installed distribution offers as `name`; registers it."""
    try:
        found = plugins.load("task", GROUP, name)
    except plugins.PluginError as error:
        raise KeyError(str(error)) from None
    if found is None:
        return None
    _PLUGINS.add(name)
    return _REGISTRY.get(name) or _REGISTRY.add(name)(_checked(name, found))  # its module may register it itself


def parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """The task's own parameters: its constructor's keyword arguments with their defaults."""
    found = inspect.signature(lookup(name).__init__).parameters
    return {k: p for k, p in found.items() if k != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def build(name: str, **values: Any) -> Task:
    """The named task with these parameters."""
    return lookup(name)(**values)
