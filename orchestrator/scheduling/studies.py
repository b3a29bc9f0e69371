"""The arms of a sweep with their studies as stored, and what they learn from earlier sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optim_core
from orchestrator import results
from orchestrator.definition import plan as planning
from orchestrator.definition.method import DESIGNS
from orchestrator.definition.model import ArmSpec, Spec, definition
from orchestrator.scheduling.arm_study import ArmStudy, study_name
from orchestrator.scheduling.population import Population, Space
from orchestrator.scheduling.stopping import Stopper
from orchestrator.search.designs import design_for
from orchestrator.search.foreign import check as check_sampler
from orchestrator.search.foreign import maker
from orchestrator.search.optuna import OptunaStudy, stable_seed
from orchestrator.search.optuna_storage import delete_studies, storage
from orchestrator.storage.errors import NotFound
from orchestrator.storage.folder import SweepFolder, find

__all__ = ["check_sampler", "forget", "learn", "open_arms", "reopen", "space_of", "teachers"]


def open_arms(spec: Spec, folder: SweepFolder, url: str | None = None) -> dict[str, ArmStudy]:
    """The studies of all arms in the sweep's storage, by name, with their contents: study 1 of each arm first.

    They share nothing: each has its own sampler seed, its own seeds and its own study in the storage.
    """
    kept = storage(folder.journal, url)
    indices = [spec.seeds.index(study) for study in range(1, spec.seeds.studies + 1)]
    opened = (_open(spec, folder, kept, arm, index) for index in indices for arm in spec.arms.values())
    return {arm.name: arm for arm in opened}


def _open(spec: Spec, folder: SweepFolder, kept: Any, arm: ArmSpec, index: int | None) -> ArmStudy:
    name, trials = study_name(arm.name, index), planning.configurations(spec, arm)
    share = 1.0 if spec.method.name in DESIGNS else spec.method.random_share
    study = OptunaStudy(
        kept,
        name=f"{folder.sweep_id}/{name}",
        goals=(spec.metric.goal, *(o.goal for o in spec.objectives)),
        parameters=arm.parameters,
        constraints=spec.constraints,
        facts=planning.facts(spec, arm),
        design=design_for(spec, arm, index),
        design_size=round(share * (spec.budget.first_trials or trials)),
        seed=stable_seed(spec.method.seed, arm.name, *([] if index is None else [index])),
        sampler=spec.method.name,
        make=maker(spec.method),
    )
    tune, confirm = spec.seeds.tune_of(index or 1), spec.seeds.confirm_of(index or 1)
    strict, rule = spec.method.replay == "strict", spec.early_terminate
    return ArmStudy(
        spec=arm,
        study=study,
        trials=trials,
        each=planning.grad_evals_range(spec, arm)[1],
        tune=tune,
        confirm=confirm,
        index=index,
        planned=trials * len(tune) + len(confirm),
        lag=spec.method.lag if strict and rule.type != "pbt" else None,  # a population is ordered anyway
        stopper=Stopper(rule, goal=spec.metric.goal, strict=strict) if rule.rungs and rule.type != "pbt" else None,
        population=_population(spec, arm, study, name) if rule.type == "pbt" else None,
    )


def forget(url: str, sweep_id: str) -> int:
    """Delete the studies of a sweep from the database at `url`; returns how many there were."""
    return delete_studies(url, sweep_id)


def reopen(spec: Spec, folder: SweepFolder, url: str | None = None) -> None:
    """Let the searches of a sweep continue after they have chosen; the next driver chooses again."""
    for arm in open_arms(spec, folder, url).values():
        arm.study.reopen()


def space_of(spec: Spec, arm: ArmSpec) -> Space:
    """What children in an arm's population may change."""
    return Space(
        parameters=arm.parameters,
        changeable=optim_core.changeable(arm.optimizer) if arm.optimizer else frozenset(),
        constraints=spec.constraints,
        facts=planning.facts(spec, arm),
    )


