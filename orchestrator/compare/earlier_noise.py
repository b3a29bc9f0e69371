"""How much paired differences scatter, as far as earlier sweeps of a task tell: what a plan needs to know.

It comes from the first of these that there is, and what it takes for granted is said:

1. sweeps of the same task and budget under the root with several studies, of as many configurations and tune seeds,
2. such sweeps with another search, a pilot of three studies for instance,
3. sweeps of one study: they show what training seeds do, and the search is assumed to scatter as much.

s_between^2 = s_within^2 is the order that a small network on digits shows: 0.6 to 1.1 with 3 to 12 configurations of a
random search.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
ALIKE = "the search scatters as much as training seeds do"
PILOT = 3
"""Studies up to which an estimate is called rough."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How much differences between two arms scatter."""

    components: Components
    source: str
    """Sweeps that it was measured in, or `given`."""
    assumed: str = ""
    """What it takes for granted, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Differences that an earlier sweep of the task measured."""

    sweep_id: str
    search: Search
    differences: list[list[Array]]
    """[pairs of arms][studies][confirm seeds]."""

    @property
    def studies(self) -> int:
        """Studies of its arms."""
        return max(map(len, self.differences))


def measured(found: Sequence[Earlier], search: Search) -> Noise | None:
    """What earlier sweeps say of such a search, or None when there are none."""
    several = [e for e in found if e.studies > 1]
    alike = [e for e in several if e.search == search]
    if chosen := alike or several:
        groups = [pair for e in chosen for pair in e.differences]
        assumed = []
        if not alike:
            assumed.append(
                f"{_words(search)} scatters as {' and '.join(sorted({_words(e.search) for e in chosen}))} did"
            )
        parts = studies.pooled(groups)
        if parts is None:
            freedom = [len(g) - 1 for g in groups]
            all_of_it = float(np.average([studies.variance_of_studies(g) for g in groups], weights=freedom))
            parts = Components(within=0.0, between=all_of_it)
            assumed.append("all noise is the search's: those studies had one confirm seed each")
        if (most := max(e.studies for e in chosen)) <= PILOT:
            assumed.append(f"{most} studies are enough for a rough guess")
        return Noise(components=parts, source=_names(chosen), assumed="; ".join(assumed))
    seeds = of_seeds(found)
    return None if seeds is None else replace(seeds, assumed=ALIKE)


def of_seeds(found: Sequence[Earlier]) -> Noise | None:
    """What they say of training seeds alone; the search is put down as much again. None when they say nothing."""
    inner = studies.within([pair for e in found for pair in e.differences])
    if inner is None:
        return None
    return Noise(components=Components(within=inner, between=inner), source=_names(found))


def earlier(spec: Spec, root: Path) -> list[Earlier]:
    """What the sweeps of this task and budget under the root measured."""
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
            found.append(Earlier(sweep_id=folder.sweep_id, search=_searched(one), differences=differences))
    return found


def _differences(trials: pd.DataFrame, metric: str) -> list[list[Array]]:
    """[pairs of arms][studies][confirm seeds] of what both arms have; of one study with three seeds or more."""
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
    """Configurations and tune seeds of one study of an earlier sweep, whatever version planned it."""
    seeds = one.definition["seeds"]
    most = max(row["trials"] for row in one.resolved["plan"]["arms"].values())
    return (most - len(seeds["confirm"])) // len(seeds["tune"]), len(seeds["tune"]) // seeds.get("studies", 1)


def _names(found: Sequence[Earlier]) -> str:
    return ", ".join(e.sweep_id for e in found)


def _words(search: Search) -> str:
    n, t = search
    return f"a search of {n} configurations on {t} tune seed{'s' if t > 1 else ''}"
