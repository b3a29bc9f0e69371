"""Comparison of arms whose units are not paired: each arm has its own seeds or studies.

A has n values with variance s_A^2, B has m with s_B^2, and D is the difference of their means.

    se^2      = s_A^2 / n + s_B^2 / m
    interval  D -+ t_{1 - alpha / 2, f} se,   f by Welch (1947) and Satterthwaite (1946)
    p         permutation test of D / se over all ways of dealing the n + m values to the arms (exact up to EXACT_UP_TO
              of them, else drawn): exact when both arms have one distribution, and asymptotically valid when they
              have equal means and unequal variances (Janssen 1997)
    P(A > B)  share of the n m pairs, ties counted half; its interval is that of min(n, m) independent pairs

The smallest possible p is 2 / C(2n, n) for n = m, otherwise 1 / C(n + m, n): 4 and 4 units reach 0.029, 6 and 6 0.0022.
The noise that pairing would have removed remains, so the test is conservative where units were in fact paired. Verdicts
and Holm's correction are those of `comparison`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from orchestrator.definition.states import Goal
from orchestrator.statistics import power
from orchestrator.statistics.comparison import ALPHA, Terms, Units, check_baseline, chosen_pairs, verdict
from orchestrator.statistics.intervals import UNBOUNDED, Array, all_equal, share_interval, span_of
from orchestrator.statistics.pairing import IN_GRAD_EVALS, Parity, Refused, Search, Unit, unpaired
from orchestrator.statistics.significance import holm
from orchestrator.statistics.studies import Settling, study_means
from orchestrator.statistics.verdict import Pair, Verdict

EXACT_UP_TO, DRAWS, ROUNDING = 20_000, 99_999, 1e-9


def least_p(n: int, m: int) -> float:
    """The smallest p that the permutation test can reach with n and m units."""
    return (2.0 if n == m else 1.0) / math.comb(n + m, n)


@lru_cache(maxsize=8)
def _dealt(n: int, m: int) -> NDArray[np.bool_]:
    """Ways to assign n + m values to the arms, [ways, n + m], true for the first arm: all of them, or DRAWS at
    random.
    """
    if math.comb(n + m, n) > EXACT_UP_TO:
        return np.random.default_rng(0).permuted(np.tile(np.arange(n + m) < n, (DRAWS, 1)), axis=1)
    chosen = np.array(list(itertools.combinations(range(n + m), n)))
    found = np.zeros((len(chosen), n + m), dtype=np.bool_)
    np.put_along_axis(found, chosen, True, axis=1)
    return found


def studentized(values: Array, first: NDArray[np.bool_]) -> Array:
    """D / se for each assignment [ways, n + m] of the values; infinite where both arms have no spread."""
    parts = []
    for mask in (first, ~first):
        counts = mask.sum(axis=1)
        sums, squares = mask @ values, mask @ values**2
        means = sums / counts
        spread = np.maximum(0.0, squares - counts * means**2)
        spread[spread < 1e-14 * squares] = 0.0
        parts.append((means, spread / (counts - 1) / counts))
    (a, va), (b, vb) = parts
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num((a - b) / np.sqrt(va + vb), nan=0.0, posinf=np.inf, neginf=-np.inf))


def compare(
    trials: pd.DataFrame,
    *,
    metric: str,
    goal: Goal,
    baseline: str | None = None,
    margin: float = 0.0,
    alpha: float = ALPHA,
    parity: Parity = IN_GRAD_EVALS,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Verdict:
    """The comparison of a trials table whose units are not paired. Raises Refused. As `comparison.compare`."""
    found = unpaired(trials, metric, parity)
    check_baseline(baseline, sorted(found.values))
    pairs = compare_unpaired(
        found.values,
        goal=goal,
        unit=found.unit,
        baseline=baseline,
        margin=margin,
        alpha=alpha,
        searches=found.searches,
        span=span_of(bounds),
    )
    few = too_few(found.values, len(pairs), alpha)
    found = replace(found, notes=(*found.notes, *filter(None, [few])))
    question = {"metric": metric, "goal": goal, "baseline": baseline, "margin": margin, "alpha": alpha}
    return replace(verdict(trials, found, pairs, question), paired=False)


def compare_unpaired(
    values: Mapping[str, Units],
    *,
    goal: Goal,
    unit: Unit,
    baseline: str | None = None,
    margin: float = 0.0,
    alpha: float = 0.05,
    searches: Mapping[str, Search] | None = None,
    span: tuple[float, float] = UNBOUNDED,
) -> list[Pair]:
    """All pairs of arms, or every arm against the baseline. Raises Refused for an arm of fewer than two units.

    `margin` as in `comparison.compare`; `span`: the range of differences, to which intervals are clipped.
    """
    means = {arm: study_means([np.atleast_1d(u) for u in units]) for arm, units in values.items()}
    for arm, found in means.items():
        if len(found) < 2:
            raise Refused(f"arm {arm} has {len(found)} unpaired {unit}, which shows no spread; at least two are needed")
    chosen = chosen_pairs(list(means), baseline)
    tests = [_Test(means[a], means[b], margin, 1 - alpha, span) for a, b in chosen]
    adjusted = holm([one.p for one in tests])
    equals = holm([one.equivalent for one in tests]) if margin > 0 else [None] * len(tests)
    rule = _Rule(goal=goal, unit=unit, margin=margin, alpha=alpha, comparisons=len(chosen), searches=searches or {})
    return [
        rule.pair(a, b, test, p_holm, equal)
        for (a, b), test, p_holm, equal in zip(chosen, tests, adjusted, equals, strict=True)
    ]


class _Test:
    """Two samples and their tests."""

    def __init__(self, a: Array, b: Array, margin: float, confidence: float, span: tuple[float, float]) -> None:
        self.a, self.b, self.margin = a, b, margin
        self.difference = float(a.mean() - b.mean())
        self.constant = all_equal(a) and all_equal(b)
        self.se = 0.0 if self.constant else math.sqrt(float(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)))
        self.freedom = self._freedom()
        half = 0.0 if self.constant else float(stdtrit(self.freedom, (1 + confidence) / 2)) * self.se
        self.interval = max(span[0], self.difference - half), min(span[1], self.difference + half)
        self.p, self.equivalent = self._p(), self._equivalence()

    def _freedom(self) -> float:
        if self.constant:
            return math.inf
        parts = [float(x.var(ddof=1)) / len(x) for x in (self.a, self.b)]
        return sum(parts) ** 2 / sum(v**2 / (len(x) - 1) for v, x in zip(parts, (self.a, self.b), strict=True))

    def _p(self) -> float:
        """For the null that the means differ by no more than the margin."""
        if abs(self.difference) <= self.margin:
            return 1.0
        a, n, m = self.a - math.copysign(self.margin, self.difference), len(self.a), len(self.b)
        if self.constant:
            return least_p(n, m) if float(a.mean()) != float(self.b.mean()) else 1.0
        both = np.concatenate([a, self.b])
        both = both - both.mean()  # avoids cancellation in squares
        seen, dealt = studentized(both, np.arange(n + m)[None] < n), studentized(both, _dealt(n, m))
        reached = int((np.abs(dealt) >= np.abs(seen) * (1 - ROUNDING)).sum())
        exact = math.comb(n + m, n) <= EXACT_UP_TO
        return reached / len(dealt) if exact else (reached + 1) / (len(dealt) + 1)

    def _equivalence(self) -> float:
        """Twice the larger p of Welch's two one-sided tests."""
        if self.constant:
            return 0.0 if abs(self.difference) <= self.margin else 1.0
        return min(1.0, 2 * float(stdtr(self.freedom, (abs(self.difference) - self.margin) / self.se)))

    def ahead(self, goal: Goal) -> tuple[float, tuple[float, float]]:
        """P(A is better than B) and its interval."""
        gaps = goal.sign * np.subtract.outer(self.a, self.b)
        share = float((gaps > 0).mean() + 0.5 * (gaps == 0).mean())
        least = min(len(self.a), len(self.b))
        return share, share_interval(share * least, least)


