"""Stopped trials: what is recorded, and which ones are trained to the end anyway to measure the cost of stopping.

A share of the stopped trials, chosen by a hash of their ids, continues to train. The search is told PRUNED anyway, so
an audit changes no decision; the final value is stored next to the one at the rung.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from orchestrator.definition.model import Spec
from orchestrator.definition.states import State
from orchestrator.scheduling.arm_study import ArmStudy
from orchestrator.scheduling.stopping import Stop
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial.evaluations import evaluation
from orchestrator.trial.job import Job, Result, Stopped


def is_audited(spec: Spec, trial_id: str) -> bool:
    """Whether the trial continues to train after it is stopped."""
    drawn = int.from_bytes(hashlib.sha256(f"audit/{spec.method.seed}/{trial_id}".encode()).digest()[:6], "big")
    return drawn < spec.early_terminate.audit_share * 2**48


def rung_values(folder: SweepFolder, job: Job) -> dict[int, float]:
    """Rung -> value of the tuned metric, for the rungs in the trial's own log; the trial may have diverged before
    one.
    """
    points = MetricLog(folder.trial(job.trial_id) / "metrics.jsonl").points()
    passed = {r: at.metrics for r in job.rungs if (at := evaluation(points, job, r)) is not None}
    return {r: metrics[job.metric] for r, metrics in passed.items() if job.metric in metrics}


def take_rungs(folder: SweepFolder, arm: ArmStudy, job: Job, last: int | None = None) -> None:
    """Record the rungs up to `last` from the trial's own log: a short trial passes several between reports."""
    assert arm.stopper is not None
    for rung, value in rung_values(folder, job).items():
        if last is None or rung <= last:
            arm.stopper.record(job.configuration, rung, value)


def logical_result(folder: SweepFolder, job: Job, stop: Stop, result: Result) -> Result:
    """The result of a stopped trial: PRUNED with the metrics at its rung, whatever it trained beyond it."""
    points = MetricLog(folder.trial(job.trial_id) / "metrics.jsonl").points()
    at = evaluation(points, job, stop.rung)
    assert at is not None
    finished = result.state.is_trained  # stopping a trial that diverges later was right
    return replace(
        result,
        state=State.PRUNED,
        value=None,
        metrics=dict(at.metrics),
        grad_evals=float(result.grad_evals if finished else at.step - job.inherited),
        stopped=Stopped(
            rung=stop.rung,
            value=stop.value,
            reason=stop.reason,
            audit_value=result.value if finished else None,
        ),
    )
