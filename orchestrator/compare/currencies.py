"""Equal compute: what the budget gave every arm, how closely the arms kept to it, and what another currency would say.

Arms are compared at the same amount of the budget's unit. For each pair, a second comparison is made at equal seconds,
T = min(mean seconds of A, mean seconds of B) over the confirm trials: each trial's curve is read at T, interpolated
linearly between its evaluations at the trial's mean pace; a trial that had already ended keeps its last value. Two arms
whose means differ by less than ALIKE count as equally fast, and are read at their ends: identical arms differ by that
much, depending on what ran before them, and in every trial alike, so more trials would not average it out. The
learning-rate schedule of the slower arm is unfinished at T, so this is biased against it. Seconds are those of trials
that shared their machines with others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

import optim_core
from orchestrator.compare.evidence import Evidence
from orchestrator.definition import currency
from orchestrator.definition.columns import TOKENS
from orchestrator.definition.currency import WORDS
from orchestrator.definition.states import Stage, State
from orchestrator.protocol import flops
from orchestrator.statistics.comparison import compare_differences, differences
from orchestrator.statistics.intervals import Array, span_of
from orchestrator.statistics.pairing import IN_GRAD_EVALS, PARITY, Parity
from orchestrator.statistics.verdict import AtEqualSeconds, Cost, Verdict
from orchestrator.storage import calibration

FARTHEST = 0.25
"""(max - min) / mean of the arms' seconds."""
ALIKE = 0.1
"""(max - min) / max of the mean seconds of two arms that count as equally fast."""


def unit_of(evidence: Evidence) -> str:
    """The budget's unit in words."""
    return currency.name_of(evidence.definition["budget"], evidence.declares.counts)


def amount(evidence: Evidence) -> str:
    """The budget of each trial: `480 gradient evaluations`."""
    return currency.amount(evidence.definition["budget"], evidence.declares.counts)


def spoken(evidence: Evidence) -> str:
    """The same for the verdict: `480 gradient evaluations each`."""
    return currency.spoken(evidence.definition["budget"], evidence.declares.counts)


def costs(evidence: Evidence) -> dict[str, Cost]:
    """Arm -> mean cost of a confirm trial: gradient evaluations, seconds, FLOPs; None where unknown."""
    confirm = evidence.trials[evidence.trials["stage"] == Stage.CONFIRM]
    counted, found = flops.read(evidence.folder), dict[str, Cost]()
    for arm in evidence.arms:
        own = confirm[confirm["arm"] == arm]
        means = {
            name: float(own[name].mean()) if own[name].notna().any() else None for name in ("grad_evals", "seconds")
        }
        found[arm] = Cost(**means, flops=counted.get(arm))
    return found


def parity(evidence: Evidence) -> Parity:
    """What the confirm trials must have spent equally. Seconds: the arms' means, within the error of two calibrations.

    Arms whose seconds differ by more than FARTHEST are not compared, however small the calibration error.
    """
    unit = evidence.definition["budget"]["unit"]
    if evidence.imported:
        return Parity(column="grad_evals" if unit else "", words=unit, streams=False)
    if evidence.is_program:
        counted = {"grad_evals": "grad_evals", "steps": "cost/steps", "seconds": "seconds"}.get(unit, "")
        clock = unit == "seconds"
        return Parity(
            column=counted, words=WORDS[unit], within=FARTHEST if clock else PARITY, of_means=clock, streams=False
        )
    if unit == "steps":
        return Parity(column="cost/steps", words="steps")
    if unit == "seconds":
        errors = sorted(found.error for found in calibration.read(evidence.folder).values())
        return Parity(column="seconds", words="seconds", within=min(FARTHEST, sum(errors[-2:])), of_means=True)
    if unit == "tokens":
        return Parity(column=TOKENS, words=unit_of(evidence))
    given = float(evidence.definition["budget"]["per_trial"])
    return replace(IN_GRAD_EVALS, given=given, left=lambda: _step_of(evidence))


