"""Reports of trials to a caller while a sweep runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from orchestrator.scheduling.conductor import SweepConductor
from orchestrator.trial.job import Job, Report, Result

Watch = Callable[[SweepConductor], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """A trial during training, or at its end."""

    trial_id: str
    arm: str
    study: int
    stage: str
    """tune or confirm"""
    seed: int
    state: str
    """RUNNING, or how it ended: COMPLETE, PRUNED, DIVERGED, FAILED, INTERRUPTED (drained) or PAUSED"""
    grad_evals: float
    metrics: Mapping[str, float]
    """Latest metrics."""
    parameters: Mapping[str, Any]
    value: float | None = None
    """For an ended trial: the tuned metric as selected."""


class Listener:
    """Forwards reports (a `callbacks.Callback`). An exception of the caller drains the sweep and is re-raised at its
    end.
    """

    def __init__(self, tell: Callable[[TrialReport], None] | None) -> None:
        self._tell = tell
        self._raised: Exception | None = None
        self._conductor: SweepConductor | None = None

    def beside(self, watch: Watch) -> Watch:
        """Wraps `watch` so that this object also knows which sweep to drain."""

        def watched(conductor: SweepConductor) -> AbstractContextManager[None]:
            self._conductor = conductor
            return watch(conductor)

        return watched

    def raise_again(self) -> None:
        """Re-raise the caller's exception."""
        if self._raised is not None:
            raise self._raised

    def on_start(self, job: Job) -> None:
        """Nothing."""

    def on_report(self, job: Job, report: Report) -> None:
        """A running trial reported."""
        self._hand_on(job, report, None)

    def on_end(self, job: Job, result: Result | Report) -> None:
        """A trial ended, was drained or paused."""
        self._hand_on(job, result, result.value if isinstance(result, Result) else None)

    def on_recover(self, job: Job, result: Result) -> None:
        """Nothing: it was reported when it ended."""

    def _hand_on(self, job: Job, said: Report | Result, value: float | None) -> None:
        if self._tell is None or self._raised is not None:
            return
        report = TrialReport(
            trial_id=job.trial_id,
            arm=job.arm,
            study=job.study,
            stage=str(job.stage),
            seed=job.seed,
            state=str(said.state),
            grad_evals=said.grad_evals,
            metrics=dict(said.metrics),
            parameters=dict(job.parameters),
            value=value,
        )
        try:
            self._tell(report)
        except Exception as error:
            self._raised = error
            if self._conductor is not None:
                self._conductor.folder.stop_file.touch()
