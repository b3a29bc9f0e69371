"""How trials are paired when arms may choose parameters of their task.

Trials of one seed with the same task must have had the same initial weights and data. Where arms chose different values
from the same space, the choice is part of what was tuned. Over studies that is a fair question (each arm with the task
parameters that it found): study r of one arm and study r of the other still have the same seeds and the same search,
and differences over studies do not need common weights. With one search per arm, two configurations would have to be
compared on paired seeds, and those are no longer paired: refused. Values that the file fixes differently for different
arms make a different task: only arms with the same one are compared, unless the file declares that this is intended.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from orchestrator.definition.parts import TASK, in_section
from orchestrator.statistics.refused import Refused

DIGESTS = ("init_digest", "data_digest")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What arms may choose about the task."""

    searched: frozenset[str] = frozenset()
    """Dotted names that every arm searches in the same space."""
    asked: frozenset[str] = frozenset()
    """Dotted names that determine the data or the meaning of metrics, so no arm may choose them."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """The values of an arm that sets none, by dotted name."""
    declared: str = ""
    """Why the file gives arms different tasks on purpose; empty: it does not."""


NOTHING = Choice()


def check_streams(confirm: pd.DataFrame, choice: Choice, *, several: bool) -> list[str]:
    """Raises Refused unless trials of one seed are paired as far as `choice` allows; returns notes for the reader.

    Arms to which the file gives different tasks are checked by themselves (`by_task`).
    """
    confirm, groups = _with_task(confirm, choice), by_task(confirm, choice)
    if len(groups) < 2:
        return _check(confirm, choice, several=several)
    notes = [_check(confirm[confirm["arm"].isin(arms)], choice, several=several) for arms in groups]
    rows = confirm.drop_duplicates("arm")
    why = _refusal(rows, [name for name in _differing(list(rows["task"])) if name not in choice.searched], choice)
    alike = "; ".join(", ".join(arms) for arms in groups)
    return [f"Only arms with the same task are compared ({alike}): {why}.", *dict.fromkeys(itertools.chain(*notes))]


def by_task(confirm: pd.DataFrame, choice: Choice) -> list[list[str]]:
    """Arms that have the same task by the file, group by group; all in one group where no two of them have, or where
    the difference is declared to be intended.
    """
    confirm = _with_task(confirm, choice)
    found: dict[str, list[str]] = {}
    for arm, rows in confirm.groupby("arm"):
        fixed = {json.dumps({k: v for k, v in json.loads(task).items() if k not in choice.searched}, sort_keys=True)
                 for task in rows["task"]}  # fmt: skip
        if len(fixed) > 1:
            return [sorted(set(confirm["arm"]))]
        found.setdefault(fixed.pop(), []).append(str(arm))
    if choice.declared or all(len(arms) < 2 for arms in found.values()):
        return [sorted(set(confirm["arm"]))]
    return list(found.values())


def _with_task(confirm: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    tasks = [_task(row, choice) for row in confirm["parameters"]] if "parameters" in confirm else [{}] * len(confirm)
    return confirm.assign(task=[json.dumps(task, sort_keys=True) for task in tasks])


def _check(confirm: pd.DataFrame, choice: Choice, *, several: bool) -> list[str]:
    apart: dict[str, set[tuple[Any, Any]]] = {}
    for (study, seed), rows in confirm.groupby(["study", "seed"]):
        for _, alike in rows.groupby("task"):
            _check_same(seed, alike)
        differing = _differing(list(rows["task"]))
        for name in differing:
            apart.setdefault(name, set()).add((study, seed))
        if differing and (bad := _refusal(rows, differing, choice, several=several)):
            raise Refused(f"seed {seed} is not paired: {bad}")
    studies = confirm["study"].nunique()
    return list(_notes(apart, studies, choice))


def chosen_by_arms(confirm: pd.DataFrame, choice: Choice) -> list[str]:
    """What every arm chose about the task itself."""
    given = {name for row in confirm.get("parameters", ()) for name in in_section(TASK, json.loads(row))}
    return sorted(given & choice.searched)


def _task(parameters: str, choice: Choice) -> dict[str, Any]:
    given = json.loads(parameters)
    own = {name: given[name] for name in in_section(TASK, given)}
    return {**choice.fixed, **own} if own or choice.fixed else {}


def _check_same(seed: Any, rows: pd.DataFrame) -> None:
    for digest in DIGESTS:
        seen: set[Any] = set(map(str, rows[digest]))
        if len(seen) > 1 or not rows[digest].iloc[0]:
            raise Refused(f"seed {seed} is not paired: {digest} is {', '.join(sorted(seen))}")


def _differing(tasks: Sequence[str]) -> list[str]:
    read = [json.loads(task) for task in dict.fromkeys(tasks)]
    return [n for n in sorted({n for one in read for n in one}) if len({json.dumps(one.get(n)) for one in read}) > 1]


def _refusal(rows: pd.DataFrame, names: Sequence[str], choice: Choice, *, several: bool = False) -> str:
    words = "; ".join(f"{name} is {_values(rows, name)}" for name in names)
    if choice.declared:
        return ""
    if asked := [name for name in names if name in choice.asked]:
        return f"{words}: {', '.join(asked)} changes the question; run one sweep per value, and see geosweep profile"
    other = [name for name in names if name not in choice.searched]
    if other:
        return (
            f"{words}: different tasks for different arms. Let every arm search {', '.join(other)} in the same space, "
            f"or declare that this is intended: analysis: {{waive: {{GS116: the reason}}}}"
        )
    if several:
        return ""
    return (
        f"{words}, chosen by each arm from the same space, so initial weights or data differ. `seeds: {{studies: 6}}` "
        f"or more compares the methods, each with its own {', '.join(names)}; or fix it"
    )


def _values(rows: pd.DataFrame, name: str) -> str:
    found = zip(rows["arm"], (json.loads(task).get(name) for task in rows["task"]), strict=True)
    return ", ".join(f"{value} in {arm}" for arm, value in found)


def _notes(apart: Mapping[str, set[tuple[Any, Any]]], studies: int, choice: Choice) -> Iterator[str]:
    for name, where in apart.items():
        count = len({study for study, _ in where})
        if name in choice.searched:
            yield (
                f"{name} is part of what each arm tunes: in {count} of {studies} studies the arms chose different "
                "values; there they share seeds, but neither initial weights nor batches."
            )
        else:
            yield f"{name} differs between arms by declaration ({choice.declared}): the arms had different tasks."
