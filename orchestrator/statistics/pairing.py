"""Requirements for comparing arms: the same fresh seeds, proved by digests, at the same budget.

parity  (max B - min B) / mean B <= 2%  over what all confirm trials that trained to the end spent: B in gradient
        evaluations, or in the unit that the sweep makes equal (see `Parity`)

A table without a column `study` holds one study per arm. With one study per arm the units are its confirm seeds; with
several they are the studies: study r of one arm is paired with study r of every other, and both have the same seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from orchestrator.definition.states import Stage, State
from orchestrator.statistics.intervals import Array
from orchestrator.statistics.refused import Refused as Refused
from orchestrator.statistics.same_task import NOTHING, Choice, by_task, check_streams, chosen_by_arms

FLOOR, PARITY = 6, 0.02
NOBODY: Mapping[str, int] = {}
Unit = Literal["study", "seed"]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What the sweep makes equal, and how closely confirm trials must agree in it."""

    column: str = "grad_evals"
    """Of the trials table; empty, or one that no trial has: nothing was counted."""
    words: str = "gradient evaluations"
    within: float = PARITY
    """(max - min) / mean."""
    of_means: bool = False
    """Compare the arms' means, because single trials are noisy."""
    streams: bool = True
    """Require equal digests of weights and data. For scripts and imported runs the verdict states the level of
    proof.
    """
    given: float = 0.0
    """The budget of each trial, where `left` is known."""
    left: Callable[[], Mapping[str, float]] = dict
    """Arm -> cost of one of its steps: less than that is left over at the end of a trial. Since this follows from the
    file, it is noted but nothing is refused for it. Called only where trials spent different amounts.
    """


IN_GRAD_EVALS = Parity()


