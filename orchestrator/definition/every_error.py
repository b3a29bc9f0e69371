"""All errors of a sweep file, in the order of its lines.

A check stops at the first error. Here the file is read again without it, until no more are found: a wrong key is
removed, a missing one gets a stand-in. What follows from that alone is not an error of the file: a rule that looks at
a section from which something was removed is silent (LOOKS_AT), and so is one that mentions what was removed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optim_core
import trainables
from orchestrator.definition.errors import SpecError, SpecErrors
from orchestrator.definition.model import Spec
from orchestrator.definition.yaml12 import Document, Path

ROUNDS = 60
TASK_VALUES, VALUES, EFFORT, STUDIES = "values of the task", "hyperparameters", "effort", "studies"
LOOKS_AT: Mapping[str, frozenset[str]] = {
    "metric": frozenset({"task"}),
    "objectives": frozenset({"task"}),
    "training": frozenset({"task", TASK_VALUES, "budget"}),
    "diagnostics": frozenset({"task"}),
    "evaluations": frozenset({"task", TASK_VALUES, "budget", "arms", VALUES}),
    "budget": frozenset(
        {"task", TASK_VALUES, "budget", EFFORT, "seeds", STUDIES, "evaluations", "method", "resources", "arms", VALUES}
    ),
    "controls": frozenset({"arms", VALUES, "controls"}),
    "racing": frozenset({"arms", "seeds", STUDIES, "racing"}),
    "seeds": frozenset({STUDIES}),
    "method": frozenset({"early_terminate"}),
    "early_terminate": frozenset({"evaluations", "early_terminate"}),
    "resources": frozenset({"task", "resources"}),
    "analysis": frozenset({"arms"}),
}
"""Section -> what its rules look at, beyond types and spelling and what they mention: sections, or parts of them (see
`_part`).
"""
OF_SPACE = ("arms", "parameters", "groups", "constraints")
"""Sections that say together what is searched; they mention what belongs to the task and to training too."""
OF_ARM = ("no optimizer", "an arm's name", "reads like")
"""Begin what is said of an arm whatever else is in the file; the rest is about its size, or its cost."""
SHARED = ("task", "parameters", "training", "groups", "constraints", "resources")
"""Sections that every arm's first step depends on."""
STAND_INS: Mapping[str, Any] = {
    "schema_version": 1,
    "name": "unnamed",
    "goal": "minimize",
    "budget": {"unit": "grad_evals", "per_trial": 10**9, "trials_per_arm": 1},
    "per_trial": 10**9,
    "trials_per_arm": 1,
}
"""Missing key -> value read instead; never shown."""
OBEYED = "1 <= 1"
"""Read in place of a wrong constraint."""
MEANT = re.compile(r"did you mean (\w+)\?")
MISSING = re.compile(r"(\w+): missing")


@dataclass
class _Reading:
    """The file as it is now read, and what was removed from it."""

    document: Document
    taken: list[Path] = field(default_factory=list)
    stood_in: set[Path] = field(default_factory=set)
    strange: set[Path] = field(default_factory=set)
    """What was removed and is not a key of the task's: nothing looks at it."""

    def parts(self) -> set[str]:
        """Parts of the file in which something that a rule may look at was removed or put in."""
        return {_part(path) for path in (*self.taken, *self.stood_in) if path and path not in self.strange}


def _part(path: Path) -> str:
    """The section of a path, or what of it: whole arms are looked at elsewhere than their hyperparameters are."""
    section, key = str(path[0]), path[1] if len(path) > 1 else ""
    if section in ("parameters", "groups") or (section == "arms" and path[2:3] in (("parameters",), ("groups",))):
        return VALUES
    if section == "task" and key not in ("", "name"):
        return TASK_VALUES
    if section == "budget" and key in ("wall_clock", "trials_per_arm"):
        return EFFORT
    return STUDIES if path[:2] == ("seeds", "studies") else section


def every(first: SpecError, document: Document, read: Callable[[Document], Spec]) -> SpecError:
    """`first` and all other errors, as one. `read` raises the next SpecError, or returns.

    What is right in the file is its `rest`: the sweep with the arms of which nothing was taken out.
    """
    found, error, rest = [first], first, None
    now = _Reading(Document(copy.deepcopy(document.value), document.places))
    for _ in range(ROUNDS):
        if not _repair(now, error):
            break
        try:
            rest = read(now.document)
            break
        except SpecError as following:
            if not _follows(following, now):
                found.append(following)
            error = following
        except Exception:  # a half-repaired file may break any check
            break
    found = list({str(one): one for one in found}.values())
    found.sort(key=lambda one: (one.line, one.column))
    said = found[0] if len(found) == 1 else SpecErrors(found)
    said.rest = rest and _untouched(rest, now)
    return said


def _untouched(rest: Spec, now: _Reading) -> Spec | None:
    """The sweep with the arms that are as the file has them; None where there is none."""
    changed = {path for path in (*now.taken, *now.stood_in) if path not in now.strange}
    if any(path[0] in SHARED for path in changed):
        return None
    arms = {path[1] if len(path) > 1 else "" for path in changed if path[0] == "arms"}
    whole = {} if "" in arms else {name: arm for name, arm in rest.arms.items() if name not in arms}
    return replace(rest, arms=whole) if whole else None


