"""The interface between the conductor, which decides, and an executor, which runs trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from orchestrator.trial.job import Job, Report


class Conductor(Protocol):
    """Decides which trial comes next and receives reports of trials."""

    workers: int
    """Trials that the executor can run at a time; set by the executor."""

    def next_job(self, like: Job | None = None) -> Job | None:
        """The next trial to start, or None if there is nothing to start now.

        `like` another job: a trial of its arm and study that may be stepped together with it, or None.
        """

    @property
    def exhausted(self) -> bool:
        """True once next_job will never return a trial again."""

    @property
    def draining(self) -> bool:
        """True once no further trial starts, even if some are left."""

    @property
    def remaining(self) -> int:
        """How many trials are still to be started, as far as is known."""

    def on_report(self, report: Report) -> bool:
        """A trial reported. Return False to stop the trial."""

    def on_workers(self, count: int) -> None:
        """Number of workers that are up, busy or idle; called on every change. Time without workers is not charged."""

    def give_back(self, trial_id: str) -> None:
        """Return a trial from `next_job` that no worker has or will get, because the sweep drains."""

    def on_lost(self, trial_id: str, why: str) -> None:
        """A trial's worker died repeatedly; the trial is given up."""


def further(conductor: Conductor, job: Job, most: int) -> list[Job]:
    """Up to `most` trials to be started together with `job`."""
    found: list[Job] = []
    while len(found) < most and (another := conductor.next_job(like=job)) is not None:
        found.append(another)
    return found


def has_room(held: Mapping[str, Job]) -> bool:
    """Whether at least half of a pack's trials have ended, so that adding others is worthwhile.

    Late joiners have other batches than the rest, which costs part of the gain from packing.
    """
    first = next(iter(held.values()), None)
    return first is not None and not first.alone and 2 * len(held) <= first.pack


class Executor(Protocol):
    """Runs the conductor's trials until it is exhausted and none is running."""

    def run(self, conductor: Conductor) -> None:
        """Return when everything is done. Raises Unreachable when the cluster cannot be reached."""

    def close(self) -> None:
        """Shut down what the executor started."""
