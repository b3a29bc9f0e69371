"""Time to target and performance profiles over several tasks (Dolan and More 2002; AlgoPerf rules, 2306.07179).

    target_w = median over the confirm trials of the reference arm's final value, never set by hand
    t(s, w)  = median over the confirm trials of the cost at which arm s first reaches target_w (linear between
               evaluations; infinite when missed)
    r(s, w)  = t(s, w) / min_s t(s, w)
    rho_s(tau) = share of tasks with r(s, w) <= tau
    B_s      = integral of rho_s from 1 to 4, / 3                              benchmark score in [0, 1]

The cost is gradient evaluations. An arm that is missing from a task counts as missing its target there. Medians are
over the confirm trials of all studies, which have equally many each; a twin is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

import optim_core
from orchestrator.compare.answer import check
from orchestrator.compare.evidence import Evidence
from orchestrator.definition.states import Goal, Stage
from orchestrator.protocol import seal
from orchestrator.statistics import ranks
from orchestrator.statistics.pairing import Refused

R_MAX = 4.0


def time_to(steps: Sequence[float], values: Sequence[float], target: float, goal: Goal) -> float:
    """Cost at which the curve first reaches the target, linear between evaluations; infinite if it never does."""
    sign = goal.sign
    behind: tuple[float, float] | None = None
    for step, value in zip(steps, values, strict=True):
        gap = sign * (value - target)
        if gap >= 0:
            if behind is None or gap == behind[1]:
                return float(step)
            before, short = behind
            return float(before + (step - before) * (-short) / (gap - short))
        behind = (step, gap)
    return math.inf


def ratios(times: pd.DataFrame) -> pd.DataFrame:
    """R [task, arm] from times [task, arm]; a task that no arm solved has infinite ratios."""
    best = times.min(axis=1)
    found = times.div(best.where(np.isfinite(best)), axis=0)
    return found.where(np.isfinite(times), math.inf).fillna(math.inf)


def profile(r: Sequence[float], tau: Sequence[float]) -> list[float]:
    """Rho at each tau for the ratios of one arm."""
    return [float(np.mean([x <= t for x in r])) for t in tau]


def score(r: Sequence[float], r_max: float = R_MAX) -> float:
    """B: the integral of rho from 1 to r_max, over r_max - 1. rho is a staircase, so this is exact."""
    return float(np.mean([max(0.0, r_max - x) / (r_max - 1) if math.isfinite(x) else 0.0 for x in r]))


def document(sweeps: Sequence[Evidence], reference: str = "") -> dict[str, Any]:
    """The `profile` document. Raises Refused."""
    tasks = {one.sweep_id: one for one in sweeps}
    if len(tasks) < 2:
        raise Refused("a profile needs sweeps of at least two tasks")
    for one in sweeps:
        check(one)
    arms = sorted({arm for one in sweeps for arm in _arms(one)})
    reference = reference or plain_reference(sweeps)
    if not reference or any(reference not in _arms(one) for one in sweeps):
        raise Refused(f"no reference arm {reference!r} in every sweep; name one with --reference: {', '.join(arms)}")
    targets: dict[str, float] = {}
    times = pd.DataFrame(math.inf, index=list(tasks), columns=arms)
    means = pd.DataFrame(np.nan, index=list(tasks), columns=arms)
    for key, one in tasks.items():
        targets[key] = _target(one, reference)
        for arm in _arms(one):
            times.loc[key, arm] = _median_time(one, arm, targets[key])
        for arm, values in one.confirmed(one.reported).items():
            if arm in arms:
                means.loc[key, arm] = _sign(one) * float(np.mean(values))
    r = ratios(times)
    return {
        "schema": "geosweep/profile/1",
        "sweeps": list(tasks),
        "reference": reference,
        "unit": "grad_evals",
        "targets": {k: {"metric": tasks[k].reported, "value": v} for k, v in targets.items()},
        "arms": {arm: _arm(times[arm], r[arm], times[reference]) for arm in arms},
        "ranks": ranks.document(means),
        "exploratory": [f"{one.sweep_id}: {stamp}" for one in sweeps for stamp in seal.stamps(one.folder)],
    }


def plain_reference(sweeps: Sequence[Evidence]) -> str:
    """The arm that runs the same plain reference optimizer in every sweep; empty if there is none."""
    for name in optim_core.references():
        for arm in sweeps[0].arms:
            if all(arm in one.arms and one.definition["arms"][arm]["optimizer"] == name for one in sweeps):
                return arm
    return ""


def _arms(one: Evidence) -> list[str]:
    return [arm for arm in one.arms if arm != one.twin]


def _sign(one: Evidence) -> float:
    return one.goal_of(one.reported).sign


def _target(one: Evidence, reference: str) -> float:
    units = one.units(one.reported).get(reference)
    if not units:
        raise Refused(f"{one.sweep_id}: the reference arm {reference} has no confirm trial with {one.reported}")
    return float(np.median([value for values in units.values() for value in values]))


def _median_time(one: Evidence, arm: str, target: float) -> float:
    curves = one.curves
    here = curves[(curves["arm"] == arm) & (curves["stage"] == Stage.CONFIRM) & (curves["name"] == one.reported)]
    goal = one.goal_of(one.reported)
    found = [
        time_to(list(g["step"]), list(g["value"]), target, goal)
        for _, g in here.sort_values("step").groupby("trial_id")
    ]
    return float(np.median(found)) if found else math.inf


def _arm(times: pd.Series, r: pd.Series, reference: pd.Series) -> dict[str, Any]:
    from scipy import stats

    both = np.isfinite(times) & np.isfinite(reference)
    speedup = float(stats.gmean(reference[both] / times[both])) if both.any() else None
    return {
        "time_to_target": {k: _finite(v) for k, v in times.items()},
        "ratio": {k: _finite(v) for k, v in r.items()},
        "score": score(list(r)),
        "solved": int(np.isfinite(times).sum()),
        "speedup": speedup,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def plotted(found: Mapping[str, Any]) -> dict[str, tuple[list[float], list[float]]]:
    """Arm -> (tau, rho) as a staircase from 1 to 4."""
    tau = list(np.linspace(1, R_MAX, 301))
    return {
        arm: (tau, profile([math.inf if v is None else v for v in row["ratio"].values()], tau))
        for arm, row in found["arms"].items()
    }