@dataclass(frozen=True, kw_only=True)
class Search:
    """What one study of an arm spent before its confirm trials."""

    configurations: int
    trials: int


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Confirm trials, arm by arm in the same order of units."""

    unit: Unit
    values: dict[str, list[Array]]
    """Arm -> [units][confirm seeds]; with seeds as units, one value in each."""
    searches: dict[str, Search] = field(default_factory=dict)
    """Empty when the table has no tune trials."""
    diverged: tuple[tuple[str, int], ...] = ()
    """(arm, study) pairs whose confirm trials all diverged."""
    own_task: tuple[str, ...] = ()
    """Parameters of the task that each arm chose itself."""
    tasks: tuple[tuple[str, ...], ...] = ()
    """Arms that have the same task, group by group; empty: all of them."""
    notes: tuple[str, ...] = ()
    """Notes on studies that did not go as planned."""


AGAIN = "fix the cause and give the sweep another name"


def paired(
    trials: pd.DataFrame,
    metric: str,
    stopped: Mapping[str, int] = NOBODY,
    parity: Parity = IN_GRAD_EVALS,
    choice: Choice = NOTHING,
) -> Paired:
    """The confirm trials of a trials table, ready to be compared. Raises Refused unless they are comparable.

    An arm that a race `stopped` has the first units of the others. A diverged trial counts with its assigned value, the
    metric's worst. `choice`: what arms may choose about the task.
    """
    trials = trials if "study" in trials else trials.assign(study=1)
    confirm, arms, several = _confirm(trials, metric)
    _none_missing(trials[trials["arm"].isin(arms)], confirm, stopped, several)
    _same_seeds(confirm, arms, stopped, several)
    chosen = check_streams(confirm, choice, several=several) if parity.streams else []
    unspent = _same_budget(confirm, parity)
    found = _ready(trials, confirm, arms, metric, several)
    notes = (*chosen, *unspent, *found.notes)
    tasks = tuple(map(tuple, by_task(confirm, choice))) if parity.streams else ()
    return replace(found, own_task=tuple(chosen_by_arms(confirm, choice)), tasks=tasks, notes=notes)


def unpaired(trials: pd.DataFrame, metric: str, parity: Parity = IN_GRAD_EVALS) -> Paired:
    """The same for arms whose seeds, or studies, are unrelated. Raises Refused."""
    confirm, arms, several = _confirm(trials, metric)
    unspent = _same_budget(confirm, parity)
    found = _ready(trials, confirm, arms, metric, several)
    return replace(found, notes=(*unspent, *found.notes))


def _confirm(trials: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, list[str], bool]:
    """Confirm trials, their arms, and whether there are several studies."""
    confirm = trials[trials["stage"] == Stage.CONFIRM]
    arms = sorted(confirm["arm"].unique())
    if len(arms) < 2:
        raise Refused(f"a comparison needs two arms with confirm trials; available: {', '.join(arms) or 'none'}")
    if metric not in confirm:
        raise Refused(f"no trial has the metric {metric!r}")
    several = trials[trials["arm"].isin(arms)]["study"].nunique() > 1
    _none_failed(confirm, several)
    return confirm, arms, several


def _ready(trials: pd.DataFrame, confirm: pd.DataFrame, arms: Sequence[str], metric: str, several: bool) -> Paired:
    """The values of checked trials, arm by arm."""
    tune = trials[trials["stage"] == Stage.TUNE]
    ordered = confirm.sort_values(["study", "seed"])
    values: dict[str, list[Array]] = {}
    for arm in arms:
        own = ordered[ordered["arm"] == arm]
        if not np.isfinite(own[metric].to_numpy(dtype=float)).all():
            raise Refused(f"arm {arm} has a confirm trial without {metric}")
        by = "study" if several else "seed"
        values[arm] = [group[metric].to_numpy(dtype=float) for _, group in own.groupby(by)]
    return Paired(
        unit="study" if several else "seed",
        values=values,
        searches=_searches(tune, arms),
        diverged=_diverged(confirm),
        notes=(
            *_left_out(tune, arms),
            *_failed_in_search(tune, several),
            *_unequal(tune, arms),
            *_some_diverged(confirm, arms, metric),
        ),
    )


def _named(arm: str, study: Any, several: bool) -> str:
    return f"study {study} of arm {arm}" if several else f"arm {arm}"


def _none_failed(confirm: pd.DataFrame, several: bool) -> None:
    failed = confirm[confirm["state"] == State.FAILED]
    if len(failed):
        names = ", ".join(sorted(failed["trial_id"])[:3])
        where = sorted({(arm, study) for arm, study in zip(failed["arm"], failed["study"], strict=True)})
        of = f" of {', '.join(_named(arm, study, True) for arm, study in where)}" if several else ""
        raise Refused(
            f"{len(failed)} confirm trials failed{of} ({names}); fix the cause and run it with --retry-failed"
        )


def _none_missing(own: pd.DataFrame, confirm: pd.DataFrame, stopped: Mapping[str, int], several: bool) -> None:
    """Every study has confirm trials, except those that a race skipped for an arm."""
    confirmed = set(zip(confirm["arm"], confirm["study"], strict=True))
    studies = sorted(own["study"].unique())
    for arm in sorted(own["arm"].unique()):
        expected = studies[: stopped.get(arm)] if several else studies
        missing = [study for study in expected if (arm, study) not in confirmed]
        if missing:
            named = ", ".join(_named(arm, study, several) for study in missing)
            raise Refused(f"{named}: no confirm trials; {AGAIN}")


def _same_seeds(confirm: pd.DataFrame, arms: Sequence[str], stopped: Mapping[str, int], several: bool) -> None:
    seeds = {}
    for arm in arms:
        own = confirm[confirm["arm"] == arm]
        seeds[arm] = sorted(zip(own["study"], own["seed"], strict=True))
    whole = next((arm for arm in arms if arm not in stopped), arms[0])
    studies = sorted({study for study, _ in seeds[whole]})
    for arm, found in seeds.items():
        bare = [seed for _, seed in found]
        if len(set(bare)) < len(bare):
            raise Refused(f"arm {arm} has a confirm seed twice: {bare}")
        kept = stopped.get(arm)
        expected = [one for one in seeds[whole] if one[0] in studies[:kept]] if several else seeds[whole][:kept]
        if found != expected:
            differ = sorted(set(found) ^ set(expected))
            where = f"study {differ[0][0]}: " if several else ""
            theirs = [[seed for study, seed in one if study == differ[0][0]] for one in (expected, found)]
            raise Refused(f"{where}arms {whole} and {arm} have different confirm seeds: {theirs[0]} and {theirs[1]}")
    fewest = min(map(len, seeds.values()))
    if not several and fewest < FLOOR:
        raise Refused(f"{fewest} confirm seeds; with fewer than {FLOOR} no exact test can reach p < 0.05")


def _same_budget(confirm: pd.DataFrame, parity: Parity) -> list[str]:
    """What whole steps left over where it exceeds `parity.within`, as notes."""
    complete = confirm[confirm["state"] == State.COMPLETE]
    if parity.column not in complete:
        return []
    means = complete.groupby("arm")[parity.column].mean()
    spent = means if parity.of_means else complete[parity.column]
    if len(spent) and (spent.max() - spent.min()) / spent.mean() > parity.within:
        named = ", ".join(f"{arm} {mean:.4g}" for arm, mean in means.items())
        apart = f"more than {100 * parity.within:.2g}%"
        rests, steps = parity.given - complete[parity.column], parity.left()
        if all(0 <= rest < steps.get(arm, 0.0) for arm, rest in zip(complete["arm"], rests, strict=True)):
            return [
                f"Trials take whole steps, so of {parity.given:g} {parity.words} the arms spent {named}, {apart} "
                "apart; a budget that is a multiple of every arm's cost per step avoids this."
            ]
        over = [str(arm) for arm, mean in means.items() if 0 < (1 + parity.within) * parity.given < mean]
        why = (
            f"; {' and '.join(over)} spent more than the {parity.given:g} given: a step must cost no more than the "
            "optimizer declares (GRAD_EVALS)"
        )
        raise Refused(f"budgets differ by {apart}: {named} ({parity.words}){why if over else ''}")
    return []


def _searches(tune: pd.DataFrame, arms: Sequence[str]) -> dict[str, Search]:
    """Configurations and trials of each arm's largest study."""
    found = {}
    for arm in arms:
        groups = [group for _, group in tune[tune["arm"] == arm].groupby("study")]
        if groups:
            trials = max(map(len, groups))
            distinct = max(g["parameters"].nunique() for g in groups) if "parameters" in tune else trials
            found[str(arm)] = Search(configurations=int(distinct), trials=int(trials))
    return found


