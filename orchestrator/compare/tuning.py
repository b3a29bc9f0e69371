"""How well each arm was tuned: edges of the space, usable widths, optimism, divergence, and whether pruning is safe.

edge       the chosen value lies within 5% of a bound of its range (on the range's own scale): the optimum may lie
           outside. A natural bound, declared by the optimizer (a rate of 1, a momentum of 0), is not an edge
width      decades between the smallest and the largest value among configurations within 5% of the best
optimism   mean over the confirm seeds of the tuned metric, minus the value with which the search chose it
rungs      Kendall's tau between the ranking at a share of the budget and the final one, and where the winner stood

Each of several studies is examined alone, since each has its own tune seeds: `best` is relative to the configuration's
own study; the best value, optimism, tau and the winner's rank are means over studies; an edge reports in which studies
the chosen value lies there. By chance alone, one study in twenty chooses a value at a given bound, so a single one of
several studies does not cast doubt on the range. One end of a list of k values is chosen by chance in one study in k: a
single study is informative from five values on, several if they choose it more often than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import bdtrc

from orchestrator.compare.evidence import Evidence, numeric
from orchestrator.compare.search_curves import curves as expected_curves
from orchestrator.compare.search_curves import most_random, random_values
from orchestrator.definition.columns import of_parameter
from orchestrator.definition.parts import TASK, TRAINING, section_of
from orchestrator.definition.space import Parameter, levels
from orchestrator.definition.states import Stage, State
from orchestrator.statistics.expected_best import expected_best, tunability
from orchestrator.statistics.ranks import kendall
from trainables.recipe import KEYS

EDGE, NEAR, RUNGS = 0.05, 0.05, (0.25, 0.5, 0.75)
FEWEST, DOUBTFUL, RARE, SURPRISING = 4, 0.25, 0.2, 0.05
"""Minimum number of trials for a ranking; share of studies (at least two) that makes an edge doubtful. One end of a
list of values counts as chosen by chance if its probability exceeds RARE in a single study, or SURPRISING over several
studies.
"""
UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A bound at which chosen values of a parameter lie."""

    parameter: str
    where: str
    """lower or upper."""
    at: tuple[int, ...]
    """Studies whose chosen value lies there."""
    studies: int
    """How many studies chose a value."""
    chance: float = EDGE
    """The share of the range that counts as this edge: 1 / k for a list of k values."""

    @property
    def is_doubtful(self) -> bool:
        """Whether it exceeds chance, so that the optimum may lie outside."""
        if self.studies == 1:
            return self.chance <= RARE
        often = len(self.at) >= max(2, math.ceil(DOUBTFUL * self.studies))
        by_chance = float(bdtrc(len(self.at) - 1, self.studies, self.chance))
        return often and (self.chance == EDGE or by_chance < SURPRISING)

    def __str__(self) -> str:
        return self.where + (f" in {len(self.at)} of {self.studies} studies" if self.studies > 1 else "")


def position(p: Parameter, value: float) -> float:
    """Position of a value in its range, in [0, 1], on the range's own scale."""
    low, high = p.low, p.high
    if p.one_minus:
        low, high, value = 1 - p.high, 1 - p.low, 1 - value
        return 1 - _log_share(low, high, value)
    return _log_share(low, high, value) if p.log else (value - low) / (high - low)


def _log_share(low: float, high: float, value: float) -> float:
    return math.log(value / low) / math.log(high / low)


