"""How well each arm was tuned: edges of the space, usable widths, optimism, divergence, and whether pruning is safe.

edge       the chosen value lies within 5 % of a bound of its range (on the range's own scale): the optimum may lie
           outside. A natural bound, which the optimizer declares (a rate of 1, a momentum of 0), is no edge
width      decades between the smallest and the largest value among configurations within 5 % of the best
optimism   mean over the confirm seeds of the tuned metric, minus the value with which the search chose it
rungs      Kendall's tau between the ranking at a share of the budget and the final one, and where the winner stood
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from orchestrator.compare.evidence import Evidence, numeric
from orchestrator.compare.search_curves import random_values
from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Stage, State
from orchestrator.statistics.expected_best import expected_best, tunability

EDGE, NEAR, RUNGS = 0.05, 0.05, (0.25, 0.5, 0.75)
UNBOUNDED = (-math.inf, math.inf)


def position(p: Parameter, value: float) -> float:
    """Where a value lies in its range, in [0, 1], on the range's own scale."""
    low, high = p.low, p.high
    if p.one_minus:
        low, high, value = 1 - p.high, 1 - p.low, 1 - value
        return 1 - _log_share(low, high, value)
    return _log_share(low, high, value) if p.log else (value - low) / (high - low)


def _log_share(low: float, high: float, value: float) -> float:
    return math.log(value / low) / math.log(high / low)


def edge(p: Parameter, value: Any, natural: tuple[float, float] = UNBOUNDED) -> str:
    """`lower` or `upper` when the value lies at a bound that could be moved, else nothing.

    `natural`: the lowest and highest value that means anything.
    """
    lowest, highest = natural
    if p.kind == "categorical":
        if len(p.values) < 3 or not numeric(p.values):
            return ""
        share = 0.0 if value == min(p.values) else 1.0 if value == max(p.values) else 0.5
        low, high = min(p.values), max(p.values)
    elif p.kind in ("float", "int"):
        share, low, high = position(p, float(value)), p.low, p.high
    else:
        return ""
    if share < EDGE and low > lowest:
        return "lower"
    return "upper" if share > 1 - EDGE and high < highest else ""


def edges(evidence: Evidence, arm: str) -> dict[str, str]:
    """Parameter -> bound, for each chosen value that lies at one."""
    chosen, known = evidence.chosen(arm), evidence.parameters[arm]
    natural = evidence.optimizer(arm).BOUNDS
    found = {
        name: edge(known[name], value, natural.get(name, UNBOUNDED)) for name, value in chosen.items() if name in known
    }
    return {name: where for name, where in found.items() if where}


def width(frame: pd.DataFrame, p: Parameter, sign: float) -> float | None:
    """Decades of the parameter over configurations within 5 % of the best; None for what has no logarithm."""
    if p.name not in frame or p.kind == "categorical" or (not p.log and not p.one_minus):
        return None
    whole = frame.dropna(subset=["value", p.name])
    if not len(whole):
        return None
    best = (sign * whole["value"]).max()
    near = whole[sign * whole["value"] >= best - NEAR * abs(best)][p.name].to_numpy(dtype=float)
    near = 1 - near if p.one_minus else near
    return float(np.log10(near.max() / near.min()))


def summary(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Arm -> what its search says."""
    found: dict[str, dict[str, Any]] = {}
    confirmed = evidence.confirmed(evidence.tuned)
    for arm in evidence.arms:
        frame = evidence.configurations[arm]
        values = frame["value"].dropna() if len(frame) else pd.Series(dtype=float)
        best = float((evidence.sign * values).max() * evidence.sign) if len(values) else None
        means = float(np.mean(confirmed[arm])) if arm in confirmed else None
        random = random_values(evidence, arm)
        rows = evidence.trials[evidence.trials["arm"] == arm]
        found[arm] = {
            "configurations": len(frame),
            "best_tune": best,
            "optimism": None if best is None or means is None else means - best,
            "tunability": tunability(expected_best(random, evidence.goal)) if len(random) else None,
            "widths": {
                p.name: w for p in evidence.tuned_parameters(arm) if (w := width(frame, p, evidence.sign)) is not None
            },
            "edges": edges(evidence, arm),
            "diverged": int((rows["state"] == State.DIVERGED).sum()),
            "pruned": int((rows["state"] == State.PRUNED).sum()),
            "failed": int((rows["state"] == State.FAILED).sum()),
            "trials": len(rows),
            "grad_evals": float(rows["grad_evals"].sum()),
            "seconds": float(rows["seconds"].sum()),
        }
    return found


def kills(evidence: Evidence) -> list[dict[str, Any]]:
    """Stopped trials that were finished for the audit: how many would have beaten their arm's best (Wilson
    interval).
    """
    found = []
    for arm in evidence.arms:
        frame = evidence.configurations[arm]
        stopped = [t.result.stopped for t in evidence.records if t.job.arm == arm and t.result.stopped is not None]
        ends = [stop.audit_value for stop in stopped if stop.audit_value is not None]
        if not stopped:
            continue
        best = (evidence.sign * frame["value"]).max() if len(frame) else math.nan
        false = sum(evidence.sign * value > best for value in ends)
        low, high = proportion_confint(false, len(ends), method="wilson") if ends else (0.0, 1.0)
        found.append(
            {"arm": arm, "pruned": len(stopped), "audited": len(ends), "false": int(false), "low": low, "high": high}
        )
    return found


def rungs(evidence: Evidence, eta: int = 3) -> list[dict[str, Any]]:
    """Would stopping early have been safe? One row for each arm and share of the budget, over trials that ran to
    the end.
    """
    found = []
    allowed, budget = {trial.trial_id: trial.job.budget for trial in evidence.records}, 1.0
    curves = evidence.curves
    curves = curves[
        (curves["stage"] == Stage.TUNE) & (curves["name"] == evidence.tuned) & (curves["state"] == State.COMPLETE)
    ]
    curves = curves.assign(step=(curves["step"] / curves["trial_id"].map(allowed)).round(9))  # shares of the budget
    for arm in evidence.arms:
        points = curves[curves["arm"] == arm]
        table = points.pivot_table(index="trial_id", columns="step", values="value").ffill(axis=1)
        if len(table) < 4:
            continue
        final = evidence.sign * table.iloc[:, -1]
        for share in RUNGS:
            before = [s for s in table.columns if float(s) <= share * budget + 1e-9]
            if not before:
                continue
            then = evidence.sign * table[before[-1]].fillna(-math.inf)
            place = int((then > float(then.iloc[int(final.to_numpy().argmax())])).sum()) + 1
            found.append(
                {
                    "arm": arm,
                    "share": share,
                    "trials": len(table),
                    "tau": float(stats.kendalltau(then, final).statistic),
                    "winner_stood": place,
                    "would_survive": place <= max(1, len(table) // eta),
                }
            )
    return found
