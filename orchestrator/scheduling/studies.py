"""The arms of a sweep with their studies, as the storage holds them, and what earlier sweeps teach them."""

from __future__ import annotations

from collections.abc import Mapping

import optim_core
from orchestrator import results
from orchestrator.definition import plan as planning
from orchestrator.definition.model import ArmSpec, Spec, definition
from orchestrator.scheduling.arm import Arm
from orchestrator.scheduling.population import Population, Space
from orchestrator.scheduling.stopping import Stopper
from orchestrator.search.designs import design_for
from orchestrator.search.optuna import OptunaStudy, stable_seed, storage
from orchestrator.storage.errors import NotFound
from orchestrator.storage.folder import SweepFolder, find, read_json

MODELS = ("tpe", "gp", "cmaes")


def open_arms(spec: Spec, folder: SweepFolder, url: str | None = None) -> dict[str, Arm]:
    """One study for each arm on the sweep's storage, with what it already holds."""
    kept = storage(folder.journal, url)
    arms: dict[str, Arm] = {}
    for name, arm in spec.arms.items():
        design = design_for(spec, arm)
        trials = planning.configurations(spec, arm)
        share = spec.method.random_share if spec.method.name in MODELS else 1.0
        study = OptunaStudy(
            kept,
            name=f"{folder.sweep_id}/{name}",
            goals=(spec.metric.goal, *(o.goal for o in spec.objectives)),
            parameters=arm.parameters,
            constraints=spec.constraints,
            facts=planning.facts(spec, arm),
            design=design,
            design_size=round(share * trials),
            seed=stable_seed(spec.method.seed, name),
            sampler=spec.method.name,
        )
        planned = trials * len(spec.seeds.tune) + len(spec.seeds.confirm)
        strict = spec.method.replay == "strict"
        rule = spec.early_terminate
        arms[name] = Arm(
            spec=arm,
            study=study,
            trials=trials,
            planned=planned,
            lag=spec.method.lag if strict and rule.type != "pbt" else None,  # a population is in order by itself
            stopper=Stopper(rule, goal=spec.metric.goal, strict=strict) if rule.rungs and rule.type != "pbt" else None,
            population=_population(spec, arm, study) if rule.type == "pbt" else None,
        )
    return arms


def space_of(spec: Spec, arm: ArmSpec) -> Space:
    """What children in an arm's population may change."""
    return Space(
        parameters=arm.parameters,
        changeable=optim_core.changeable(arm.optimizer),
        constraints=spec.constraints,
        facts=planning.facts(spec, arm),
    )


def _population(spec: Spec, arm: ArmSpec, study: OptunaStudy) -> Population:
    return Population(
        spec.early_terminate,
        space_of(spec, arm),
        seed=f"{spec.method.seed}/{arm.name}",
        goal=spec.metric.goal,
        decided=study.decided(),
    )


def learn(spec: Spec, folder: SweepFolder, arms: Mapping[str, Arm]) -> None:
    """Begin the search with what the sweeps of `warm_start` found in arms of the same name and optimizer.

    Raises NotFound for one that is not under the root, or that trained another task or metric.
    """
    for name in spec.warm_start:
        try:
            source = find(folder.root, name)
        except NotFound as error:
            raise NotFound(f"{spec.source}: warm_start: {error}") from None
        asked = (read_json(source.path / "resolved.json") or {})["definition"]
        mine = definition(spec)
        for key in ("task", "metric"):
            if asked[key] != mine[key]:
                raise NotFound(
                    f"{spec.source}: warm_start: {source.sweep_id} has another {key} ({asked[key]}); "
                    "name a sweep of the same task and metric, or remove it"
                )
        told = results.told_values(source, [spec.metric.name, *(o.name for o in spec.objectives)])
        for arm in arms.values():
            if asked["arms"].get(arm.spec.name, {}).get("optimizer") == arm.spec.optimizer:
                arm.study.learn(source.sweep_id, told.get(arm.spec.name, []))