def _follows(error: SpecError, now: _Reading) -> bool:
    """Whether the error is there only because of what was removed before."""
    path = error.path
    if missing := MISSING.match(error.message):
        gone = (*path, missing[1])
        if any(other[: len(gone)] == gone for other in now.taken):
            return True
    elif error.is_of_form and any(len(path) < len(other) and other[: len(path)] == path for other in now.taken):
        return True  # the rest of it is empty
    for other in (*now.taken, *now.stood_in):
        shorter = min(len(path), len(other))
        if path and path[:shorter] == other[:shorter] and (error.is_of_form is False or len(path) >= len(other)):
            return True
        if not error.is_of_form and _mentions(error, other):
            return True
    if error.is_of_form:
        return False
    section, parts = str(path[0]) if path else "", now.parts()
    if section == "task" and any(other[0] == "task" for other in now.stood_in):
        return True  # of a task that the file does not name
    if ("no arm" in error.message or "not an arm" in error.message) and "arms" in parts:
        return True
    if "when" in path and parts & {"arms", VALUES}:
        return True
    if "matches no parameter" in error.message and parts & {"task", TASK_VALUES}:
        return True
    if len(path) == 2 and section == "arms" and parts:
        return not error.message.startswith(OF_ARM)
    return bool(LOOKS_AT.get(section, frozenset()) & parts)


def _mentions(error: SpecError, other: Path) -> bool:
    """Whether an error speaks of what was removed elsewhere, in a place that it may look at."""
    if not other or not isinstance(other[-1], str) or other[-1:] == error.path[-1:]:
        return False
    section, there = str(error.path[0]) if error.path else "", str(other[0])
    if section == there == "arms" and len(other) > 1 and other[1] != error.path[1]:
        return False
    related = section in OF_SPACE and there in (*OF_SPACE, "task", "training", "budget", "method")
    if not (related or section == there or _part(other) in LOOKS_AT.get(section, ())):
        return False
    head = re.split(r"; (?:available:|did you mean)", error.message)[0]
    return re.search(rf"\b{re.escape(other[-1])}\b", head) is not None


def _repair(now: _Reading, error: SpecError) -> bool:
    """Remove what is wrong, or add what is missing; returns whether anything was changed."""
    path = error.path
    missing = MISSING.match(error.message)
    if missing and _put_in(now, (*path, missing[1])):
        return True
    while path and path not in now.document.places:
        path = path[:-1]
    if path[:1] == ("constraints",) and len(path) == 2:
        now.document.value["constraints"][path[1]] = OBEYED
        return True
    path = next(
        (path[:i] for i, part in enumerate(path) if isinstance(part, int)), path
    )  # a list is removed as a whole
    if path[-1:] == ("schedule",):  # the rest would be read as something else
        path = path[:-1]
    if path == ("task", "program"):  # whether it is a script decides what the rest means
        return False
    if not path or path in now.taken:
        path = path[:-1] if path else path
    if not path:
        return False
    if not _take_out(now, path):
        return False
    now.taken.append(path)
    if path[0] == "task" and "has no parameter" in error.message:
        now.strange.add(path)
    if meant := MEANT.search(error.message):
        now.taken.append((*path[:-1], meant[1]))
        now.strange |= {(*path[:-1], meant[1])} if path in now.strange else set()
    return True


def _take_out(now: _Reading, path: Path) -> bool:
    value = now.document.value
    for part in path[:-1]:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    if not isinstance(value, dict) or path[-1] not in value:
        return False
    del value[path[-1]]
    return True


def _put_in(now: _Reading, path: Path) -> bool:
    if path in now.stood_in:
        return False
    value = now.document.value
    for part in path[:-1]:
        if not isinstance(value, dict) or not isinstance(value.get(part), dict):
            return False
        value = value[part]
    stand_in = _stand_in(path, now.document.value)
    if not isinstance(value, dict) or stand_in is None:
        return False
    value[path[-1]] = stand_in
    now.stood_in.add(path)
    return True


def _stand_in(path: Path, document: Mapping[str, Any]) -> Any:
    """What is read in place of a missing key; None where nothing fits."""
    key = str(path[-1])
    if path == ("task",) or path == ("task", "name"):
        name = next(name for name in trainables.names() if not trainables.lookup(name).GAME)
        return {"name": name} if key == "task" else name
    if path == ("arms",):
        return {next(name for name in optim_core.names() if not optim_core.lookup(name).PLAYS_GAMES): {}}
    if path == ("metric",) or path == ("metric", "name"):
        task = document.get("task")
        try:
            metrics = trainables.lookup(str(task["name"]) if isinstance(task, dict) else "").METRICS
        except KeyError:
            return None
        name, one = next(iter(metrics.items()))
        return {"name": name, "goal": one.goal} if key == "metric" else name
    return copy.deepcopy(STAND_INS.get(key))
