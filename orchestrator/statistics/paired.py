"""Paired comparison of arms on their confirm seeds: is A better than B here, at equal compute, and how sure is that?

With d_i = A_i - B_i on seed i: mean difference and its 95 % interval, exact sign-flip p with Holm over all comparisons,
Wilcoxon p, probability of outperforming, and a verdict:

    equivalent    the interval lies inside the margin
    better/worse  Holm-adjusted p < alpha, and the interval leaves the margin (or zero) out
    inconclusive  anything else, with the seeds that might settle it and the difference that this design could have
    found
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.definition.states import Goal, Stage
from orchestrator.statistics import power
from orchestrator.statistics.pairing import FLOOR, PARITY, Refused, paired_values
from orchestrator.statistics.significance import holm, interval, outperforming, sign_flip, standard_deviation, wilcoxon

__all__ = ["ALPHA", "FLOOR", "PARITY", "Pair", "Refused", "compare", "compare_values", "interval", "sign_flip"]
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A against B; `difference` is A - B in the metric's own units."""

    a: str
    b: str
    n: int
    difference: float
    interval: tuple[float, float]
    p: float
    p_holm: float
    wilcoxon_p: float
    outperforms: float
    outperforms_interval: tuple[float, float]
    verdict: str
    """A is better, worse, equivalent or inconclusive."""
    detectable: float | None
    """The difference that this many seeds find with 80 % power, given the spread that was seen."""
    seeds_needed: int | None
    """inconclusive: seeds in all at which the seen difference would be settled; None when no number would."""
    more_seeds: int | None
    """The same, beyond the seeds there are."""


def compare(
    trials: pd.DataFrame,
    *,
    metric: str,
    goal: Goal,
    baseline: str | None = None,
    margin: float = 0.0,
    alpha: float = ALPHA,
    race: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The `compare` document of a trials table. Raises Refused.

    Of a raced confirm stage (`race` as in race.json) each pair is compared on the seeds that both have, and p is
    corrected for the looks, the end included, before Holm's correction over the pairs.

    `margin` >= 0, in the metric's units: a difference within it counts as none. `alpha` in (0, 1).
    """
    confirm = trials[trials["stage"] == Stage.CONFIRM]
    arms = sorted(confirm["arm"].unique())
    if baseline is not None and baseline not in arms:
        raise Refused(f"baseline {baseline!r} has no confirm trials; there is: {', '.join(arms) or 'no arm'}")
    stopped = {arm: one["seeds"] for arm, one in race["stopped"].items()} if race else {}
    values = paired_values(trials, metric, stopped)
    pairs = compare_values(values, goal=goal, baseline=baseline, margin=margin, alpha=alpha, looks=tests(race))
    return {
        "schema": "geosweep/compare/1",
        "sweep_id": str(confirm["sweep_id"].iloc[0]),
        "metric": metric,
        "goal": goal,
        "baseline": baseline,
        "margin": margin,
        "alpha": alpha,
        "seeds": sorted(int(s) for s in set(confirm["seed"])),
        "seeds_of": {arm: len(found) for arm, found in values.items()},
        "race": dict(race) if race else None,
        "pairs": [as_json(p) for p in pairs],
    }


def compare_values(
    values: Mapping[str, NDArray[np.float64]],
    *,
    goal: Goal,
    baseline: str | None = None,
    margin: float = 0.0,
    alpha: float = ALPHA,
    looks: int = 1,
) -> list[Pair]:
    """All pairs of arms, or every arm against the baseline; `values` hold one value per seed, in the same order.

    Where an arm has fewer seeds than another, they are the other's first ones. `looks`: at how many numbers of seeds
    a decision could have fallen.
    """
    chosen = chosen_pairs(list(values), baseline)
    common = [min(len(values[a]), len(values[b])) for a, b in chosen]
    differences = [values[a][:n] - values[b][:n] for (a, b), n in zip(chosen, common, strict=True)]
    ps = [sign_flip(d) for d in differences]
    return [
        _pair(a, b, d, goal.sign, p, adjusted, margin, alpha, len(chosen))
        for (a, b), d, p, adjusted in zip(chosen, differences, ps, holm([min(1.0, looks * p) for p in ps]), strict=True)
    ]


def chosen_pairs(arms: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    """The comparisons made: all pairs, or each arm with the baseline."""
    if baseline is None:
        return list(itertools.combinations(arms, 2))
    return [(arm, baseline) for arm in arms if arm != baseline]


def verdict_of(low: float, high: float, p_holm: float, favours_a: bool, margin: float, alpha: float) -> str:
    """The verdict on A from the interval of A - B and the adjusted p."""
    if margin > 0 and -margin <= low and high <= margin:
        return "equivalent"
    if p_holm < alpha and (low > margin or high < -margin):
        return "better" if favours_a else "worse"
    return "inconclusive"


def _pair(
    a: str, b: str, d: Any, sign: float, p: float, p_holm: float, margin: float, alpha: float, comparisons: int
) -> Pair:
    low, high = interval(d)
    verdict = verdict_of(low, high, p_holm, sign * float(d.mean()) > 0, margin, alpha)
    needed = None
    if verdict == "inconclusive":
        needed = power.seeds_to_settle(d, comparisons=comparisons, alpha=alpha, margin=margin)
    reach = power.detectable(len(d), comparisons, alpha)
    wins, wins_interval = outperforming(sign * d)
    return Pair(
        a=a,
        b=b,
        n=len(d),
        difference=float(d.mean()),
        interval=(low, high),
        p=p,
        p_holm=p_holm,
        wilcoxon_p=wilcoxon(d),
        outperforms=wins,
        outperforms_interval=wins_interval,
        verdict=verdict,
        detectable=None if reach is None else reach * standard_deviation(d),
        seeds_needed=needed,
        more_seeds=None if needed is None else needed - len(d),
    )


def as_json(pair: Pair) -> dict[str, Any]:
    """The pair as plain JSON."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(pair).items()}


def tests(race: Mapping[str, Any] | None) -> int:
    """How many times a raced comparison was looked at, the end included."""
    return 1 if race is None else len(race["looks"]) + 1
