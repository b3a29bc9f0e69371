"""The parts of every converted sweep: a program called with the parameters, and one arm, or one per value of a
parameter.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from orchestrator.convert.draft import Draft, Section, number, sweep_name
from orchestrator.definition.errors import nearest
from orchestrator.definition.yaml12 import Path

TRIALS = 20
"""Where the original gives no number."""
USUAL = (["${interpreter}", "${program}", "${args}"], ["${env}", "${interpreter}", "${program}", "${args}"])
"""How a program is called by default."""
PER_TRIAL = 10
SEEDS = ("seed", "random_seed", "rng_seed", "manual_seed", "random_state")
BUDGETS = {
    **dict.fromkeys(("epochs", "epoch", "num_epochs", "n_epochs", "max_epochs", "num_train_epochs"), "epochs"),
    **dict.fromkeys(("steps", "num_steps", "n_steps", "max_steps", "total_steps", "iterations", "max_iters"), "steps"),
}
"""Common parameters for the length of a run -> the unit of the budget."""
FILE = re.compile(r"[^\s=]+\.(py|sh|R|jl|m)")

NO_PBT = "population based training changes hyperparameters during training, which a script cannot do"


class NoListError(ValueError):
    """--arms names something other than a list of values."""


def header(draft: Draft, name: str, description: str = "") -> None:
    """The first keys."""
    clean = sweep_name(name)
    draft.top.put("schema_version", 1)
    draft.top.put("name", clean, f"was: {name!r}" if clean != name else "")
    if description:
        draft.top.put("description", description)


@dataclass(kw_only=True)
class Handed:
    """What a sweep passes to a program besides its parameters."""

    seed_arg: str = ""
    seeds: int = 0
    """How many the original listed."""
    budget_arg: str = ""
    unit: str = "steps"
    per_trial: int = 0
    """0: not given in the original."""


def handed(draft: Draft, parameters: dict[str, tuple[Any, list[str]]], path: Path) -> Handed:
    """Seed and budget, removed from the parameters: a sweep has its own keys for them."""
    found = Handed()
    for key in [key for key in parameters if _plain(key) in SEEDS][:1]:
        one = parameters.pop(key)[0]
        values = one.get("values", [1]) if isinstance(one, Mapping) else [1]
        found.seed_arg, found.seeds = key, len(values)
        draft.note("changed", (*path, key), "the sweep has its own seeds (seeds), passed through seed_arg")
    for key in [key for key in parameters if _plain(key) in BUDGETS][:1]:
        one = parameters[key][0]
        amount = number(
            one if not isinstance(one, Mapping) else one.get("value", (one.get("values") or [None, None])[0])
        )
        fixed = not isinstance(one, Mapping) or "value" in one or len(one.get("values", ())) == 1
        if fixed and isinstance(amount, int) and not isinstance(amount, bool) and amount > 0:
            parameters.pop(key)
            found.budget_arg, found.unit, found.per_trial = key, BUDGETS[_plain(key)], amount
            draft.note("changed", (*path, key), "the budget of a trial, passed through budget_arg")
        else:
            why = "is searched, so trials cost unequally; fix it, and make it the budget (task.budget_arg)"
            parameters[key][1].append(draft.note("to fill in", (*path, key), f"{key} {why}"))
    return found


def _plain(key: str) -> str:
    """`Num-Epochs` is spelled as num_epochs is."""
    return key.lower().replace("-", "_")


def task(draft: Draft, program: str, command: Sequence[str], given: Handed, *why: str) -> None:
    """The program, how it is called unless by default, and what it gets."""
    found = Section()
    found.put("program", program)
    if command and list(command) not in USUAL:
        found.put("command", list(command))
    if given.seed_arg:
        found.put("seed_arg", given.seed_arg)
    if given.budget_arg:
        found.put("budget_arg", given.budget_arg)
    open_ends = [
        "" if given.seed_arg else "seed_arg: NAME, the argument that takes the seed (without it, nothing is paired)",
        "" if given.budget_arg else "budget_arg: NAME, the argument that takes the budget",
        "metrics: where to find its metrics, a pattern in its output, jsonl, csv or tensorboard; or it reports "
        "them with three lines (docs/scripts.md)",
    ]
    said = [draft.note("to fill in", (), text) for text in open_ends if text]
    draft.top.put("task", found, *why, *said)


def budget(draft: Draft, given: Handed, trials: int | None, *, grid: bool, most: int = 0, words: str = "") -> Section:
    """The budget. `trials`: their number in the original, described by `words`; `most`: its last iteration."""
    found = Section()
    found.put("unit", given.unit)
    if given.per_trial:
        found.put("per_trial", given.per_trial, f"was the parameter {given.budget_arg}")
    elif most > 0:
        found.put("per_trial", most, "how often a trial reports its metric until it ends, as the original says")
    else:
        why = "the original has no budget per trial: how many steps, or epochs (unit: epochs)?"
        found.put("per_trial", PER_TRIAL, draft.note("to fill in", (), why))
    if trials is not None:
        found.put("trials_per_arm", trials, words + (" (may be removed: a grid has its own size)" if grid else ""))
    elif not grid:
        why = f"the original gives no number of trials; {TRIALS} is a start"
        found.put("trials_per_arm", TRIALS, draft.note("to fill in", (), why))
    draft.top.put("budget", found)
    if given.seeds > 1 and "seeds" not in draft.top.entries:
        why = f"was the parameter {given.seed_arg} with {given.seeds} values; confirm seeds are fresh ones"
        draft.top.put("seeds", {"tune": given.seeds}, why)
    return found


def arms(draft: Draft, parameters: dict[str, tuple[Any, list[str]]], by: str, name: str) -> None:
    """One arm, or one for each value of the parameter `by`; then the parameters. Raises NoListError."""
    lists = [key for key, (one, _) in parameters.items() if isinstance(one, Mapping) and "values" in one]
    found = Section()
    if by:
        if by not in lists:
            raise NoListError(f"--arms {by}: is not a parameter with a list of values{nearest(by, lists)}")
        for value in parameters.pop(by)[0]["values"]:
            inner = Section()
            inner.put(by, {"value": value} if isinstance(value, Mapping) else value)
            arm = Section()
            arm.put("parameters", inner)
            found.put(_arm(value, {str(name).casefold() for name in found.entries}), arm)
        draft.top.put("arms", found, f"one arm for each value of {by}; each is tuned with the same effort")
    else:
        found.put(sweep_name(PurePosixPath(name).stem or name), Section())
        more = f"; --arms {lists[0]} makes one for each value of {lists[0]}" if lists else ""
        draft.top.put("arms", found, f"arms are what a sweep compares, each tuned with the same effort{more}")
    if parameters:
        shared = Section()
        for key, (one, why) in parameters.items():
            shared.put(key, one, *why)
        draft.top.put("parameters", shared)


def _arm(value: Any, taken: set[str]) -> str:
    """A name for the arm of this value that differs from the others' by more than case."""
    name = re.sub(r"[@/]", "-", str(value))
    further = (f"{name}-{i}" for i in itertools.count(2))
    return next(one for one in itertools.chain([name], further) if one.casefold() not in taken)


def file_in(words: Sequence[str]) -> str:
    """The script in a command line, or an empty string."""
    found = (match[0] for word in words if not word.startswith("-") and (match := FILE.fullmatch(word)))
    return next(found, "")
