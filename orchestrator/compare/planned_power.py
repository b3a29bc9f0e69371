"""Power of the design in a sweep file: can it detect an effect of a given size, and which design would do better?

A unit is a study, or a confirm seed with one study per arm. The spread of the paired differences is given, or measured
in earlier sweeps (see `earlier_noise`); without either, effects are in units of that spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.compare.earlier_noise import ALIKE, Noise, Search, earlier, measured, of_seeds
from orchestrator.definition import plan as planning
from orchestrator.definition.model import Spec, comparisons
from orchestrator.statistics import power, studies
from orchestrator.statistics.pairing import Unit
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


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Variances of one confirm seed's difference, in the metric's units squared."""

    within: float
    between: float
    share_of_search: float
    """Of a study's variance, that more confirm seeds cannot remove."""


@dataclass(frozen=True, kw_only=True)
class Power:
    """What the design of a sweep can detect."""

    metric: str
    effect: float
    """In units of the metric, as are `sd` and `detectable`."""
    unit: Unit
    n: int
    """Units per arm."""
    comparisons: int
    floor: int
    """Fewest units with which anything can be detected."""
    design: Design
    sd: float | None
    """Of a unit's difference; None: unknown."""
    sd_from: str
    assumed: str
    components: Shares | None
    """None: unknown, or there is one study."""
    power: float | None
    """To detect the effect; None: the spread is unknown."""
    needed: int | None
    """Units for 80% power; None: unknown, or more than is reasonable."""
    detectable_sd: float | None
    """What is detected with 80% power, in units of `sd`; None: nothing is."""
    detectable: float | None

    @property
    def units(self) -> str:
        """Studies or seeds."""
        return "studies" if self.unit == "study" else "seeds"

    @property
    def for_methods(self) -> dict[str, int] | None:
        """Of one study: how many of them a verdict on methods takes, and trials per arm beyond the design's."""
        wanted = max(STUDIES, self.floor)
        return None if self.unit == "study" else {"studies": wanted, "more_trials": (wanted - 1) * self.design.trials}

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = {self.units if name == "n" else name: value for name, value in asdict(self).items()}
        found = {f"{self.units}_needed" if name == "needed" else name: value for name, value in found.items()}
        found["design"]["trials"] = self.design.trials
        return {**found, **({"for_methods": self.for_methods} if self.for_methods else {})}


@dataclass(frozen=True, kw_only=True)
class BestUse:
    """The design that makes the best use of a number of trials."""

    metric: str
    total_trials: int
    """Per arm."""
    comparisons: int
    effect: float | None
    design: Design | None
    """None: there are too few trials for a verdict on methods."""
    least_trials: int | None = None
    """How many it takes, in that case."""
    searches: Sequence[Search] = ()
    """That could be chosen from: the file's, and those of known variance."""
    sd_from: str = ""
    assumed: str = ""
    components: Shares | None = None
    power: float | None = None
    detectable: float | None = None
    """With 80% power, in units of the metric; None: the spread is unknown."""
    detectable_sd: float | None = None
    """Then, in units of the spread of one confirm seed's difference."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        if self.design is None:
            known = ("metric", "total_trials", "comparisons", "effect", "design", "least_trials")
            return {name: found[name] for name in known}
        del found["least_trials"]
        found["design"]["trials"] = self.design.trials
        return {**found, "searches": [{"configurations": n, "tune": t} for n, t in self.searches]}


def design(spec: Spec, *, effect: float, root: Path, sd: float | None = None) -> Power:
    """The power of the sweep's design. `effect` and `sd` (the spread of a unit) are in units of the reported metric,
    above 0.
    """
    mine, k, alpha = planned(spec), max(1, comparisons(spec)), spec.analysis.first_level
    several = mine.studies > 1
    n = mine.studies if several else mine.confirm
    if sd is not None:
        noise: Noise | None = _given(sd, mine)
    else:
        found = earlier(spec, root)
        noise = measured(found, _search(mine)) if several else of_seeds(found)
    spread = None if noise is None else math.sqrt(_of_a_unit(noise.components, mine))
    known = None if spread is None else effect / spread if spread else power.LARGEST
    reach = power.detectable(n, k, alpha)
    return Power(
        metric=spec.report_metric,
        effect=effect,
        unit="study" if several else "seed",
        n=n,
        comparisons=k,
        floor=floor_of_seeds(k, alpha),
        design=mine,
        sd=spread,
        sd_from=_from(noise),
        assumed=noise.assumed if noise else "",
        components=_shares(noise, mine) if noise and several else None,
        power=None if known is None else power.power(known, n, k, alpha),
        needed=None if known is None else power.seeds_needed(known, k, alpha),
        detectable_sd=reach,
        detectable=None if reach is None or spread is None else reach * spread,
    )


def best(spec: Spec, total: int, *, effect: float | None, root: Path, sd: float | None = None) -> BestUse:
    """The best use of `total` trials per arm.

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
    asked = BestUse(metric=spec.report_metric, total_trials=total, comparisons=k, effect=effect, design=chosen)
    if chosen is None:
        least = min(n * t for n, t in offered) + 1
        return replace(asked, least_trials=floor_of_seeds(k, alpha) * least)
    mine_noise, scale = offered[_search(chosen)], noise is not None
    reach = power.detectable(chosen.studies, k, alpha)
    assert reach is not None
    reach *= math.sqrt(mine_noise.components.variance(chosen.confirm))
    likely = None
    if effect is not None and scale:
        likely = studies.power_of(chosen, effect, mine_noise.components, comparisons=k, alpha=alpha)
    return replace(
        asked,
        searches=list(offered),
        sd_from=_from(mine_noise),
        assumed=mine_noise.assumed,
        components=_shares(mine_noise, chosen) if scale else None,
        power=likely,
        detectable=reach if scale else None,
        detectable_sd=None if scale else reach,
    )


def _given(sd: float, mine: Design) -> Noise:
    """The noise of a unit of known spread; for a study, search and seeds in equal parts."""
    several = mine.studies > 1
    inner = sd**2 / UNIT_NOISE.variance(mine.confirm) if several else sd**2
    return Noise(components=Components(within=inner, between=inner), source="given", assumed=ALIKE if several else "")


def _of_a_unit(parts: Components, mine: Design) -> float:
    """The variance of a study's difference, or of a seed's if there is only one study."""
    return parts.variance(mine.confirm) if mine.studies > 1 else parts.within


def _from(noise: Noise | None) -> str:
    return noise.source if noise and noise.source else "no earlier sweep of this task"


def _shares(noise: Noise, of: Design) -> Shares:
    parts = noise.components
    return Shares(**asdict(parts), share_of_search=parts.share_of_search(of.confirm))


def _search(of: Design) -> Search:
    return of.configurations, of.tune
