"""What every converted sweep is made of: a program that is called with the parameters, and one arm, or one for each
value of a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from orchestrator.convert.draft import Draft, Section, sweep_name
from orchestrator.definition.errors import nearest

TRIALS = 20
"""Where the original says no number."""
COMMAND = ["${interpreter}", "${program}", "${args}"]
"""How a program is called when nothing else is said."""
FILE = re.compile(r"[^\s=]+\.(py|sh|R|jl|m)")


class NoListError(ValueError):
    """--arms names what is no list of values."""


def header(draft: Draft, name: str, description: str = "") -> None:
    """The first keys."""
    clean = sweep_name(name)
    draft.top.put("schema_version", 1)
    draft.top.put("name", clean, f"was: {name!r}" if clean != name else "")
    if description:
        draft.top.put("description", description)


def task(draft: Draft, program: str, command: Sequence[str], *why: str) -> None:
    """The program and how it is called, where that is not the usual way."""
    found = Section()
    found.put("program", program)
    if command and list(command) != COMMAND:
        found.put("command", list(command), *why)
        why = ()
    draft.top.put("task", found, *why)


def arms(draft: Draft, parameters: dict[str, tuple[Any, list[str]]], by: str, name: str) -> None:
    """One arm, or one for each value of the parameter `by`; then the parameters. Raises NoListError."""
    lists = [key for key, (one, _) in parameters.items() if isinstance(one, Mapping) and "values" in one]
    found = Section()
    if by:
        if by not in lists:
            raise NoListError(f"--arms {by}: is no parameter with a list of values{nearest(by, lists)}")
        for value in parameters.pop(by)[0]["values"]:
            inner = Section()
            inner.put(by, value)
            arm = Section()
            arm.put("parameters", inner)
            found.put(re.sub(r"[@/]", "-", str(value)), arm)
        draft.top.put("arms", found, f"one arm for each value of {by}; each is tuned with the same effort")
    else:
        found.put(sweep_name(PurePosixPath(name).stem or name), Section())
        more = f"; --arms {lists[0]} makes one of each value of {lists[0]}" if lists else ""
        draft.top.put("arms", found, f"arms are what a sweep compares, each tuned with the same effort{more}")
    if parameters:
        shared = Section()
        for key, (one, why) in parameters.items():
            shared.put(key, one, *why)
        draft.top.put("parameters", shared)


def file_in(words: Sequence[str]) -> str:
    """The script in a command line, or nothing."""
    found = (match[0] for word in words if not word.startswith("-") and (match := FILE.fullmatch(word)))
    return next(found, "")
