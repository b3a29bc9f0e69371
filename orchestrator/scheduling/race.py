"""The race of the confirm stage: fresh seeds, or further studies, are spent only on arms that may still be the best.

All arms run their units (studies if there are several, otherwise confirm seeds) in ascending order up to a look. There
each arm is compared with the one that has the best mean by the two-sided signed-rank test on paired differences
(Wilcoxon 1945), and an arm with p below

    level / (pairs x looks),     pairs = k (k - 1) / 2 of the k arms

runs no more units. By Bonferroni's inequality over all pairs and looks, the probability that any of k equal arms is
ever stopped is at most `level` (racing: Maron & Moore 1997; F-Race: Birattari et al. 2002). A declared baseline is
never stopped, since everything is compared with it. The first look is as early as the test can reach a decision, 2^(1 -
n) <= its level; the others are evenly spaced. Decisions depend only on the values, not on speed or order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.definition.racing import Lost, Raced, Racing, look_at
from orchestrator.definition.states import Goal


class Race:
    """One race: receives arms and values, and returns the units that each arm may run."""

    def __init__(
        self,
        racing: Racing,
        *,
        arms: Sequence[str],
        units: Sequence[int],
        words: str,
        goal: Goal,
        baseline: str | None,
    ) -> None:
        """`units` are seeds or numbers of studies; `words` says which."""
        self._seeds, self._words, self._goal, self._baseline = sorted(units), words, goal, baseline
        self.looks = look_at(len(units), len(arms), racing)
        self._below = racing.level / (math.comb(len(arms), 2) * racing.looks)
        self._values: dict[str, dict[int, float | None]] = {arm: {} for arm in arms}
        self._waited_for, self._entered = set(arms), list[str]()
        self._done = 0
        self.lost: dict[str, Lost] = {}

    def enter(self, arm: str) -> list[int]:
        """The arm's search is over; returns the seeds that it may run."""
        self._waited_for.discard(arm)
        self._entered.append(arm)
        return self._seeds[: self._until()]

    def leave(self, arm: str) -> None:
        """The arm has nothing to confirm."""
        self._waited_for.discard(arm)

    def record(self, arm: str, seed: int, value: float | None) -> None:
        """Record the tuned metric of a confirm trial; None if it failed."""
        self._values[arm][seed] = value

    def held(self, arm: str) -> int:
        """Number of seeds that the arm may still get, beyond those that it may run now."""
        return 0 if arm in self.lost else len(self._seeds) - self._until()

    def advance(self) -> tuple[list[Lost], dict[str, list[int]]]:
        """Take a look if all its values are available: returns the losers, and the additional seeds of the others."""
        if self._waited_for or self._done == len(self.looks):
            return [], {}
        seen, racing = self._seeds[: self.looks[self._done]], [a for a in self._entered if a not in self.lost]
        if any(seed not in self._values[arm] for arm in racing for seed in seen):
            return [], {}
        self._done += 1
        lost = self._compare(racing, seen)
        self.lost |= {one.arm: one for one in lost}
        more = self._seeds[len(seen) : self._until()]
        return lost, {arm: more for arm in racing if arm not in self.lost}

    def decided(self) -> Raced:
        """What it has decided so far."""
        return Raced(looks=self.looks, taken=self._done, stopped=dict(self.lost))

    def _until(self) -> int:
        return self.looks[self._done] if self._done < len(self.looks) else len(self._seeds)

    def _compare(self, racing: Sequence[str], seen: Sequence[int]) -> list[Lost]:
        whole = {arm: v for arm in racing if (v := self._whole(arm, seen)) is not None}
        if len(whole) < 2:
            return []
        means = {arm: self._goal.loss(sum(v)) / len(v) for arm, v in whole.items()}
        best = min(means, key=lambda arm: (means[arm], arm))
        found = []
        for arm in whole:
            if arm in (best, self._baseline):
                continue
            p = signed_rank([a - b for a, b in zip(whole[arm], whole[best], strict=True)])
            if p <= self._below:
                level = f"signed-rank p {p:.2g}, stopped at {self._below:.2g} or below"
                reason = f"behind {best} after {len(seen)} {self._words}: {level}"
                one = Lost(arm=arm, seeds=len(seen), against=best, p=p, below=self._below, reason=reason)
                found.append(one)
        return found

    def _whole(self, arm: str, seen: Sequence[int]) -> list[float] | None:
        """The arm's values on these seeds; None if a trial failed: then nothing is decided about the arm."""
        values = [self._values[arm][seed] for seed in seen]
        return None if any(v is None for v in values) else [float(v) for v in values if v is not None]


def signed_rank(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 if all differences are zero."""
    import numpy as np

    from orchestrator.statistics.significance import wilcoxon

    return wilcoxon(np.array(differences, dtype=float))
