"""Enlarging a sweep: more studies, more configurations in each, more confirm seeds. What exists stays as it was.

New studies and seeds get the seeds that follow those in use, so none of these changes; in the usual layout they are
those of a sweep planned this large from the start. A sweep that cannot be enlarged says why.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from orchestrator.definition.model import SeedsSpec, Spec
from orchestrator.definition.resolve import CONFIRM_FROM, LARGEST_SEED


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What is added."""

    studies: int = 0
    """For each arm."""
    trials: int = 0
    """Configurations of each study."""
    seeds: int = 0
    """Confirm seeds of each study."""

    def __str__(self) -> str:
        found = [_count(self.studies, "study", "studies")] if self.studies else []
        found += [f"{_count(self.trials, 'configuration', 'configurations')} per study"] if self.trials else []
        found += [f"{_count(self.seeds, 'confirm seed', 'confirm seeds')} per study"] if self.seeds else []
        return ", ".join(found)


def _count(n: int, one: str, several: str) -> str:
    return f"{n} {one if n == 1 else several}"


def extended(spec: Spec, more: Extension) -> Spec:
    """The larger sweep. Raises ValueError if it cannot be enlarged like this."""
    if spec.racing is not None:
        raise ValueError("its race planned all its looks for its present size; give a larger sweep another name")
    seeds, budget = spec.seeds, spec.budget
    if more.trials:
        if spec.method.name == "grid" or budget.trials_per_arm is None:
            raise ValueError("a grid's points are fixed; change its values in a sweep of another name")
        if spec.early_terminate.type == "pbt":
            raise ValueError("a population is drawn all at once; give a larger sweep another name")
        first = budget.first_trials or budget.trials_per_arm
        budget = replace(budget, trials_per_arm=budget.trials_per_arm + more.trials, first_trials=first)
    if more.seeds:
        seeds = _more_seeds(seeds, more.seeds)
    if more.studies:
        seeds = _more_studies(seeds, more.studies)
    if max((*seeds.tune, *seeds.confirm)) >= LARGEST_SEED:
        raise ValueError("its seeds are so large that there are none left above them")
    return replace(spec, seeds=seeds, budget=budget)


def _more_seeds(seeds: SeedsSpec, count: int) -> SeedsSpec:
    """`count` more confirm seeds for each study, after those it has."""
    start = max(seeds.confirm) + 1 if seeds.confirm else max(CONFIRM_FROM, max(seeds.tune) + 1)
    new = _fresh(start, count * seeds.studies, seeds.tune)
    found: list[int] = []
    for study in range(1, seeds.studies + 1):
        found += [*seeds.confirm_of(study), *new[(study - 1) * count : study * count]]
    return replace(seeds, confirm=tuple(found))


def _more_studies(seeds: SeedsSpec, count: int) -> SeedsSpec:
    """`count` more studies, each with as many seeds as the earlier ones."""
    if not seeds.confirm:
        raise ValueError("studies are compared on confirm seeds, and it has none; add --seeds +2")
    tune = _fresh(max(seeds.tune) + 1, count * len(seeds.tune_of(1)), seeds.confirm)
    confirm = _fresh(max(seeds.confirm) + 1, count * len(seeds.confirm_of(1)), (*seeds.tune, *tune))
    return SeedsSpec(
        tune=(*seeds.tune, *tune),
        confirm=(*seeds.confirm, *confirm),
        studies=seeds.studies + count,
        first_is_unnumbered=seeds.first_is_unnumbered or seeds.studies == 1,
    )


def _fresh(start: int, count: int, used: Collection[int]) -> tuple[int, ...]:
    """The first `count` numbers from `start` on that are not used."""
    taken, found, seed = set(used), list[int](), start
    while len(found) < count:
        if seed not in taken:
            found.append(seed)
        seed += 1
    return tuple(found)
