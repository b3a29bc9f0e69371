"""From a configuration and a seed to the job for a worker."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orchestrator.definition import plan as planning
from orchestrator.definition import program
from orchestrator.definition.model import ArmSpec, Spec, definition
from orchestrator.definition.parts import Parts, groups_of, split
from orchestrator.definition.states import Stage
from orchestrator.search.base import Configuration
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.job import Job, Result
from orchestrator.trial.trial_id import TrialId


def job_of(
    spec: Spec,
    folder: SweepFolder,
    arm: ArmSpec,
    configuration: Configuration,
    seed: int,
    stage: Stage,
    until: int = 0,
    study: int | None = None,
) -> Job:
    """The trial of a configuration with a seed. `until`: see `Job`; `study`: number of the study if there are several,
    from 1.
    """
    trial_id = str(TrialId(arm.name, configuration.number, seed, study))
    tuning = stage is Stage.TUNE
    judged = tuning and seed == spec.seeds.tune_of(study or 1)[0] and spec.early_terminate.type != "pbt"
    child = tuning and bool(configuration.lineage)
    cached = spec.cache and not folder.far and not (tuning and spec.early_terminate.type == "pbt")
    budget = planning.grad_evals_of(spec, arm, configuration.parameters)
    given = configuration.parameters
    parts = Parts(optimizer=dict(given)) if spec.task.is_program else split(given)
    return Job(
        trial_id=trial_id,
        arm=arm.name,
        study=study or 1,
        stage=stage,
        configuration=configuration.number,
        seed=seed,
        optimizer=arm.optimizer,
        parameters=parts.optimizer,
        task=spec.task.name,
        task_parameters={**spec.task.parameters, **parts.task},
        budget=budget,
        evaluations=spec.evaluations,
        metric=spec.metric.name,
        goal=spec.metric.goal,
        select=spec.metric.select,
        folder=folder.address(trial_id),
        stop_file=f"{folder.place}/stop" if folder.far else str(folder.stop_file.resolve()),
        threads=spec.resources.cpu,
        processes=spec.resources.processes,
        gpu=spec.resources.gpu / spec.resources.processes,
        pack=spec.resources.pack,
        readers=spec.resources.readers,
        checkpoint_quota=spec.resources.checkpoints,
        checkpoint_s=spec.resources.checkpoint_every,
        diagnostics=spec.diagnostics.names,
        diagnose_every=spec.diagnostics.every,
        diagnose_batches=spec.diagnostics.batches,
        rungs=spec.early_terminate.rungs_of(configuration.number) if judged else (),
        cache=str(folder.cache.resolve()) if cached else "",
        lineage=configuration.lineage,
        inherited=budget * configuration.lineage[-1][0] / spec.evaluations if child else 0.0,
        until=until,
        training={**asdict(spec.training.recipe), **parts.training},
        ramps=parts.ramps,
        groups=groups_of(arm.groups, parts),
        point=configuration.parameters if parts.optimizer != configuration.parameters else {},
        step_timeout_s=spec.training.step_timeout,
        program=_program(spec),
    )


def _program(spec: Spec) -> dict[str, Any]:
    """What the worker needs to run a script, in addition to the sweep file's settings."""
    if not spec.task.is_program:
        return {}
    metrics = program.declared(definition(spec)).METRICS
    return {
        "folder": spec.task.folder,
        "unit": spec.budget.unit,
        "worst": metrics[spec.metric.name].worst,
    }


def objectives_of(spec: Spec, result: Result) -> tuple[float, ...] | None:
    """The tuned metric, then the other objectives; None if the trial failed."""
    if result.value is None:
        return None
    if any(o.name not in result.metrics for o in spec.objectives):
        return None  # a script did not report them
    return (result.value, *(result.metrics[o.name] for o in spec.objectives))
