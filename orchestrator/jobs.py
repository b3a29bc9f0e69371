"""From a configuration and a seed to the job that a worker is handed."""

from __future__ import annotations

from orchestrator.folder import SweepFolder
from orchestrator.job import Job
from orchestrator.search.base import Configuration
from orchestrator.spec import ArmSpec, Spec


def job_of(spec: Spec, folder: SweepFolder, arm: ArmSpec, configuration: Configuration, seed: int, stage: str) -> Job:
    """The trial of a configuration with a seed; `stage` is tune or confirm."""
    trial_id = f"{arm.name}-{configuration.number:04d}-s{seed}"
    judged = stage == "tune" and seed == spec.seeds.tune[0]
    return Job(
        trial_id=trial_id,
        arm=arm.name,
        stage=stage,
        configuration=configuration.number,
        seed=seed,
        optimizer=arm.optimizer,
        parameters=configuration.parameters,
        task=spec.task.name,
        task_parameters=spec.task.parameters,
        budget=spec.budget.per_trial,
        evaluations=spec.evaluations,
        metric=spec.metric.name,
        goal=spec.metric.goal,
        select=spec.metric.select,
        folder=folder.address(trial_id),
        stop_file=f"{folder.place}/stop" if folder.far else str(folder.stop_file.resolve()),
        threads=spec.resources.cpu,
        processes=spec.resources.processes,
        checkpoint_quota=spec.resources.checkpoints,
        checkpoint_s=spec.resources.checkpoint_every,
        diagnostics=spec.diagnostics.names,
        diagnose_every=spec.diagnostics.every,
        diagnose_batches=spec.diagnostics.batches,
        rungs=spec.early_terminate.rungs_of(configuration.number) if judged else (),
        cache=str(folder.cache.resolve()) if spec.cache and not folder.far else "",
        training=spec.training.recipe(),
        step_timeout_s=spec.training.step_timeout,
    )