class _Rule(Terms):
    """Decides the verdict on a pair of units that are not paired."""

    def verdict(self, test: _Test, p_holm: float, equal: float | None) -> str:
        """Same rule as in `comparison`."""
        low, high = test.interval
        if equal is not None and equal < self.alpha:
            return "equivalent"
        if p_holm < self.alpha and (low > self.margin or high < -self.margin):
            return "better" if (test.difference > 0) == (self.goal == Goal.MAXIMIZE) else "worse"
        return "inconclusive"

    def alone(self, test: _Test, p_holm: float) -> Any:
        """Which of two conditions of a verdict holds when the other does not."""
        low, high = test.interval
        beyond = low > self.margin or high < -self.margin
        return None if beyond == (p_holm < self.alpha) else "interval" if beyond else "p"

    def pair(self, a: str, b: str, test: _Test, p_holm: float, equal: float | None) -> Pair:
        """One comparison with all its statistics."""
        from scipy import stats

        verdict, n, m = self.verdict(test, p_holm, equal), len(test.a), len(test.b)
        wins, wins_interval = test.ahead(self.goal)
        needed = self._needed(test) if verdict == "inconclusive" else None
        more = None if needed is None else needed - max(n, m)
        study = self.unit == "study"
        settles = Settling(studies=more, confirm=None, trials=None, cheapest="studies" if more else None)
        searches = [self.searches[arm] for arm in (a, b) if arm in self.searches]
        return Pair(
            a=a,
            b=b,
            unit=self.unit,
            n=min(n, m),
            counts=(n, m),
            difference=test.difference,
            interval=test.interval,
            confidence=1 - self.alpha,
            p=test.p,
            p_holm=p_holm,
            p_equivalent=equal,
            wilcoxon_p=float(stats.mannwhitneyu(test.a, test.b).pvalue),
            outperforms=wins,
            outperforms_interval=wins_interval,
            verdict=verdict,
            alone=self.alone(test, p_holm) if verdict == "inconclusive" else None,
            detectable=self._detectable(test),
            components=None,
            settles=settles if study and verdict == "inconclusive" else None,
            seeds_needed=None if study else needed,
            more_seeds=None if study else more,
            searched={arm: self.searches[arm].configurations for arm in (a, b)} if len(searches) == 2 else None,
            study_trials=None,
        )

    def _needed(self, test: _Test) -> int | None:
        """Units in each arm after which the difference seen so far would give a verdict."""
        spread = math.sqrt(float(test.a.var(ddof=1) + test.b.var(ddof=1)))
        if not spread:
            return None

        def holds(units: int) -> bool:
            return power.settles(
                test.difference, spread, units, comparisons=self.comparisons, alpha=self.alpha, margin=self.margin
            )

        return power.first(max(len(test.a), len(test.b)) + 1, power.MOST, holds)

    def _detectable(self, test: _Test) -> float | None:
        """The difference that this many units detect with 80% power, in the first step of Holm."""
        if self.comparisons * least_p(len(test.a), len(test.b)) >= self.alpha:
            return None
        level, target = self.alpha / self.comparisons, power.TARGET
        return float((stdtrit(test.freedom, 1 - level / 2) + stdtrit(test.freedom, target)) * test.se)


def too_few(values: Mapping[str, Sequence[Any]], comparisons: int, alpha: float) -> str:
    """States that no result could have been significant, if so; otherwise empty."""
    counts = sorted(len(units) for units in values.values())[:2]
    least = comparisons * least_p(*counts) if len(counts) == 2 and comparisons else 0.0
    if least < alpha:
        return ""
    units = " and ".join(map(str, counts))
    several = f"{comparisons} comparisons" if comparisons > 1 else "a comparison"
    floor = f"corrected by Holm, p is at least {min(1.0, least):.2g}"
    return f"{units} unpaired units cannot settle {several}: {floor}."
