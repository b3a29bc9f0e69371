"""Where modules and files named by a sweep file are found: next to it, then in the current folder.

What is installed comes before both, our own packages before anything: a folder may hold a `trainables`, a `ray.py` or
a `random.py` of its own.

A process remembers the folders of the sweep files that it was given. Workers on this machine inherit them through the
environment; on other machines they are on `sys.path`, where the shipped code is.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

BESIDE = "GEOSWEEP_BESIDE"
"""Environment variable: folders of sweep files, the newest first."""
INSTALLED = Path(__file__).parents[2]
"""The folder that holds our packages."""
MOST = 200
"""Modules of a folder that are looked into for a class."""
OURS = ("geosweep", "optim_core", "orchestrator", "trainables")


class _Ours(MetaPathFinder):
    """Finds our packages where this one lies, whatever `sys.path` says; an editable install asks `sys.path` first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for packages that are not ours."""
        return PathFinder.find_spec(fullname, [str(INSTALLED)]) if fullname in OURS else None


def ours_first() -> None:
    """Import our packages from this installation alone, from now on."""
    if not any(isinstance(finder, _Ours) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Ours())


def current_last() -> None:
    """Look for modules in the current folder too, after all others: tasks and optimizers, as `module:Class`.

    Python began with it where it was told `-m` or `-c`; where PYTHONPATH names it, it stays in its place.
    """
    here = os.getcwd()
    if sys.path[:1] in ([""], [here]) and not sys.flags.safe_path:
        named = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
        if here not in named:
            del sys.path[0]
    if here not in sys.path:
        sys.path.append(here)


def remember(folder: Path) -> None:
    """Look in this folder from now on, before the current one."""
    place, here = str(folder.absolute()), os.getcwd()
    if place not in sys.path:
        at = sys.path.index(here) if sys.path[-1:] == [here] else len(sys.path)
        sys.path.insert(at, place)
    known = [one for one in os.environ.get(BESIDE, "").split(os.pathsep) if one and one != place]
    os.environ[BESIDE] = os.pathsep.join([place, *known])


def found(value: str) -> str:
    """The path of a file by its name, or the text as it is."""
    if not value or not (set("./" + os.sep) & set(value)) or os.path.isabs(value) or len(value) > 4096 or "\0" in value:
        return value
    beside = [place for place in os.environ.get(BESIDE, "").split(os.pathsep) if place]
    installed = (sys.prefix, sys.base_prefix)
    others = [place for place in sys.path if place and not place.startswith(installed)]
    for place in (*beside, os.getcwd(), *others):
        path = os.path.join(place, value)
        if os.path.exists(path):
            return value if place == os.getcwd() else path
    return value


def hidden(name: str) -> str:
    """What to say besides where `module:Class` or `module.Class` is not there: that another file hides the module.

    Empty where none does.
    """
    top = name.replace(":", ".").partition(".")[0]
    known = sys.modules.get(top)
    if known is None or top == name:
        return ""
    file = getattr(known, "__file__", None) or "a part of Python"
    for place in sys.path:
        for inner in (f"{top}.py", os.path.join(top, "__init__.py")):
            path = os.path.abspath(os.path.join(place, inner))
            if path != os.path.abspath(file) and os.path.isfile(path):
                return f"; {top} is {file}, so {path} is not looked at: call it something else"
    return ""


def near(name: str) -> str:
    """`; did you mean module:Class?` for the name of a class alone that a module beside the sweep file, or in the
    current folder, has, or one that is spelled much like it. Nothing is imported.
    """
    if not name.isidentifier():
        return ""
    folders = [*os.environ.get(BESIDE, "").split(os.pathsep), os.getcwd()]
    found: dict[str, str] = {}
    for path in (
        file for folder in dict.fromkeys(folders) if folder for file in sorted(Path(folder).glob("*.py"))[:MOST]
    ):
        with contextlib.suppress(OSError):
            text = path.read_text(encoding="utf-8", errors="replace")
            for one in re.findall(r"^class (\w+)\b", text, re.MULTILINE):
                found.setdefault(one, f"{path.stem}:{one}")
    close = difflib.get_close_matches(name, found, n=1, cutoff=0.8)
    return f"; did you mean {found[close[0]]}?" if close else ""
