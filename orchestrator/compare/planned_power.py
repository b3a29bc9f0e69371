"""Power of the design in a sweep file: can it detect an effect of a given size, and which design would do better?

A unit is a study, or a confirm seed with one study per arm. The spread of the paired differences is given, or measured
in earlier sweeps (see `earlier_noise`); without either, effects are in units of that spread.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from orchestrator.compare.earlier_noise import ALIKE, Noise, Search, earlier, measured, of_seeds
from orchestrator.definition import plan as planning
from orchestrator.definition.model import Spec, comparisons
from orchestrator.statistics import power, studies
from orchestrator.statistics.sentences import STUDIES
from orchestrator.statistics.significance import floor_of_seeds
from orchestrator.statistics.studies import Components, Design

UNIT_NOISE = Components(within=1.0, between=1.0)


def planned(spec: Spec) -> Design:
    """The design of the sweep; the largest arm's, since the arms of a grid may differ in size."""
    seeds = spec.seeds
    return Design(
        studies=seeds.studies,
        configurations=max(planning.configurations(spec, arm) for arm in spec.arms.values()),
        tune=len(seeds.tune) // seeds.studies,
        confirm=len(seeds.confirm) // seeds.studies,
    )


def design(spec: Spec, *, effect: float, root: Path, sd: float | None = None) -> dict[str, Any]:
    """The `power` part of a plan. `effect` and `sd` (the spread of a unit) are in units of the reported metric, above
    0.
    """
    mine, k, alpha = planned(spec), max(1, comparisons(spec)), spec.analysis.first_level
    several = mine.studies > 1
    n, unit = (mine.studies, "studies") if several else (mine.confirm, "seeds")
    if sd is not None:
        noise: Noise | None = _given(sd, mine)
    else:
        found = earlier(spec, root)
        noise = measured(found, _search(mine)) if several else of_seeds(found)
    spread = None if noise is None else math.sqrt(_of_a_unit(noise.components, mine))
    known = None if spread is None else effect / spread if spread else power.LARGEST
    reach, floor = power.detectable(n, k, alpha), floor_of_seeds(k, alpha)
    document = {
        "metric": spec.report_metric,
        "effect": effect,
        "unit": "study" if several else "seed",
        unit: n,
        "comparisons": k,
        "floor": floor,
        "design": {**asdict(mine), "trials": mine.trials},
        "sd": spread,
        **_from(noise),
        "components": _components(noise, mine) if several else None,
        "power": None if known is None else power.power(known, n, k, alpha),
        f"{unit}_needed": None if known is None else power.seeds_needed(known, k, alpha),
        "detectable_sd": reach,
        "detectable": None if reach is None or spread is None else reach * spread,
    }
    if not several:
        wanted = max(STUDIES, floor)
        document["for_methods"] = {"studies": wanted, "more_trials": (wanted - 1) * mine.trials}
    return document


def best(spec: Spec, total: int, *, effect: float | None, root: Path, sd: float | None = None) -> dict[str, Any]:
    """The `best_design` part of a plan: the best use of `total` trials per arm.

    N and t belong to the question, because 'tuned with N trials' is part of the verdict: they are taken from the file,
    or from an earlier sweep of the task that measured the variance of such a search.
    """
    mine, k, alpha = planned(spec), max(1, comparisons(spec)), spec.analysis.first_level
    found = [] if sd is not None else earlier(spec, root)
    noise = replace(_given(sd, mine), assumed=ALIKE) if sd is not None else measured(found, _search(mine))
    offered = {_search(mine): noise or Noise(components=UNIT_NOISE, source="", assumed=ALIKE)}
    same = [e for e in found if e.studies > 1 and e.same_spaces]
    offered |= {e.search: one for e in same if (one := measured(same, e.search))}
    these = {search: one.components for search, one in offered.items()}
    chosen = studies.best_design(total, these, comparisons=k, alpha=alpha)
    document = {"metric": spec.report_metric, "total_trials": total, "comparisons": k, "effect": effect}
    if chosen is None:
        least = min(n * t for n, t in offered) + 1
        return {**document, "design": None, "least_trials": floor_of_seeds(k, alpha) * least}
    mine_noise, scale = offered[_search(chosen)], noise is not None
    reach = power.detectable(chosen.studies, k, alpha)
    assert reach is not None
    reach *= math.sqrt(mine_noise.components.variance(chosen.confirm))
    likely = None
    if effect is not None and scale:
        likely = studies.power_of(chosen, effect, mine_noise.components, comparisons=k, alpha=alpha)
    return {
        **document,
        "design": {**asdict(chosen), "trials": chosen.trials},
        "searches": [{"configurations": n, "tune": t} for n, t in offered],
        **_from(mine_noise),
        "components": _components(mine_noise, chosen) if scale else None,
        "power": likely,
        "detectable": reach if scale else None,
        "detectable_sd": None if scale else reach,
    }


def _given(sd: float, mine: Design) -> Noise:
    """The noise of a unit of known spread; for a study, search and seeds in equal parts."""
    several = mine.studies > 1
    inner = sd**2 / UNIT_NOISE.variance(mine.confirm) if several else sd**2
    return Noise(components=Components(within=inner, between=inner), source="given", assumed=ALIKE if several else "")


def _of_a_unit(parts: Components, mine: Design) -> float:
    """The variance of a study's difference, or of a seed's if there is only one study."""
    return parts.variance(mine.confirm) if mine.studies > 1 else parts.within


def _from(noise: Noise | None) -> dict[str, str]:
    if noise is None:
        return {"sd_from": "no earlier sweep of this task", "assumed": ""}
    return {"sd_from": noise.source or "no earlier sweep of this task", "assumed": noise.assumed}


def _components(noise: Noise | None, of: Design) -> dict[str, float] | None:
    if noise is None:
        return None
    return {**asdict(noise.components), "share_of_search": noise.components.share_of_search(of.confirm)}


def _search(of: Design) -> Search:
    return of.configurations, of.tune
