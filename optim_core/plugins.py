"""Plug-ins offered by installed distributions through entry points, consulted when an unknown name is requested.

A distribution offers an optimizer as follows in its pyproject.toml:

    [project.entry-points."geosweep.optimizers"]
    lion = "their_package.lion:Lion"
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class PluginError(ValueError):
    """A name that is offered twice or cannot be loaded; the message names the distribution."""


def offered(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Name -> the entry points offering it, over all distributions on `sys.path`; more than one is an error."""
    return _offered(group, tuple(sys.path))


@lru_cache(maxsize=16)
def _offered(group: str, path: tuple[str, ...]) -> Mapping[str, tuple[EntryPoint, ...]]:
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in _every(path).select(group=group):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return dict(sorted(found.items()))


@lru_cache(maxsize=2)
def _every(path: tuple[str, ...]) -> Any:
    """Of all groups at once: reading the distributions takes most of the time."""
    return entry_points()


def distribution(entry: EntryPoint) -> str:
    """The distribution of an entry point, with its version."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unnamed distribution"


def conflict(kind: str, group: str, name: str, *, ours: bool) -> str:
    """Why a name is ambiguous; empty if it is not. `ours`: this project itself has an entry of that name."""
    entries = offered(group).get(name, ())
    owners = [*(["geosweep itself"] if ours else []), *(distribution(entry) for entry in entries)]
    if len(owners) < 2:
        return ""
    others = sorted({entry.dist.name for entry in entries if entry.dist is not None})
    return (
        f"{kind} {name!r} is offered by {' and by '.join(owners)}; uninstall all but one (pip uninstall {others[-1]})"
    )


def load(kind: str, group: str, name: str) -> Any | None:
    """What a distribution offers as `name`, imported; None if none does. Raises PluginError."""
    entries = offered(group).get(name, ())
    if not entries:
        return None
    if wrong := conflict(kind, group, name, ours=False):
        raise PluginError(wrong)
    try:
        return entries[0].load()
    except (Exception, SystemExit) as error:
        said = error if isinstance(error, ImportError | AttributeError) else broken(entries[0].module, error)
        raise PluginError(
            f"{kind} {name!r}, {entries[0].value} of {distribution(entries[0])}, cannot be imported: {said}"
        ) from error


def broken(module: str, error: BaseException) -> str:
    """The error of importing a module in one line, with the line of code; also for a program that its import runs."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith("<")]
    name = re.split(r"[\\/]", own[-1].filename)[-1] if own else ""
    line = f" ({name}:{own[-1].lineno})" if own and not isinstance(error, SyntaxError) else ""
    words, way = " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split()), ""
    if type(error) is SystemExit:
        way = "; put code that runs under if __name__ == '__main__'"
    elif isinstance(error, SystemExit):  # a call that would end the process
        words, way = str(error), "; a module must not end the process that imports it: remove the call"
    return f"importing {module} ended in {words}{line}{way}"
