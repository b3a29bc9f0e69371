"""Which trials of an arm are stopped early, judged at rungs: evaluations that all its trials pass.

Budgets are gradient evaluations, so a rung costs the same for every optimizer. A trial is compared only with trials of
its own arm, because the rankings of different optimizers cross while the learning rate decays (arXiv 2509.02046).

    asha        at each rung the best 1/eta of those seen so far continue(Li et al. 2020, Alg. 2)
    hyperband   the same in brackets that start at later and later rungs             (Li et al. 2018, section 3)
    median      stop below the median of the others' running means                   (Golovin et al. 2017, section 3.2)
    pbt         the worst 1/eta are replaced by children of the best, see `population`  (Jaderberg et al. 2017)
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.definition.states import Goal
from orchestrator.definition.stopping_rule import Rule

TOO_FEW = 3
"""The median rule judges no trial before this many others have passed the rung."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A decision to stop a configuration."""

    number: int
    rung: int
    value: float
    reason: str


class Stopper:
    """Receives values at rungs and decides. `strict`: in the order of configuration numbers, independent of arrival
    order.

    Then a configuration is compared only with those of lower number, and is judged once each of these has passed the
    rung or ended before it, so decisions do not depend on speed.
    """

    def __init__(self, rule: Rule, *, goal: Goal, strict: bool) -> None:
        self._rule, self._goal, self._strict = rule, goal, strict
        self._values: dict[int, dict[int, float]] = {}
        self._over: set[int] = set()
        self._stopped: set[int] = set()
        self._judged: set[tuple[int, int]] = set()
        self._begun: list[int] = []
        self._open: set[int] = set()  # have values that may not have been judged yet
        self._sorted: dict[tuple[int, int], list[float]] = defaultdict(list)  # (bracket, rung) -> values, best first

    def begin(self, number: int) -> None:
        """A configuration was asked."""
        self._begun.append(number)
        self._values[number] = {}

    def record(self, number: int, rung: int, value: float) -> None:
        """Record the metric's value at evaluation `rung`, unless the configuration was stopped before it: an audited
        trial, or one that went on until it heard, counts no further.
        """
        if self._stopped_before(number, rung):
            return
        passed, bracket = self._values[number], number % self._rule.brackets()
        if rung in passed:
            ranked = self._sorted[bracket, rung]
            del ranked[bisect.bisect_left(ranked, self._loss(passed[rung]))]
        passed[rung] = value
        bisect.insort(self._sorted[bracket, rung], self._loss(value))
        self._open.add(number)

    def _loss(self, value: float) -> float:
        return math.inf if math.isnan(value) else self._goal.loss(value)

    def end(self, number: int) -> None:
        """The configuration reports no more: it ended, by itself or by a decision."""
        self._over.add(number)

    def settled(self, number: int, stopped_at: int | None) -> None:
        """An earlier driver settled the configuration: stopped at a rung, or not."""
        self._over.add(number)
        self._judged |= {(number, r) for r in self._rule.rungs_of(number) if stopped_at is None or r <= stopped_at}
        if stopped_at is not None:
            self._stopped.add(number)

    def undecided(self, number: int) -> bool:
        """Whether a rung that the configuration passed is still to be judged."""
        return number not in self._stopped and any(
            (number, rung) not in self._judged and rung in self._values[number] for rung in self._rule.rungs_of(number)
        )

    def decisions(self) -> Iterator[Stop]:
        """Judge what can be judged now; yields each new stop once."""
        open_ones = sorted(n for n in self._open if self.undecided(n))
        self._open = set(open_ones)
        for number in open_ones:
            for rung in self._rule.rungs_of(number):
                if (number, rung) in self._judged or rung not in self._values[number]:
                    continue
                if self._strict and not all(self._passed(n, rung) for n in self._others(number)):
                    break
                self._judged.add((number, rung))
                reason = self._judge(number, rung)
                if reason:
                    self._stopped.add(number)
                    yield Stop(number=number, rung=rung, value=self._values[number][rung], reason=reason)
                    break

    def _others(self, number: int) -> list[int]:
        brackets = self._rule.brackets()
        same = [n for n in self._begun if n % brackets == number % brackets and n != number]
        return [n for n in same if n < number] if self._strict else same

    def _passed(self, number: int, rung: int) -> bool:
        """Whether the value of `number` at `rung` is known, or it is known that there will be none."""
        if any((number, r) not in self._judged and r in self._values[number] for r in self._earlier(number, rung)):
            return False
        return number in self._stopped or number in self._over or rung in self._values[number]

    def _earlier(self, number: int, rung: int) -> list[int]:
        return [r for r in self._rule.rungs_of(number) if r < rung]

    def _at(self, rung: int, number: int) -> dict[int, float]:
        """Values of the other configurations that reached the rung and were not stopped before it."""
        found = {}
        for n in self._others(number):
            if rung in self._values[n] and not (self._strict and self._stopped_before(n, rung)):
                found[n] = self._values[n][rung]
        return found

    def _stopped_before(self, number: int, rung: int) -> bool:
        return number in self._stopped and any(
            (number, r) in self._judged and (number, rung) not in self._judged for r in self._earlier(number, rung)
        )

    def _judge(self, number: int, rung: int) -> str:
        """Why to stop; empty if not."""
        own = self._values[number][rung]
        if self._rule.type == "median":
            return self._below_median(number, rung, own, self._at(rung, number))
        if self._strict:
            others = self._at(rung, number)
            count = len(others) + 1
            place = 1 + sum(self._goal.better(v, own) for v in others.values())
        else:
            ranked = self._sorted[number % self._rule.brackets(), rung]
            count, place = len(ranked), 1 + bisect.bisect_left(ranked, self._loss(own))
        stay = max(1, count // self._rule.eta)
        if count < self._rule.eta or place <= stay:
            return ""
        return f"{own:.6g} ranks {place} of {count} at evaluation {rung}; the best {stay} continue"

    def _below_median(self, number: int, rung: int, own: float, others: dict[int, float]) -> str:
        if len(others) < TOO_FEW:
            return ""
        means = [statistics.fmean(v for r, v in self._values[n].items() if r <= rung) for n in others]
        median = statistics.median(means)
        best = self._goal.best(v for r, v in self._values[number].items() if r <= rung)
        if self._goal.loss(best) <= self._goal.loss(median):
            return ""
        return f"best so far {best:.6g} vs. a median of {median:.6g} at evaluation {rung}"
