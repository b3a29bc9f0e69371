"""A job's trial as a session: built-in training, or a user's script. This is all that executors know."""

from __future__ import annotations

from typing import Protocol

from orchestrator.trial.job import Job, Report
from orchestrator.trial.program.session import ProgramSession
from orchestrator.trial.session import TrialSession
from orchestrator.trial.session import warm_up as warm_up_training
from orchestrator.trial.worker_group import WorkerGroup


class Session(Protocol):
    """A trial in progress, advanced in slices."""

    def advance(self) -> Report:
        """Train for about a slice and report."""

    def close(self) -> None:
        """Release everything."""


def session_of(
    job: Job, *, own_process: bool = False, group: WorkerGroup | None = None, host: str = "127.0.0.1"
) -> Session:
    """The session of a job; the arguments are those of `TrialSession`."""
    if job.program:
        return ProgramSession(job)
    return TrialSession(job, own_process=own_process, group=group, host=host)


def warm_up(job: Job) -> None:
    """Do once per worker what every trial needs; a script does its own imports."""
    if not job.program:
        warm_up_training(job)
