"""How soon each arm reaches the final value of the reference arm, in gradient evaluations and in seconds.

    target  = median over units of the reference's final value
    t(arm)  = over units, quartiles of the cost at which the arm first reaches the target (see `profiles.time_to`);
              a unit that misses it has infinite cost

A unit is a study where there are several, with the mean curve of its confirm seeds, otherwise a confirm seed. Seconds
are measured at each trial's mean pace. The reference reaches its own median in about half of its units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.compare.answer import check
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.profiles import plain_reference, time_to
from orchestrator.compare.report import tables
from orchestrator.definition.states import Stage
from orchestrator.protocol import seal
from orchestrator.statistics.pairing import Refused
from orchestrator.storage import whole

COSTS = {"grad_evals": "step", "seconds": "seconds"}
"""Currency -> column of the curves."""
QUARTILES = (0.25, 0.5, 0.75)


def document(evidence: Evidence, reference: str = "") -> dict[str, Any]:
    """The `time-to-target` document. Raises Refused."""
    check(evidence)
    if evidence.imported:
        raise Refused(f"{evidence.sweep_id} was imported: the cost of its runs is not recorded in gradient evaluations")
    reference = reference or plain_reference([evidence])
    if reference not in evidence.arms:
        there = ", ".join(evidence.arms)
        raise Refused(f"no reference arm {reference!r} in {evidence.sweep_id}; name one with --reference: {there}")
    finals = _finals(evidence, reference)
    if not finals:
        raise Refused(
            f"{evidence.sweep_id}: the reference arm {reference} has no confirm trial with {evidence.reported}"
        )
    target = float(np.median(finals))
    return {
        "schema": "geosweep/time-to-target/1",
        "sweep_id": evidence.sweep_id,
        "reference": reference,
        "metric": evidence.reported,
        "target": target,
        "unit": _unit(evidence),
        "arms": {arm: _arm(evidence, arm, target) for arm in evidence.arms},
        "exploratory": seal.stamps(evidence.folder),
    }


def rows(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per arm, sorted by gradient evaluations to the target."""
    units = "studies" if found["unit"] == "study" else "seeds"
    ordered = sorted(found["arms"].items(), key=lambda item: _soonest(item[1]["grad_evals"]))
    return [
        {
            "arm": arm,
            "reached": f"{row['reached']} of {row['units']} {units}",
            "gradient evaluations [quartiles]": _words(row["grad_evals"], 0),
            "seconds [quartiles]": _words(row["seconds"], 2),
        }
        for arm, row in ordered
    ]


def caption(found: Mapping[str, Any]) -> str:
    """What the table shows."""
    return (
        f"{found['sweep_id']}: cost of reaching {found['metric']} {found['target']:.4g}, where {found['reference']} "
        "ends at the median"
    )


def write(found: Mapping[str, Any], to: Path) -> list[Path]:
    """time-to-target.csv and .tex in the folder `to`."""
    table, stamps = rows(found), found["exploratory"]
    contents = {"csv": tables.as_csv(table, stamps), "tex": tables.as_latex(table, caption(found), stamps)}
    return whole.write({to / f"time-to-target.{kind}": content for kind, content in contents.items()})


def _finals(evidence: Evidence, arm: str) -> list[float]:
    trials = evidence.trials
    own = trials[(trials["arm"] == arm) & (trials["stage"] == Stage.CONFIRM)]
    if evidence.reported not in own:
        return []
    return [float(v) for v in own.groupby(_unit(evidence))[evidence.reported].mean().dropna()]


def _arm(evidence: Evidence, arm: str, target: float) -> dict[str, Any]:
    curves, trials, unit = evidence.curves, evidence.trials, _unit(evidence)
    here = curves[(curves["arm"] == arm) & (curves["stage"] == Stage.CONFIRM) & (curves["name"] == evidence.reported)]
    own = trials[(trials["arm"] == arm) & (trials["stage"] == Stage.CONFIRM)]
    goal = evidence.goal_of(evidence.reported)
    units = [_mean_curve(here[here["trial_id"].isin(group["trial_id"])], len(group)) for _, group in own.groupby(unit)]
    times = {
        currency: np.array([time_to(list(c[column]), list(c["value"]), target, goal) for c in units])
        for currency, column in COSTS.items()
    }
    found: dict[str, Any] = {"units": len(units), "reached": int(np.isfinite(times["grad_evals"]).sum())}
    return found | {currency: _quartiles(costs) for currency, costs in times.items()}


def _mean_curve(points: pd.DataFrame, trials: int) -> pd.DataFrame:
    """Mean value and seconds at the evaluations reached by all `trials`."""
    grouped = points.groupby("step")
    means = grouped[["value", "seconds"]].mean()[grouped["trial_id"].count() == trials]
    return means.reset_index().sort_values("step")


def _quartiles(times: Any) -> list[float | None]:
    """Quartiles, None for infinite ones: `inverted_cdf` never averages a finite cost with an infinite one."""
    if not len(times):
        return [None] * len(QUARTILES)
    found = np.quantile(times, QUARTILES, method="inverted_cdf")
    return [float(q) if math.isfinite(q) else None for q in found]


def _unit(evidence: Evidence) -> str:
    return "study" if evidence.definition["seeds"].get("studies", 1) > 1 else "seed"


def _soonest(quartiles: list[float | None]) -> tuple[float, float]:
    low, middle, _ = (math.inf if q is None else q for q in quartiles)
    return middle, low


def _words(quartiles: list[float | None], digits: int) -> str:
    low, middle, high = ("∞" if q is None else f"{q:,.{digits}f}" for q in quartiles)
    return f"{middle} [{low}, {high}]"
