"""Where modules and files that a sweep file names are found: beside it, then in the current folder.

A process remembers the folders of the sweep files that it was given. Workers on this machine inherit them through the
environment; on other machines they are on `sys.path`, where the shipped code is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

BESIDE = "GEOSWEEP_BESIDE"
"""Environment variable: folders of sweep files, the newest first."""


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
