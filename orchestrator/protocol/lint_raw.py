"""Unfair protocols that our format cannot express: found in the plain file, named by their rule, and removed.

Each function yields (code, path, message) and fixes the mapping in place, so that the other rules see a valid sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.definition.program_keys import is_program

Breaches = Iterator[tuple[str, tuple[str, ...], str]]
OF_THE_ARM = {
    "task": "GS116",
    "seeds": "GS116",
    "noise": "GS116",
    "split": "GS116",
    "budget": "GS101",
    "trials": "GS101",
    "evaluations": "GS108",
}
MESSAGES = {
    "GS101": "gives one arm its own tuning effort; every arm must get the same budget",
    "GS108": "evaluates one arm on a different schedule; all arms must be evaluated on the same one",
    "GS116": "ties data, noise or seeds to the arm; they belong to the sweep, and only the seed may decide",
}


def unit(file: dict[str, Any]) -> Breaches:
    """A budget in epochs."""
    budget = file.get("budget")
    task = file.get("task")
    if isinstance(task, dict) and is_program(task):
        return  # a script gets its budget in whatever it counts
    if isinstance(budget, dict) and budget.get("unit") in ("epochs", "iterations"):
        word = budget.pop("unit")
        yield (
            "GS102",
            ("budget", "unit"),
            f"{word}: a SAM step costs two gradients; use unit: grad_evals, or steps or tokens if intended",
        )


def overlap(file: dict[str, Any]) -> Breaches:
    """Confirm seeds that the search has seen."""
    seeds = file.get("seeds")
    if not isinstance(seeds, dict):
        return
    tune, confirm = seeds.get("tune", 1), seeds.get("confirm", 6)
    studies = seeds.get("studies", 1)
    tuned = set(range(tune * studies)) if isinstance(tune, int) else set(_flat(tune))
    both = sorted(tuned & set(_flat(confirm))) if isinstance(confirm, list) else []
    if both:
        seeds["confirm"] = max(1, len(_flat(confirm)) // studies)
        yield "GS106", ("seeds", "confirm"), f"{both} were seen by the search; confirm on fresh seeds"


def _flat(seeds: list[Any]) -> list[Any]:
    return [seed for part in seeds for seed in (part if isinstance(part, list) else [part])]


def pruning(file: dict[str, Any]) -> Breaches:
    """Early stopping that compares arms with each other."""
    early = file.get("early_terminate")
    if isinstance(early, dict) and early.get("scope", "arm") != "arm":
        scope = early.pop("scope")
        del file["early_terminate"]
        yield (
            "GS113",
            ("early_terminate", "scope"),
            f"{scope}: rankings of optimizers flip while the learning rate decays; remove scope, so that trials are "
            "stopped within an arm",
        )


def arms(file: dict[str, Any]) -> Breaches:
    """Arms with data, budgets or evaluations of their own."""
    given = file.get("arms")
    for name, arm in given.items() if isinstance(given, dict) else ():
        for key in [k for k in OF_THE_ARM if isinstance(arm, dict) and k in arm]:
            del arm[key]
            yield OF_THE_ARM[key], ("arms", str(name), key), f"{key}: {MESSAGES[OF_THE_ARM[key]]}"


RAW: tuple[Callable[[dict[str, Any]], Breaches], ...] = (unit, overlap, pruning, arms)
