"""Build a job's training run: task, optimizer and diagnostics by name, the same in every worker of a trial."""

from __future__ import annotations

from typing import Any

import optim_core
from orchestrator.definition import built
from orchestrator.definition.parts import split
from orchestrator.trial.job import Job
from trainables.loop import Training
from trainables.ramp import Ramp
from trainables.task_class import Task
from trainables.workers import Workers


def build_training(job: Job, workers: Workers | None = None) -> tuple[Training, Task]:
    """The training run of a job, at its beginning, and its task."""
    import torch

    task = built.build(job.task, job.task_parameters)

    stretches = [*(split(held).optimizer for _, held in job.lineage), job.parameters]
    switches = {
        end: {k: v for k, v in after.items() if before[k] != v}
        for (end, _), before, after in zip(job.lineage, stretches, stretches[1:], strict=False)
    }
    ramps = {name: Ramp(**fields) for name, fields in job.ramps.items()}
    begun = {**stretches[0], **{name: ramp.at(0.0) for name, ramp in ramps.items()}}

    batches = [task.refresh_batch(job.seed, i) for i in range(job.diagnose_batches if job.diagnostics else 0)]

    def diagnose(model: Any, optimizer: Any) -> dict[str, float]:
        players: dict[str, Any] = {}
        if isinstance(model, list):
            players = {"losses": task.closure(model, batches[0], lambda: None)}
            model = torch.nn.ModuleList(model)
        subject = optim_core.diagnostics.Subject(
            **players, model=model, loss=task.loss, batches=batches, optimizer=optimizer, seed=job.seed
        )
        return optim_core.diagnostics.measure(job.diagnostics, subject)

    training = Training(
        task,
        built.optimizer_builder(job.optimizer, begun, job.seed, job.groups),
        budget=job.budget,
        seed=job.seed,
        evaluations=job.evaluations,
        recipe=task.recipe(**job.training),
        workers=workers,
        diagnose=diagnose if job.diagnostics else None,
        diagnose_every=job.diagnose_every,
        switches=switches,
        ramps=ramps,
    )
    if job.readers:
        task.read_ahead(job.readers)
    return training, task