def edge(p: Parameter, value: Any, natural: tuple[float, float] = UNBOUNDED) -> str:
    """`lower` or `upper` when the value lies at a bound that could be moved, otherwise empty.

    `natural`: the lowest and highest meaningful value.
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


def edges(evidence: Evidence, arm: str) -> list[Edge]:
    """The bounds at which chosen values lie, parameter by parameter."""
    chosen, known = evidence.chosen(arm), evidence.parameters[arm]
    found: dict[tuple[str, str], list[int]] = {}
    for study, given in chosen.items():
        for name, value in given.items():
            if name in known and (where := edge(known[name], value, _natural(evidence, arm, name))):
                found.setdefault((name, where), []).append(study)
    each = (
        Edge(parameter=name, where=where, at=tuple(at), studies=len(chosen), chance=_chance(known[name]))
        for (name, where), at in found.items()
    )
    return [one for one in each if one.studies > 1 or one.is_doubtful]


def _chance(p: Parameter) -> float:
    """Probability that an end is chosen by chance alone."""
    found = levels(p)
    return max(EDGE, 1 / len(found)) if found else EDGE


def _natural(evidence: Evidence, arm: str, name: str) -> tuple[float, float]:
    """The lowest and highest meaningful value: of an optimizer's argument, also within a group or a schedule."""
    if evidence.is_program:  # the meaning of a script's names is unknown
        return evidence.optimizer_declares(arm).bounds.get(name, UNBOUNDED)
    section, rest = section_of(name)
    if section == TRAINING:
        return (KEYS[rest].bounds if rest in KEYS else None) or UNBOUNDED
    argument = rest.rpartition(".")[2] if section else rest.partition(".")[0]
    return UNBOUNDED if section == TASK else evidence.optimizer_declares(arm).bounds.get(argument, UNBOUNDED)


def width(frame: pd.DataFrame, p: Parameter, sign: float) -> float | None:
    """Decades of the parameter over configurations within 5% of the best; None for a parameter without a logarithm."""
    name = of_parameter(p.name)
    if name not in frame or p.kind == "categorical" or (not p.log and not p.one_minus):
        return None
    whole = frame.dropna(subset=["value", name])
    if not len(whole):
        return None
    score = sign * whole["value"]
    best = score.groupby(whole["study"]).transform("max")
    near = whole[score >= best - NEAR * best.abs()][name].to_numpy(dtype=float)
    near = 1 - near if p.one_minus else near
    return float(np.log10(near.max() / near.min()))


@dataclass(frozen=True, kw_only=True)
class Search:
    """What the search of an arm shows, and what it cost."""

    configurations: int
    best_tune: float | None
    """Mean over studies."""
    optimism: float | None
    """In the metric's units; None before there are confirm trials."""
    tunability: Mapping[str, float] | None
    """None: too little was drawn at random to tell."""
    widths: Mapping[str, float]
    """Parameter -> decades."""
    edges: Sequence[Edge]
    diverged: int
    pruned: int
    failed: int
    trials: int
    """Of both stages, as the numbers before and after."""
    grad_evals: float
    seconds: float


def summary(evidence: Evidence) -> dict[str, Search]:
    """Arm -> summary of its search."""
    found: dict[str, Search] = {}
    confirmed, allowed = evidence.confirmed(evidence.tuned), expected_curves(evidence)[0]
    for arm in evidence.arms:
        frame = evidence.configurations[arm]
        best = _best(frame, evidence.sign)
        means = float(np.mean(confirmed[arm])) if arm in confirmed else None
        random, most = random_values(evidence, arm), most_random(evidence, arm)
        rows = evidence.trials[evidence.trials["arm"] == arm]
        found[arm] = Search(
            configurations=len(frame),
            best_tune=best,
            optimism=None if best is None or means is None else means - best,
            tunability=tunability(expected_best(random, evidence.goal)[:most]) if arm in allowed else None,
            widths={
                p.name: w for p in evidence.tuned_parameters(arm) if (w := width(frame, p, evidence.sign)) is not None
            },
            edges=edges(evidence, arm),
            diverged=int((rows["state"] == State.DIVERGED).sum()),
            pruned=int((rows["state"] == State.PRUNED).sum()),
            failed=int((rows["state"] == State.FAILED).sum()),
            trials=len(rows),
            grad_evals=float(rows["grad_evals"].sum()),
            seconds=float(rows["seconds"].sum()),
        )
    return found


def _best(frame: pd.DataFrame, sign: float) -> float | None:
    """The best value of a search, averaged over studies."""
    values = frame.dropna(subset=["value"]) if len(frame) else frame
    if not len(values):
        return None
    return float((sign * values["value"]).groupby(values["study"]).max().mean() * sign)


@dataclass(frozen=True, kw_only=True)
class Kills:
    """Trials of an arm that were stopped early."""

    arm: str
    pruned: int
    audited: int
    """How many of them were finished all the same."""
    false: int
    """How many of these would have beaten the best of their study."""
    low: float
    high: float
    """Of their share, with 95% confidence."""


