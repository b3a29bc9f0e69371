"""Paired comparison of arms: is A better than B, at equal compute, and how sure is that?

The units are studies, and the verdict is about methods. With one study per arm the units are confirm seeds, and the
verdict is only about the two configurations found, however many seeds there are. With d_i = A_i - B_i on unit i (the
mean over a study's confirm seeds), a comparison reports the mean difference and its 1 - alpha t interval, the exact p
with Holm's correction over all comparisons, Wilcoxon p, probability of outperforming, where the noise comes from, and a
verdict:

    better/worse  Holm-adjusted p < alpha, where p is the sign-flip p of the null |E d| <= margin, and the interval
                  leaves the margin (or zero) out
    equivalent    Holm-adjusted p of equivalence < alpha: the interval lies inside the margin inconclusive  anything
    else, with what might settle it and the difference that this design could have detected; always
                  so below 1 + log2(k / alpha) units, where no exact test can reach the level

A twin, an identical copy of the baseline, is not one of the k comparisons and is reported separately, to show what no
difference looks like.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.definition.racing import Raced
from orchestrator.definition.states import Goal, Stage
from orchestrator.statistics import power, studies
from orchestrator.statistics.intervals import UNBOUNDED, Array, mean_interval, span_of
from orchestrator.statistics.pairing import IN_GRAD_EVALS, Paired, Parity, Refused, Search, Unit, paired
from orchestrator.statistics.same_task import NOTHING, Choice
from orchestrator.statistics.sentences import too_few
from orchestrator.statistics.significance import (
    beyond,
    equivalence,
    floor_of_seeds,
    holm,
    outperforming,
    sign_flip,
    standard_deviation,
    wilcoxon,
)
from orchestrator.statistics.verdict import Noise, Pair, Verdict

ALPHA = 0.05
Units = NDArray[np.float64] | Sequence[Array]
"""One value for each unit, or [studies][confirm seeds]."""


def compare(
    trials: pd.DataFrame,
    *,
    metric: str,
    goal: Goal,
    baseline: str | None = None,
    margin: float = 0.0,
    alpha: float = ALPHA,
    level: float | None = None,
    race: Raced | None = None,
    twin: tuple[str, str] | None = None,
    parity: Parity = IN_GRAD_EVALS,
    choice: Choice = NOTHING,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Verdict:
    """The comparison of a trials table (arm, study, stage, seed, state, ...). Raises Refused.

    In a raced confirm stage (`race` as in race.json; an arm was stopped after so many `seeds` or `studies`) each pair
    is compared on the units that both have, and p is corrected for the looks, including the final one, before Holm's
    correction over the pairs.

    `margin` >= 0, in the metric's units: a smaller difference counts as none. `alpha` in (0, 1). `level`, of the tests,
    in [0, alpha]: what is left for this look at the results; default: all. `twin`: an identical copy of an arm, and
    that arm; their difference is reported next to the comparisons but is not one of them. `parity` and `choice` as in
    `pairing.paired`. `bounds`: the range of the metric, to which intervals of differences are clipped.
    """
    confirm = trials[trials["stage"] == Stage.CONFIRM]
    arms = sorted(set(confirm["arm"]) - set(twin[:1] if twin else ()))
    check_baseline(baseline, arms)
    stopped = {arm: one.units for arm, one in race.stopped.items()} if race else {}
    found = paired(trials, metric, stopped, parity, choice)
    question: dict[str, Any] = {"goal": goal, "unit": found.unit, "margin": margin, "alpha": alpha, "level": level}
    question |= {"span": span_of(bounds), "looks": race.tests if race else 1, "searches": found.searches}
    chosen = [pair for pair in chosen_pairs(arms, baseline) if _same_task(found, *pair)]
    if not chosen and len(arms) > 1:
        raise Refused(f"no arm has the task of {baseline}, the baseline: {found.notes[0]}")
    raw = {(a, b): differences(found.values[a], found.values[b]) for a, b in chosen}
    pairs = compare_differences(raw, **question)
    copies = {arm: found.values[arm] for arm in twin or () if arm in found.values}
    asked = {"metric": metric, "goal": goal, "baseline": baseline, "margin": margin, "alpha": alpha, "level": level}
    made = replace(
        verdict(trials, found, pairs, asked),
        race=race,
        twin=compare_values(copies, **question)[0] if len(copies) == 2 else None,
    )
    few = too_few(made) if found.unit == "study" else ""
    return replace(made, notes=[*found.notes, few]) if few else made


def _same_task(found: Paired, a: str, b: str) -> bool:
    return not found.tasks or any(a in arms and b in arms for arms in found.tasks)


def check_baseline(baseline: str | None, arms: Sequence[str]) -> None:
    """Raises Refused for a baseline without confirm trials."""
    if baseline is not None and baseline not in arms:
        raise Refused(f"baseline {baseline!r} has no confirm trials; available: {', '.join(arms) or 'no arm'}")


def verdict(trials: pd.DataFrame, found: Paired, pairs: Sequence[Pair], asked: Mapping[str, Any]) -> Verdict:
    """The whole comparison. `asked`: metric, goal, baseline, margin and alpha; `level` if it is not alpha."""
    question = dict(asked)
    confirm = trials[trials["stage"] == Stage.CONFIRM]
    most = max(len(units) for units in found.values.values())
    level = question.pop("level", None)
    left = None if level == question["alpha"] else level
    return Verdict(
        sweep_id=str(confirm["sweep_id"].iloc[0]),
        **question,
        unit=found.unit,
        units=most,
        studies=most if found.unit == "study" else 1,
        seeds=sorted(int(s) for s in set(confirm["seed"])),
        seeds_of={arm: sum(map(len, units)) for arm, units in found.values.items()},
        diverged=found.diverged,
        notes=list(found.notes),
        race=None,
        pairs=[replace(p, own_task=list(found.own_task), level=left) for p in pairs],
        twin=None,
    )


def compare_values(
    values: Mapping[str, Units],
    *,
    goal: Goal,
    unit: Unit = "seed",
    baseline: str | None = None,
    margin: float = 0.0,
    alpha: float = ALPHA,
    level: float | None = None,
    looks: int = 1,
    searches: Mapping[str, Search] | None = None,
    span: tuple[float, float] = UNBOUNDED,
) -> list[Pair]:
    """All pairs of arms, or every arm against the baseline; `values` hold the units in the same order.

    If an arm has fewer units than another, they are the first ones of the other. `looks`: the number of interim looks
    at which a decision could have been made. `level` of the tests as in `compare`.
    """
    chosen = chosen_pairs(list(values), baseline)
    raw = {(a, b): differences(values[a], values[b]) for a, b in chosen}
    question: dict[str, Any] = {"goal": goal, "unit": unit, "margin": margin, "alpha": alpha, "level": level}
    return compare_differences(raw, **question, looks=looks, searches=searches, span=span)


def differences(a: Units, b: Units) -> list[Array]:
    """A - B on each shared unit."""
    return [np.atleast_1d(x) - np.atleast_1d(y) for x, y in zip(a, b, strict=False)]


def compare_differences(
    found: Mapping[tuple[str, str], Sequence[Array]],
    *,
    goal: Goal,
    unit: Unit,
    margin: float = 0.0,
    alpha: float = ALPHA,
    level: float | None = None,
    looks: int = 1,
    searches: Mapping[str, Search] | None = None,
    span: tuple[float, float] = UNBOUNDED,
) -> list[Pair]:
    """The same from (A, B) -> differences on each unit, with Holm's correction over all of them."""
    if not found:
        return []
    chosen, raw = list(found), list(found.values())
    means = [studies.study_means(d) for d in raw]
    seen = [beyond(d, margin) for d in means]
    ps = [1.0 if d is None else sign_flip(d) for d in seen]
    equals = holm([equivalence(d, margin) for d in means]) if margin > 0 else [None] * len(chosen)
    adjusted = holm([min(1.0, looks * p) for p in ps])
    terms: dict[str, Any] = {"comparisons": len(chosen), "searches": searches or {}, "span": span}
    terms["level"] = alpha if level is None else level
    one = _Rule(goal=goal, unit=unit, margin=margin, alpha=alpha, **terms)
    return [
        one.pair(a, b, d, p, p_holm, equal)
        for (a, b), d, p, p_holm, equal in zip(chosen, raw, ps, adjusted, equals, strict=True)
    ]


