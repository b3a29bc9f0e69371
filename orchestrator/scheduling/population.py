"""Population based training within one arm (Jaderberg et al. 2017): members exploit one another during training.

All members train to the same rung and pause there. Then the worst 1/`eta` are replaced by children of the best: a child
continues from its parent's checkpoint with slightly changed hyperparameters, and spends the rest of the budget. So each
slot costs one budget, whoever holds it, and decisions depend only on values, not on speed.

A child is a separate configuration and, like any other, a function of its seed:  hyperparameters that change at known
evaluations (`Job.lineage`). The inherited checkpoint only avoids repeating earlier training. The confirm stage trains a
whole lineage on fresh seeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.definition.space import Parameter, is_active, is_number, ladder, movable, satisfied, value_at
from orchestrator.definition.states import Goal
from orchestrator.definition.stopping_rule import Rule
from orchestrator.scheduling.stopping import Stop

FACTORS = (0.8, 1.2)
"""A child multiplies its parent's value by one of these (Jaderberg et al. 2017, section 4.1)."""
RESAMPLE = 0.25
"""Probability that it is instead resampled from its whole range."""
ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class Space:
    """What children may change, and the constraints on it."""

    parameters: Sequence[Parameter]
    changeable: frozenset[str]
    """Hyperparameters that the optimizer can change during training."""
    constraints: Sequence[str]
    facts: Callable[[Mapping[str, Any]], Mapping[str, Any]]

    def explore(self, parent: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
        """A parent's configuration with its changeable hyperparameters perturbed; unchanged if no perturbation is
        valid.

        A change under which a condition would remove one of the parent's hyperparameters is not valid.
        """
        for _ in range(ATTEMPTS):
            found = dict(parent)
            for p in movable(self.parameters, self.changeable):
                if is_active(p, found) and is_number(found.get(p.name)):
                    found[p.name] = _moved(p, found[p.name], draw)
            whole = all(p.name in found for p in self.parameters if is_active(p, found))
            if whole and satisfied(self.constraints, found, **self.facts(found)):
                return found
        return dict(parent)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A member is replaced by a child of another one. `stop` is None for a member that had already diverged."""

    loser: int
    parent: int
    stop: Stop | None


class Population:
    """The members of an arm between two decisions, `decided` of which were carried out before."""

    def __init__(self, rule: Rule, space: Space, *, seed: str, goal: Goal, decided: int) -> None:
        self._rule, self._space, self._seed, self._goal = rule, space, seed, goal
        self.decided = decided
        self.paused: dict[int, float] = {}
        """Members that wait at the next rung, with the tuned metric there."""

    @property
    def until(self) -> int:
        """The evaluation at which members pause next; 0: they train to the end."""
        return self._rule.rungs[self.decided] if self.decided < len(self._rule.rungs) else 0

    def exchanges(self, diverged: Sequence[int]) -> list[Exchange]:
        """Who is replaced by whose child now; those that have `diverged` come last."""
        loss = {n: math.inf if math.isnan(v) else self._goal.loss(v) for n, v in self.paused.items()}
        ranked = sorted(loss, key=lambda n: (loss[n], n))
        count = len(ranked) + len(diverged)
        share = count // self._rule.eta
        best = ranked[: max(1, share)]
        worst = ranked[max(len(best), len(ranked) - max(0, share - len(diverged))) :]
        found = [Exchange(loser=n, parent=self._pick(n, best), stop=None) for n in sorted(diverged)]
        for loser in worst:
            parent = self._pick(loser, best)
            if loss[parent] < loss[loser]:
                place = f"{self.paused[loser]:.6g} is number {ranked.index(loser) + 1} of {count} at evaluation"
                reason = f"{place} {self.until}; replaced by a child of configuration {parent}"
                stop = Stop(number=loser, rung=self.until, value=self.paused[loser], reason=reason)
                found.append(Exchange(loser=loser, parent=parent, stop=stop))
        return found

    def child(self, exchange: Exchange, parent: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters of the child, from its parent's."""
        return self._space.explore(parent, self._draw("explore", exchange.loser))

    def carried_out(self) -> list[int]:
        """The decision is final; returns the members that waited for it."""
        waited, self.paused = sorted(self.paused), {}
        self.decided += 1
        return waited

    def _pick(self, loser: int, best: Sequence[int]) -> int:
        return self._draw("donor", loser).choice(best)

    def _draw(self, what: str, member: int) -> random.Random:
        return random.Random(f"{self._seed}/{what}/{self.until}/{member}")


def _moved(p: Parameter, value: Any, draw: random.Random) -> Any:
    """A neighbor of the value in the parameter's range, or occasionally any value of it."""
    again, share, up = draw.random() < RESAMPLE, draw.random(), draw.random() < 0.5
    steps = ladder(p)
    if steps is not None:
        at = steps.index(value) + (1 if up else -1)
        return steps[int(share * len(steps))] if again else steps[min(max(at, 0), len(steps) - 1)]
    if again:
        return value_at(p, share)
    factor = FACTORS[up]
    moved = 1 - factor * (1 - value) if p.one_minus else factor * value
    if p.kind == "int":
        step = int(p.step or 1)
        whole = int(value) + step * max(1, round(abs(moved - value) / step)) * (1 if moved > value else -1)
        return int(min(max(whole, p.low), p.low + step * ((p.high - p.low) // step)))
    if p.step:
        base = 0.0 if p.log else p.low
        moved = base + p.step * round((moved - base) / p.step)
    return min(p.high, max(p.low, moved))