def kills(evidence: Evidence) -> list[Kills]:
    """Stopped trials that were finished for the audit: how many would have beaten the best of their study (Wilson
    interval).
    """
    found = []
    for arm in evidence.arms:
        frame = evidence.configurations[arm]
        stopped = [(t.job.study, t.result.stopped) for t in evidence.records if t.job.arm == arm and t.result.stopped]
        ends = [(study, stop.audit_value) for study, stop in stopped if stop.audit_value is not None]
        if not stopped:
            continue
        best = dict((evidence.sign * frame["value"]).groupby(frame["study"]).max()) if len(frame) else {}
        false = sum(evidence.sign * value > best.get(study, math.nan) for study, value in ends)
        low, high = _wilson(int(false), len(ends)) if ends else (0.0, 1.0)
        found.append(Kills(arm=arm, pruned=len(stopped), audited=len(ends), false=int(false), low=low, high=high))
    return found


def _wilson(count: int, of: int) -> tuple[float, float]:
    from statsmodels.stats.proportion import (
        proportion_confint,
    )  # takes half a second; needed only where trials were stopped

    low, high = proportion_confint(count, of, method="wilson")
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """The ranking of an arm's trials after a share of the budget, as means over its studies."""

    arm: str
    share: float
    trials: float
    """Per study."""
    tau: float
    """With the final ranking; nan: undefined."""
    winner_stood: float
    """The place of the final winner, from 1."""
    survived: int
    """Studies in which the winner would not have been stopped."""
    studies: int


def rungs(evidence: Evidence, eta: int = 3) -> list[Rung]:
    """Would stopping early have been safe? One row per arm and share of the budget, over trials that ran to the end.

    Means over several studies; `survived` counts the studies whose winner would not have been stopped.
    """
    found: list[Rung] = []
    allowed: dict[Any, float] = {trial.trial_id: trial.job.budget for trial in evidence.records}
    budget = 1.0
    curves = evidence.curves
    curves = curves[
        (curves["stage"] == Stage.TUNE) & (curves["name"] == evidence.tuned) & (curves["state"] == State.COMPLETE)
    ]
    if curves.empty:
        return found
    if evidence.imported:  # whose steps may not be in the unit of the runs' cost
        allowed = curves.groupby("trial_id")["step"].max().to_dict()
    curves = curves.assign(step=(curves["step"] / curves["trial_id"].map(allowed)).round(9))  # as shares of the budget
    for arm in evidence.arms:
        studies = [_aligned(points) for _, points in curves[curves["arm"] == arm].groupby("study")]
        studies = [table for table in studies if len(table) >= FEWEST]
        for share in RUNGS:
            seen = [one for table in studies if (one := _rung(table, evidence.sign, share * budget, eta)) is not None]
            if seen:
                trials, taus, places, survives = zip(*seen, strict=True)
                rung = Rung(
                    arm=arm,
                    share=share,
                    trials=float(np.mean(trials)),
                    tau=float(np.mean(taus)),
                    winner_stood=float(np.mean(places)),
                    survived=sum(survives),
                    studies=len(seen),
                )
                found.append(rung)
    return found


def _aligned(points: pd.DataFrame) -> pd.DataFrame:
    """Values [trial, step] of a study's trials; a missing value repeats the previous one."""
    return points.pivot_table(index="trial_id", columns="step", values="value").ffill(axis=1)


def _rung(table: pd.DataFrame, sign: float, cost: float, eta: int) -> tuple[int, float, int, bool] | None:
    """Of one study after `cost` gradient evaluations: its trials, tau, the winner's place, and whether it survives.

    None if no trial was evaluated by then.
    """
    before = [s for s in table.columns if float(s) <= cost + 1e-9]
    if not before:
        return None
    then, final = sign * table[before[-1]].fillna(-math.inf), sign * table.iloc[:, -1]
    place = int((then > float(then.iloc[int(final.to_numpy().argmax())])).sum()) + 1
    tau = kendall(then.to_numpy(dtype=float), final.to_numpy(dtype=float))
    return len(table), tau, place, place <= max(1, len(table) // eta)