def _population(spec: Spec, arm: ArmSpec, study: OptunaStudy, name: str) -> Population:
    return Population(
        spec.early_terminate,
        space_of(spec, arm),
        seed=f"{spec.method.seed}/{name}",
        goal=spec.metric.goal,
        decided=study.decided(),
    )


def teachers(spec: Spec, root: Path) -> list[SweepFolder]:
    """The sweeps of `warm_start` that the search can learn from.

    Raises NotFound for a sweep that is not under the root, that trained another task or metric, or that was imported
    and has no configuration of an arm of this sweep. The task of imported results is unknown; the user vouches for it.
    """
    found, mine = [], definition(spec)
    for name in spec.warm_start:
        try:
            source = find(root, name)
        except NotFound as error:
            raise NotFound(f"{spec.source}: warm_start: {error}") from None
        asked, imported = _asked(source)
        for key in ("metric",) if imported else ("task", "metric"):
            told = {part: asked[key].get(part) for part in ("name", "goal")} if imported else asked[key]
            if any(mine[key].get(part) != value for part, value in told.items()):
                raise NotFound(
                    f"{spec.source}: warm_start: {source.sweep_id} has a different {key} ({asked[key]}); "
                    "name a sweep of the same task and metric, or remove it"
                )
        if imported and spec.arms.keys().isdisjoint(asked["arms"]):
            raise NotFound(
                f"{spec.source}: warm_start: {source.sweep_id} was imported with arms {', '.join(asked['arms'])}, but "
                f"results are used only by arms of the same name; this sweep has {', '.join(spec.arms)}"
            )
        found.append(source)
    return found


def learn(spec: Spec, folder: SweepFolder, arms: Mapping[str, ArmStudy]) -> list[str]:
    """Start the search with what the sweeps of `warm_start` found in arms with the same name, optimizer and groups.

    For imported results the name is enough. No two studies learn the same: study r takes the other sweep's study r if
    that has as many, otherwise every R-th of its configurations. Returns notes on imported results, some of which may
    lie outside the space. Raises NotFound like `teachers`.
    """
    mine, said = definition(spec), []
    for source in teachers(spec, folder.root):
        asked, imported = _asked(source)
        constraints = spec.outcome_constraints
        metrics = [spec.metric.name, *(o.name for o in spec.objectives), *(c.metric for c in constraints)]
        told = results.told_values(source, metrics, every=imported)
        taken = there = 0
        for arm in arms.values():
            theirs, own = asked["arms"].get(arm.spec.name, {}), mine["arms"][arm.spec.name]
            if imported or all(theirs.get(key) == own.get(key) for key in ("optimizer", "groups")):
                lesson = _lesson(told, arm, spec.seeds.studies)
                last = 1 + len(spec.objectives)
                broken = [
                    {str(c): c.broken_by(v) for c, v in zip(constraints, found[last:], strict=True)}
                    for _, found in lesson
                ]
                there += len(lesson)
                taken += arm.study.learn(source.sweep_id, [(p, found[:last]) for p, found in lesson], broken)
        if imported:
            said.append(f"the search starts from {taken} of {there} imported configurations of {source.sweep_id}")
    return said


def _asked(source: SweepFolder) -> tuple[dict[str, Any], bool]:
    """The definition of a sweep, and whether it was imported."""
    resolved = source.resolved()
    return resolved.definition, resolved.imported is not None


def _lesson(told: Mapping[tuple[str, int], list[Any]], arm: ArmStudy, studies: int) -> list[Any]:
    """The part of an earlier sweep's configurations that one study learns from."""
    theirs = {study: found for (name, study), found in sorted(told.items()) if name == arm.spec.name}
    mine = arm.index or 1
    if len(theirs) == studies:
        return theirs.get(mine, [])
    return [one for found in theirs.values() for one in found][mine - 1 :: studies]