def _step_of(evidence: Evidence) -> dict[str, float]:
    """Arm -> gradient evaluations of the most expensive step among its confirm trials."""
    found: dict[str, float] = {}
    for record in evidence.records:
        job = record.job
        if job.stage is Stage.CONFIRM:
            cost = math.ceil(optim_core.cost_per_step(job.optimizer, **job.parameters))
            found[job.arm] = max(found.get(job.arm, 0.0), cost)
    return found


def notes(evidence: Evidence) -> list[str]:
    """For a budget in seconds: what the confirm trials of each arm took."""
    if evidence.definition["budget"]["unit"] != "seconds":
        return []
    trials = evidence.trials[(evidence.trials["stage"] == Stage.CONFIRM) & (evidence.trials["state"] == State.COMPLETE)]
    means = trials.groupby("arm")["seconds"].mean()
    given = float(evidence.definition["budget"]["per_trial"])
    return [
        currency.took(arm, given, found.error, float(means[arm]) if arm in means else None)
        for arm, found in calibration.read(evidence.folder).items()
    ]


def at_equal_seconds(
    evidence: Evidence, made: Verdict, level: float | None = None
) -> dict[tuple[str, str], AtEqualSeconds]:
    """(A, B) -> the comparison at equal seconds; empty where a trial has no evaluation by then.

    Also empty for a budget in seconds, where it is the main comparison. `level` of the tests as in
    `comparison.compare`.
    """
    if evidence.definition["budget"]["unit"] == "seconds":
        return {}
    metric, unit = made.metric, made.unit
    confirm = evidence.trials[evidence.trials["stage"] == Stage.CONFIRM]
    pace = confirm.groupby("arm")["seconds"].mean()
    points = evidence.curves[(evidence.curves["stage"] == Stage.CONFIRM) & (evidence.curves["name"] == metric)]
    by_trial = {str(trial): rows.sort_values("seconds") for trial, rows in points.groupby("trial_id")}
    found: dict[tuple[str, str], list[Array]] = {}
    seconds: dict[tuple[str, str], float] = {}
    for p in made.pairs:
        pair = (p.a, p.b)
        seconds[pair] = float(min(pace[pair[0]], pace[pair[1]]))
        alike = seconds[pair] >= (1 - ALIKE) * float(max(pace[pair[0]], pace[pair[1]]))
        until = math.inf if alike else seconds[pair]
        units = [_units(confirm[confirm["arm"] == arm], by_trial, until, unit) for arm in pair]
        if units[0] is None or units[1] is None:
            return {}
        found[pair] = differences(units[0], units[1])
    compared = compare_differences(
        found,
        goal=made.goal,
        unit=unit,
        margin=made.margin,
        alpha=made.alpha,
        level=level,
        looks=made.race.tests if made.race else 1,
        span=span_of(evidence.bounds(metric)),
    )
    return {
        (one.a, one.b): AtEqualSeconds(
            seconds=seconds[one.a, one.b],
            difference=one.difference,
            interval=one.interval,
            p_holm=one.p_holm,
            verdict=one.verdict,
        )
        for one in compared
    }


def _units(
    confirm: pd.DataFrame, by_trial: Mapping[str, pd.DataFrame], seconds: float, unit: str
) -> list[Array] | None:
    """An arm's values at `seconds`, unit by unit; None when one of its trials was not evaluated by then."""
    ordered = confirm.sort_values(["study", "seed"])
    values = np.array([_value(by_trial.get(str(trial)), seconds) for trial in ordered["trial_id"]])
    if np.isnan(values).any():
        return None
    at = ordered.assign(at=values)
    return [group["at"].to_numpy(dtype=float) for _, group in at.groupby("study" if unit == "study" else "seed")]


def _value(curve: pd.DataFrame | None, seconds: float) -> float:
    """The curve at `seconds`; nan before its first evaluation."""
    if curve is None or not len(curve) or float(curve["seconds"].iloc[0]) > seconds:
        return float("nan")
    return float(np.interp(seconds, curve["seconds"].to_numpy(dtype=float), curve["value"].to_numpy(dtype=float)))