def _diverged(confirm: pd.DataFrame) -> tuple[tuple[str, int], ...]:
    every = confirm.assign(gone=confirm["state"] == State.DIVERGED).groupby(["arm", "study"])["gone"].all()
    return tuple((str(arm), int(study)) for arm, study in every[every].index)


def _some_diverged(confirm: pd.DataFrame, arms: Sequence[str], metric: str) -> list[str]:
    """For an arm of which some confirm trials diverged: its mean depends on what they count as."""
    notes = []
    for arm in arms:
        own = confirm[confirm["arm"] == arm]
        lost = own[own["state"] == State.DIVERGED]
        if 0 < len(lost) < len(own):
            value = float(lost[metric].iloc[0])
            counts = "each counts" if len(lost) > 1 else "it counts"
            notes.append(
                f"{len(lost)} of {len(own)} confirm trials of arm {arm} diverged; {counts} as {metric} {value:g}."
            )
    return notes


def _left_out(tune: pd.DataFrame, arms: Sequence[str]) -> list[str]:
    return [f"arm {arm} has no confirm trials and is not compared." for arm in sorted(set(tune["arm"]) - set(arms))]


def _unequal(tune: pd.DataFrame, arms: Sequence[str]) -> list[str]:
    """For an arm whose searches differ in length, for example because a budget ended them."""
    notes = []
    for arm in arms:
        sizes = tune[tune["arm"] == arm].groupby("study").size()
        if sizes.nunique() > 1:
            notes.append(
                f"the studies of arm {arm} were tuned with {sizes.min()} to {sizes.max()} trials: "
                "the comparison is of methods tuned with unequal effort."
            )
    return notes


def _failed_in_search(tune: pd.DataFrame, several: bool) -> list[str]:
    notes = []
    for (arm, study), group in tune.groupby(["arm", "study"]):
        failed = int((group["state"] == State.FAILED).sum())
        if failed:
            notes.append(f"{_named(str(arm), study, several)}: {failed} of {len(group)} trials of its search failed.")
    return notes
