"""The interface between who decides (the conductor) and who runs (an executor)."""

from __future__ import annotations

from typing import Protocol

from orchestrator.trial.job import Job, Report


class Conductor(Protocol):
    """Decides which trial comes next and hears how trials go."""

    workers: int
    """Trials that the executor can run at a time; set by the executor."""

    def next_job(self) -> Job | None:
        """The next trial to start, or None when there is nothing to start now."""

    @property
    def exhausted(self) -> bool:
        """True once next_job will never return a trial again."""

    @property
    def draining(self) -> bool:
        """True once no further trial starts, whatever is left."""

    @property
    def remaining(self) -> int:
        """How many trials are still to be started, as far as is known."""

    def on_report(self, report: Report) -> bool:
        """A trial reported. False: it does not go on."""

    def on_workers(self, count: int) -> None:
        """So many workers are up, with a trial or free; told whenever one comes or goes. Time without any is free."""

    def give_back(self, trial_id: str) -> None:
        """A trial from `next_job` that no worker has, and none will have, since the sweep drains."""

    def on_lost(self, trial_id: str, why: str) -> None:
        """A trial's worker died again and again; it is given up."""


class Executor(Protocol):
    """Runs the conductor's trials until it is exhausted and none is running."""

    def run(self, conductor: Conductor) -> None:
        """Return when all is done. Raises Unreachable when the cluster cannot be reached."""

    def close(self) -> None:
        """End what the executor started."""
