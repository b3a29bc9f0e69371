"""Successive halving against a count of all values, in any order of arrival."""

from __future__ import annotations

import random

import pytest

from orchestrator.definition.states import Goal
from orchestrator.definition.stopping_rule import Rule
from orchestrator.scheduling.stopping import Stopper


@pytest.mark.parametrize("kind, goal", [("asha", Goal.MINIMIZE), ("asha", Goal.MAXIMIZE), ("hyperband", Goal.MINIMIZE)])
def test_decisions_equal_a_count_over_all_values(kind: str, goal: Goal) -> None:
    rng = random.Random(1)
    rule = Rule(type=kind, eta=3, rungs=(1, 3, 9))
    stopper = Stopper(rule, goal=goal, strict=False)
    seen: dict[int, dict[int, float]] = {}
    waiting = [(n, list(rule.rungs_of(n))) for n in range(120)]
    stops = 0
    while waiting:
        number, rungs = waiting[rng.randrange(min(8, len(waiting)))]
        if number not in seen:
            seen[number] = {}
            stopper.begin(number)
        rung = rungs.pop(0)
        value = seen[number][rung] = rng.choice([rng.random(), 0.5])  # with ties
        stopper.record(number, rung, value)
        others = [v[rung] for n, v in seen.items() if rung in v and (n - number) % rule.brackets() == 0]
        place = 1 + sum((v > value) if goal is Goal.MAXIMIZE else (v < value) for v in others)
        expected = len(others) >= 3 and place > max(1, len(others) // 3)
        found = list(stopper.decisions())
        assert [(s.number, s.rung) for s in found] == ([(number, rung)] if expected else [])
        stops += expected
        if expected or not rungs:
            stopper.end(number)
            waiting.remove((number, rungs))
    assert stops > 40
