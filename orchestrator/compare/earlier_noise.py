"""Estimate from earlier sweeps of a task how much paired differences vary, for planning.

The first of these sources that exists is used, and its assumptions are reported:

1. sweeps of the same task and budget under the root with several studies and the same search (configurations, seeds),
2. such sweeps with a different search, for example a pilot of three studies; both in the same spaces, if there are such
   sweeps: a search of one value varies less than one over decades,
3. sweeps of one study: they show the variance of training seeds, and the search is assumed to vary as much.

s_between^2 = s_within^2 is the order of magnitude seen for a small network on digits: 0.6 to 1.1 with random searches
of 3 to 12 configurations.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.compare.evidence import TRAINED, Evidence
from orchestrator.definition.model import Spec, definition
from orchestrator.definition.states import Stage
from orchestrator.statistics import studies
from orchestrator.statistics.intervals import Array
from orchestrator.statistics.studies import Components
from orchestrator.storage.folder import sweeps

Search = tuple[int, int]
"""(configurations, tune seeds) of one study."""
ALIKE = "the search varies as much as the training seeds"
PILOT = 3
"""An estimate from at most this many studies is called rough."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How much differences between two arms vary."""

    components: Components
    source: str
    """The sweeps it was measured in, or `given`."""
    assumed: str = ""
    """Its assumptions; empty if none."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Differences measured in an earlier sweep of the task."""

    sweep_id: str
    search: Search
    differences: list[list[Array]]
    """[pairs of arms][studies][confirm seeds]."""
    same_spaces: bool = True
    """Whether the arms that it shares with the planned sweep, two or more, searched the same spaces."""

    @property
    def studies(self) -> int:
        """Studies per arm."""
        return max(map(len, self.differences))


def measured(found: Sequence[Earlier], search: Search) -> Noise | None:
    """What earlier sweeps say about such a search; None when there are none."""
    several = [e for e in found if e.studies > 1]
    several = [e for e in several if e.same_spaces] or several
    alike = [e for e in several if e.search == search]
    if chosen := alike or several:
        groups = [pair for e in chosen for pair in e.differences]
        assumed = []
        if not alike:
            assumed.append(
                f"{_words(search)} varies as much as {' and '.join(sorted({_words(e.search) for e in chosen}))} did"
            )
        if not all(e.same_spaces for e in chosen):
            assumed.append("these spaces vary the search as much as the others did")
        parts = studies.pooled(groups)
        if parts is None:
            freedom = [len(g) - 1 for g in groups]
            all_of_it = float(np.average([studies.variance_of_studies(g) for g in groups], weights=freedom))
            parts = Components(within=0.0, between=all_of_it)
            assumed.append("all noise is attributed to the search: those studies had one confirm seed each")
        if (most := max(e.studies for e in chosen)) <= PILOT:
            assumed.append(f"{most} studies suffice for a rough guess")
        return Noise(components=parts, source=_names(chosen), assumed="; ".join(assumed))
    seeds = of_seeds(found)
    return None if seeds is None else replace(seeds, assumed=ALIKE)


def of_seeds(found: Sequence[Earlier]) -> Noise | None:
    """What they say about training seeds alone, with the search assumed to add as much again. None when they say
    nothing.
    """
    inner = studies.within([pair for e in found for pair in e.differences])
    if inner is None:
        return None
    return Noise(components=Components(within=inner, between=inner), source=_names(found))


def earlier(spec: Spec, root: Path) -> list[Earlier]:
    """What was measured in the sweeps of this task and budget under the root."""
    wanted = json.loads(json.dumps(definition(spec)))
    found = []
    for folder in sweeps(root):
        one = Evidence(folder)
        same = one.definition["task"] == wanted["task"]
        if not same or any(one.definition["budget"][key] != wanted["budget"][key] for key in ("unit", "per_trial")):
            continue
        folder.level()
        differences = _differences(one.trials, spec.report_metric)
        if differences:
            found.append(
                Earlier(
                    sweep_id=folder.sweep_id,
                    search=_searched(one),
                    differences=differences,
                    same_spaces=_same_spaces(one.definition["arms"], wanted["arms"]),
                )
            )
    return found


def _same_spaces(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> bool:
    both = theirs.keys() & mine.keys()
    return len(both) > 1 and all(theirs[arm] == mine[arm] for arm in both)


def _differences(trials: pd.DataFrame, metric: str) -> list[list[Array]]:
    """[pairs of arms][studies][confirm seeds] that both arms have; for one study, only with three seeds or more."""
    if metric not in trials:
        return []
    rows = trials[(trials["stage"] == Stage.CONFIRM) & trials["state"].isin(TRAINED) & trials[metric].notna()]
    values: dict[str, dict[int, dict[int, float]]] = {}
    for arm, study, seed, value in zip(rows["arm"], rows["study"], rows["seed"], rows[metric], strict=True):
        values.setdefault(str(arm), {}).setdefault(int(study), {})[int(seed)] = float(value)
    found = []
    for a, b in itertools.combinations(values.values(), 2):
        pair = [np.array([a[r][s] - b[r][s] for s in sorted(a[r].keys() & b[r].keys())]) for r in sorted(a.keys() & b)]
        pair = [d for d in pair if len(d)]
        if len(pair) > 1 or any(len(d) > 2 for d in pair):
            found.append(pair)
    return found


def _searched(one: Evidence) -> Search:
    """Configurations and tune seeds per study of an earlier sweep, whatever version planned it."""
    seeds = one.definition["seeds"]
    most = max(arm.trials for arm in one.resolved.plan.arms.values())
    return (most - len(seeds["confirm"])) // len(seeds["tune"]), len(seeds["tune"]) // seeds.get("studies", 1)


def _names(found: Sequence[Earlier]) -> str:
    return ", ".join(e.sweep_id for e in found)


def _words(search: Search) -> str:
    n, t = search
    return f"a search of {n} configurations on {t} tune seed{'s' if t > 1 else ''}"
