"""From a job to its training run: task, optimizer and diagnostics by name. Every worker of a trial builds the same."""

from __future__ import annotations

from typing import Any

import optim_core
import trainables
from orchestrator.trial.job import Job
from trainables.loop import Training
from trainables.task import Task
from trainables.workers import Workers


def build_training(job: Job, workers: Workers | None = None) -> tuple[Training, Task]:
    """The training run of a job, at its beginning, and its task."""
    import torch

    task = trainables.build(job.task, **job.task_parameters)

    stretches = [*(parameters for _, parameters in job.lineage), job.parameters]
    switches = {
        end: {k: v for k, v in after.items() if before[k] != v}
        for (end, before), after in zip(job.lineage, stretches[1:], strict=True)
    }

    def build(model: Any, loss: Any, refresh: Any) -> Any:
        extra = {"loss": loss, "refresh_batches": refresh} if optim_core.needs_batches(job.optimizer) else {}
        if optim_core.needs_run_seed(job.optimizer):
            extra["run_seed"] = job.seed
        return optim_core.build(job.optimizer, model, **stretches[0], **extra)

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
        build,
        budget=job.budget,
        seed=job.seed,
        evaluations=job.evaluations,
        recipe=task.recipe(**job.training),
        workers=workers,
        diagnose=diagnose if job.diagnostics else None,
        diagnose_every=job.diagnose_every,
        switches=switches,
    )
    return training, task
