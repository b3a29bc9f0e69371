"""Whether arms get the same task, recipe and amount of work, where configurations may choose among these."""

from __future__ import annotations

import math
from collections.abc import Iterator

import optim_core
import trainables
from orchestrator.definition import batches, plan
from orchestrator.definition.model import Spec
from orchestrator.definition.parts import TASK, in_section, section_of, split
from orchestrator.definition.space import corners

Found = Iterator[tuple[tuple[str, ...], str]]


def not_alike(spec: Spec, section: str) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(place, name, words) for what arms set or search differently in a section; a script's names are its own."""
    if spec.task.is_program:
        return
    every = [[p.name for p in arm.parameters] for arm in spec.arms.values()]
    for name in dict.fromkeys(name for names in every for name in in_section(section, names)):
        given = {arm: next((p for p in one.parameters if p.name == name), None) for arm, one in spec.arms.items()}
        if len({repr(p) for p in given.values()}) > 1:
            have = [arm for arm, p in given.items() if p is not None]
            lacking = [arm for arm, p in given.items() if p is None]
            words = f"given in {', '.join(have)}" + (f" and not in {', '.join(lacking)}" if lacking else ", unequally")
            yield ("arms", have[0], "parameters", name), name, words


def asked(spec: Spec) -> Found:
    """Searched parameters of the task that change the problem itself (see `trainables.Task.FREE`)."""
    free = None if spec.task.is_program else trainables.lookup(spec.task.name).FREE
    if free is None or len(spec.arms) < 2:
        return
    for name, arm in spec.arms.items():
        for p in arm.parameters:
            section, key = section_of(p.name)
            if section == TASK and key not in free and p.kind != "constant" and len(p.values) != 1:
                yield (
                    ("arms", name, "parameters", p.name),
                    f"{p.name} decides the data or the meaning of the metric, so an arm that searches it chooses its "
                    "own problem; make each value a sweep of its own",
                )


def unequal_batches(spec: Spec) -> Found:
    """Batches of different sizes, where the budget does not count what is in them."""
    if spec.task.is_program:
        return
    each = (batches.span(spec.task.name, spec.task.parameters, arm.parameters) for arm in spec.arms.values())
    held = [size for found in each if found for size in found]
    if held:
        counted = trainables.lookup(spec.task.name).COUNTS
        yield (
            ("budget", "unit"),
            f"a batch holds {min(held):g} to {max(held):g} {counted}, depending on the configuration, so larger "
            f"ones get more compute; use unit: tokens, which counts {counted}",
        )


def left_over(spec: Spec, parity: float) -> Found:
    """Whole steps leave unequal remainders of the budget; for arms whose steps all cost the same."""
    given, steps = spec.budget.per_trial, dict[str, int]()
    for name, arm in spec.arms.items():
        configs = corners(arm.parameters, [p.name for p in arm.parameters])
        costs = {float(optim_core.cost_per_step(arm.optimizer, **split(config).optimizer)) for config in configs}
        starts = any(plan.start_of(arm, config) for config in configs)
        if len(costs) == 1 and not starts and (cost := costs.pop()).is_integer():
            steps[name] = int(cost)
    spent = {name: given - given % cost for name, cost in steps.items()}
    if spent and max(spent.values()) > parity * min(spent.values()):
        words = ", ".join(f"{name} {amount:g}" for name, amount in spent.items())
        whole = math.lcm(*steps.values())
        better = max(whole, round(given / whole) * whole)
        yield (
            ("budget", "per_trial"),
            f"only whole steps are taken, so of {given:g} gradient evaluations the arms spend {words}; write {better}",
        )
