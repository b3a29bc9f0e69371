"""Where the noise of a comparison comes from, and how best to reduce it.

Study r of R draws its own search and trains the chosen configuration on m confirm seeds; d_rj is the difference of two
arms on confirm seed j of study r, D_r its mean over j. In the one-way random-effects model (Searle et al. 1992)

    d_rj = delta + b_r + e_rj,   var b = s_between^2 (the search),   var e = s_within^2 (the training seed)

    s_within^2  = sum_rj (d_rj - D_r)^2 / sum_r (m_r - 1)
    s_between^2 = max(0, var(D_r) - s_within^2 / m)            m is the harmonic mean of the m_r
    share       = s_between^2 / (s_between^2 + s_within^2 / m)

A study of N configurations on t tune seeds and m confirm seeds costs N t + m trials. With a total of B trials per arm
the mean over its B / (N t + m) studies has the variance (s_between^2 + s_within^2 / m) (N t + m) / B, which is smallest
at

    m* = sqrt(N t s_within^2 / s_between^2)

The components are those of the search with which they were measured: a search of more configurations, or with more tune
seeds, is assumed to vary as much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchestrator.statistics import power
from orchestrator.statistics.intervals import Array, all_equal, mean_interval
from orchestrator.statistics.significance import floor_of_seeds, sign_flip, standard_deviation

MOST_CONFIRM = 200
Way = Literal["studies", "confirm"]


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variances of one confirm seed's difference, in the metric's units squared."""

    within: float
    """Of training seeds around their study's mean."""
    between: float
    """Of studies' means: the search."""

    def variance(self, confirm: float) -> float:
        """Variance of the mean of one study with this many confirm seeds."""
        return self.between + self.within / confirm

    def share_of_search(self, confirm: float) -> float:
        """Part of that variance that more confirm seeds cannot remove, in [0, 1]; 0 if there is no variance."""
        return self.between / self.variance(confirm) if self.variance(confirm) else 0.0

    def best_confirm(self, search_trials: float) -> float:
        """m* for a search of N t = `search_trials` trials; infinite when the search adds no noise."""
        return math.sqrt(search_trials * self.within / self.between) if self.between else math.inf


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The difference between two arms over R studies."""

    studies: int
    difference: float
    interval: tuple[float, float]
    p: float
    """Of the exact sign-flip test."""
    confirm: float
    """Confirm seeds per study; the harmonic mean where studies differ."""
    components: Components | None
    """None if no study has two confirm seeds."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """`studies` searches per arm, each of `configurations` on `tune` seeds, with the choice trained on `confirm` fresh
    seeds.
    """

    studies: int
    configurations: int
    tune: int
    confirm: int

    @property
    def trials(self) -> int:
        """Trials per arm."""
        return self.studies * (self.configurations * self.tune + self.confirm)


@dataclass(frozen=True, kw_only=True)
class Settling:
    """What would settle a comparison, taking the differences seen so far at face value."""

    studies: int | None
    """Further studies; None if no number would do."""
    confirm: int | None
    """Total confirm seeds per study, for the same studies; None if no number would do or if it is unknown."""
    trials: int | None
    """Further trials per arm needed by the cheaper way; None if the cost of a study is unknown."""
    cheapest: Way | None


def study_means(differences: Sequence[Array]) -> Array:
    """D_r, from differences [R][m_r]."""
    return np.array([float(np.mean(d)) for d in differences])


def harmonic_confirm(differences: Sequence[Array]) -> float:
    """Harmonic mean of the numbers of confirm seeds."""
    return len(differences) / sum(1 / len(d) for d in differences)


def components(differences: Sequence[Array]) -> Components | None:
    """s_within^2 and s_between^2 of differences [R][m_r]; None below two studies or without a second confirm seed.

    Unweighted means, which are unbiased for any m_r before s_between^2 is clipped at 0.
    """
    return pooled([differences])


def pooled(groups: Sequence[Sequence[Array]]) -> Components | None:
    """The components shared by comparisons [groups][R_g][m_r]: each variance is weighted by its degrees of freedom.

    A group of one study contributes to s_within^2 only. None if no group has two studies, or no study a second seed.
    """
    several, inner = [group for group in groups if len(group) > 1], within(groups)
    if not several or inner is None:
        return None
    excess = [variance_of_studies(group) - inner / harmonic_confirm(group) for group in several]
    return Components(within=inner, between=max(0.0, float(np.average(excess, weights=[len(g) - 1 for g in several]))))


def within(groups: Sequence[Sequence[Array]]) -> float | None:
    """s_within^2 shared by comparisons [groups][R_g][m_r]; None if no study has a second seed."""
    studies = [d for group in groups for d in group]
    freedom = sum(len(d) - 1 for d in studies)
    return sum(float(((d - d.mean()) ** 2).sum()) for d in studies) / freedom if freedom else None


def variance_of_studies(differences: Sequence[Array]) -> float:
    """var(D_r) of two or more studies: search and training seeds combined."""
    return standard_deviation(study_means(differences)) ** 2


def estimate(differences: Sequence[Array], alpha: float = 0.05) -> Estimate:
    """The difference, its 1 - alpha interval and its components from differences [R][m_r], R >= 2."""
    means = study_means(differences)
    return Estimate(
        studies=len(means),
        difference=float(means.mean()),
        interval=mean_interval(means, 1 - alpha),
        p=sign_flip(means),
        confirm=harmonic_confirm(differences),
        components=components(differences),
    )


def power_of(design: Design, effect: float, found: Components, *, comparisons: int = 1, alpha: float = 0.05) -> float:
    """Chance of a verdict on the methods, in [0, 1], for a true difference of `effect` in the metric's units.

    The noise of the search is included: effects are measured in standard deviations of a study's mean.
    """
    spread = math.sqrt(found.variance(design.confirm))
    standardised = effect / spread if spread else power.LARGEST
    return power.power(standardised, design.studies, comparisons, alpha)


def best_design(
    total: int,
    found: Mapping[tuple[int, int], Components],
    *,
    comparisons: int = 1,
    alpha: float = 0.05,
) -> Design | None:
    """The design of at most `total` trials per arm that detects the smallest difference with 80% power.

    `found` holds the components for each (configurations, tune seeds) that may be chosen; a caller who knows them for
    only one search and offers several assumes that they vary alike. None if no design can afford enough studies.
    """
    floor = floor_of_seeds(comparisons, alpha)
    best: tuple[float, int, Design] | None = None
    for (configurations, tune), these in found.items():
        for confirm in range(1, min(MOST_CONFIRM, total // floor - configurations * tune) + 1):
            studies = total // (configurations * tune + confirm)
            reach = power.detectable(studies, comparisons, alpha)
            if reach is None:
                continue
            design = Design(studies=studies, configurations=configurations, tune=tune, confirm=confirm)
            ranked = (reach * math.sqrt(these.variance(confirm)), -configurations, design)
            if best is None or ranked[:2] < best[:2]:
                best = ranked
    return best[2] if best else None


def cheapest(
    differences: Sequence[Array], search_trials: int | None, *, comparisons: int, alpha: float, margin: float
) -> Settling:
    """More studies, or more confirm seeds per study, whichever takes fewer trials.

    `search_trials` = N t, the cost of a study before its confirm trials; None if unknown.
    """
    means, confirm, found = study_means(differences), harmonic_confirm(differences), components(differences)
    in_all = power.seeds_to_settle(means, comparisons=comparisons, alpha=alpha, margin=margin)
    studies = None if in_all is None else in_all - len(means)
    more = None if found is None or all_equal(means) else _confirm(means, confirm, found, comparisons, alpha, margin)
    costs: dict[Way, int] = {}
    if studies is not None and search_trials is not None:
        costs["studies"] = studies * (search_trials + math.ceil(confirm))
    if more is not None:
        costs["confirm"] = sum(max(0, more - len(d)) for d in differences)
    if studies is not None and search_trials is None:
        return Settling(studies=studies, confirm=more, trials=None, cheapest="studies")
    if not costs:
        return Settling(studies=None, confirm=None, trials=None, cheapest=None)
    way = min(costs, key=lambda one: costs[one])
    return Settling(studies=studies, confirm=more, trials=costs[way], cheapest=way)


def _confirm(
    means: Array, confirm: float, found: Components, comparisons: int, alpha: float, margin: float
) -> int | None:
    """Confirm seeds per study that settle it with the existing studies."""
    rest = max(0.0, standard_deviation(means) ** 2 - found.within / confirm)
    mean = float(means.mean())

    def holds(m: int) -> bool:
        spread = math.sqrt(rest + found.within / m)
        return power.settles(mean, spread, len(means), comparisons=comparisons, alpha=alpha, margin=margin)

    return power.first(math.floor(confirm) + 1, MOST_CONFIRM, holds)