def chosen_pairs(arms: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    """The comparisons to make: all pairs, or each arm with the baseline."""
    if baseline is None:
        return list(itertools.combinations(arms, 2))
    return [(arm, baseline) for arm in arms if arm != baseline]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all pairs of a document have in common."""

    goal: Goal
    unit: Unit
    margin: float
    alpha: float
    comparisons: int
    searches: Mapping[str, Search]
    span: tuple[float, float] = UNBOUNDED
    """The range of differences, to which intervals are clipped."""
    level: float = ALPHA
    """Of the tests, in [0, alpha]: what is left for this look at the results."""


class _Rule(Terms):
    """Decides the verdict on a pair of paired units."""

    def verdict(self, d: Array, interval: tuple[float, float], p_holm: float, equal: float | None) -> str:
        low, high = interval
        if self.level == 0 or len(d) < floor_of_seeds(self.comparisons, self.level):
            return "inconclusive"
        if equal is not None and equal < self.level:
            return "equivalent"
        if p_holm < self.level and (low > self.margin or high < -self.margin):
            return "better" if (d.mean() > 0) == (self.goal == Goal.MAXIMIZE) else "worse"
        return "inconclusive"

    def alone(self, interval: tuple[float, float], p_holm: float, equal: float | None) -> Any:
        """Which condition of a verdict holds when the others do not."""
        low, high = interval
        if equal is not None and -self.margin < low and high < self.margin:
            return "equivalence"
        beyond_margin = low > self.margin or high < -self.margin
        if beyond_margin == (p_holm < self.level):
            return None
        return "interval" if beyond_margin else "p"

    def pair(self, a: str, b: str, raw: Sequence[Array], p: float, p_holm: float, equal: float | None) -> Pair:
        d = studies.study_means(raw)
        interval = mean_interval(d, 1 - self.alpha, self.span)
        verdict = self.verdict(d, interval, p_holm, equal)
        seen = beyond(d, self.margin)
        searches = [self.searches[arm] for arm in (a, b) if arm in self.searches]
        search = max((one.trials for one in searches), default=None)
        needed, settles, k, level = None, None, self.comparisons, self.level
        if verdict == "inconclusive" and self.unit == "seed":
            needed = power.seeds_to_settle(d, comparisons=k, alpha=level, margin=self.margin) if level else None
        elif verdict == "inconclusive" and level:
            settles = studies.cheapest(raw, search, comparisons=k, alpha=level, margin=self.margin)
        reach = power.detectable(len(d), k, level) if level else None
        wins, wins_interval = outperforming(d if self.goal == Goal.MAXIMIZE else -d, 1 - self.alpha)
        confirm = len(d) if self.unit == "seed" else math.ceil(studies.harmonic_confirm(raw))
        return Pair(
            a=a,
            b=b,
            unit=self.unit,
            n=len(d),
            difference=float(d.mean()),
            interval=interval,
            confidence=1 - self.alpha,
            p=p,
            p_holm=p_holm,
            p_equivalent=equal,
            wilcoxon_p=1.0 if seen is None else wilcoxon(seen),
            outperforms=wins,
            outperforms_interval=wins_interval,
            verdict=verdict,
            alone=self.alone(interval, p_holm, equal) if verdict == "inconclusive" else None,
            detectable=None if reach is None else reach * standard_deviation(d),
            components=_components(raw) if self.unit == "study" else None,
            settles=settles,
            seeds_needed=needed,
            more_seeds=None if needed is None else needed - len(d),
            searched={arm: self.searches[arm].configurations for arm in (a, b)} if len(searches) == 2 else None,
            study_trials=None if search is None else search + confirm,
        )


def _components(raw: Sequence[Array]) -> Noise | None:
    found, confirm = studies.components(raw), studies.harmonic_confirm(raw)
    if found is None:
        return None
    return Noise(**asdict(found), confirm=confirm, share_of_search=found.share_of_search(confirm))
