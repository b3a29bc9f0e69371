"""Paired comparison of arms on their confirm seeds: is A better than B here, at equal compute, and how sure is that?

With d_i = goal-signed difference of A and B on seed i: mean difference with its 95 % interval (t under 10 seeds, else
BCa bootstrap), exact sign-flip p = #{s in {-1, 1}^n : |mean(s d)| >= |mean(d)|} / 2^n, Holm over all pairs, probability
of outperforming (Bouthillier et al. 2021, arXiv 2103.03098). The least possible p is 2 / 2^n, hence the floor of 6.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

FLOOR, PARITY, ALPHA, BOOTSTRAP_FROM, EXACT_UP_TO = 6, 0.02, 0.05, 10, 16


class Refused(Exception):  # noqa: N818
    """The table does not allow an honest comparison; says why."""


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
    verdict: str
    """A is better, worse, equivalent (interval inside the margin) or inconclusive."""
    seeds_needed: int | None
    """inconclusive: seeds at which the seen difference would show with 80 % power; None when it is 0."""


def compare(
    trials: pd.DataFrame, *, metric: str, goal: str, baseline: str | None = None, margin: float = 0.0
) -> dict[str, Any]:
    """The `compare` document of a trials table. Raises Refused.

    `margin` >= 0, in the metric's units: a difference within it counts as none.
    """
    confirm = trials[trials["stage"] == "confirm"]
    arms = sorted(confirm["arm"].unique())
    if baseline is not None and baseline not in arms:
        raise Refused(f"baseline {baseline!r} has no confirm trials; there is: {', '.join(arms) or 'no arm'}")
    if len(arms) < 2:
        raise Refused(f"a comparison needs two arms with confirm trials; there is: {', '.join(arms) or 'none'}")
    if metric not in confirm:
        raise Refused(f"no trial has the metric {metric!r}")
    values = _paired_values(confirm, arms, metric)
    if baseline is None:
        chosen = list(itertools.combinations(arms, 2))
    else:
        chosen = [(arm, baseline) for arm in arms if arm != baseline]
    ps = [sign_flip(values[a] - values[b]) for a, b in chosen]
    holm = multipletests(ps, alpha=ALPHA, method="holm")[1]
    sign = 1.0 if goal == "maximize" else -1.0
    pairs = [
        _pair(a, b, values[a] - values[b], sign, p, float(h), margin)
        for (a, b), p, h in zip(chosen, ps, holm, strict=True)
    ]
    return {
        "schema": "geosweep/compare/1",
        "sweep_id": str(confirm["sweep_id"].iloc[0]),
        "metric": metric,
        "goal": goal,
        "baseline": baseline,
        "pairs": [{**asdict(p), "interval": list(p.interval)} for p in pairs],
    }


def sign_flip(d: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Two-sided p of the sign-flip permutation test on the mean; exact up to 16 differences, else 99 999 draws."""
    observed = abs(float(d.mean()))
    if len(d) <= EXACT_UP_TO:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(d))))
    else:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(99_999, len(d)))
    reached = int((np.abs(signs @ d) / len(d) >= observed * (1 - 1e-12)).sum())
    return reached / len(signs) if len(d) <= EXACT_UP_TO else (reached + 1) / (len(signs) + 1)


def _paired_values(confirm: pd.DataFrame, arms: Sequence[str], metric: str) -> Mapping[str, Any]:
    """Arm -> values in the order of the seeds, once everything that makes them comparable is proved."""
    failed = confirm[confirm["state"] == "FAILED"]
    if len(failed):
        names = ", ".join(sorted(failed["trial_id"])[:3])
        raise Refused(f"{len(failed)} confirm trials failed ({names}); mend the cause and run the sweep again")
    seeds = {arm: sorted(confirm[confirm["arm"] == arm]["seed"]) for arm in arms}
    for arm, found in seeds.items():
        if len(set(found)) < len(found):
            raise Refused(f"arm {arm} has a confirm seed twice: {found}")
        if found != seeds[arms[0]]:
            raise Refused(f"arms {arms[0]} and {arm} have other confirm seeds: {seeds[arms[0]]} and {found}")
    if len(seeds[arms[0]]) < FLOOR:
        raise Refused(f"{len(seeds[arms[0]])} confirm seeds; below {FLOOR} no exact test can reach p < 0.05")
    for digest in ("init_digest", "data_digest"):
        for seed, rows in confirm.groupby("seed"):
            if rows[digest].nunique() > 1 or not rows[digest].iloc[0]:
                raise Refused(
                    f"seed {seed} is not paired: {digest} is {', '.join(sorted(set(map(str, rows[digest]))))}"
                )
    budgets = confirm[confirm["state"] == "COMPLETE"].groupby("arm")["grad_evals"].mean()
    if len(budgets) > 1 and (budgets.max() - budgets.min()) / budgets.mean() > PARITY:
        raise Refused(f"budgets differ by more than 2 %: {', '.join(f'{a} {b:g}' for a, b in budgets.items())}")
    ordered = confirm.sort_values("seed")
    return {arm: ordered[ordered["arm"] == arm][metric].to_numpy(dtype=float) for arm in arms}


def _pair(a: str, b: str, d: Any, sign: float, p: float, holm: float, margin: float) -> Pair:
    low, high = interval(d)
    verdict = "inconclusive"
    if -margin <= low and high <= margin and margin > 0:
        verdict = "equivalent"
    elif holm < ALPHA and (low > margin or high < -margin):
        verdict = "better" if sign * float(d.mean()) > 0 else "worse"
    moving = d[d != 0]
    rank_p = float(stats.wilcoxon(moving, method="exact").pvalue) if len(moving) else 1.0
    return Pair(
        a=a,
        b=b,
        n=len(d),
        difference=float(d.mean()),
        interval=(low, high),
        p=p,
        p_holm=holm,
        wilcoxon_p=rank_p,
        outperforms=float((sign * d > 0).mean() + 0.5 * (d == 0).mean()),
        verdict=verdict,
        seeds_needed=_seeds_needed(d) if verdict == "inconclusive" else None,
    )


def interval(d: Any, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean: t under 10 values, else BCa."""
    spread = float(np.std(d, ddof=1))
    if spread == 0:
        return float(d.mean()), float(d.mean())
    if len(d) < BOOTSTRAP_FROM:
        found = stats.ttest_1samp(d, 0.0).confidence_interval(confidence)
        return float(found.low), float(found.high)
    boot = stats.bootstrap((d,), np.mean, confidence_level=confidence, method="BCa", rng=np.random.default_rng(0))
    return float(boot.confidence_interval.low), float(boot.confidence_interval.high)


def _seeds_needed(d: Any) -> int | None:
    spread, mean = float(np.std(d, ddof=1)), abs(float(d.mean()))
    if mean == 0 or spread == 0:
        return None
    needed = float(np.max(TTestPower().solve_power(effect_size=min(mean / spread, 5.0), power=0.8, alpha=ALPHA)))
    return max(len(d) + 1, math.ceil(needed))
