"""The interface between who decides (the conductor) and who runs (an executor)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from orchestrator.trial.job import Job, Report


class Conductor(Protocol):
    """Decides which trial comes next and hears how trials go."""

    workers: int
    """Trials that the executor can run at a time; set by the executor."""

    def next_job(self, like: Job | None = None) -> Job | None:
        """The next trial to start, or None when there is nothing to start now.

        `like` another one: a trial of its arm and study that may be stepped together with it, or none.
        """

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


def further(conductor: Conductor, job: Job, most: int) -> list[Job]:
    """Trials to be started with `job`, at most so many."""
    found: list[Job] = []
    while len(found) < most and (another := conductor.next_job(like=job)) is not None:
        found.append(another)
    return found


def has_room(held: Mapping[str, Job]) -> bool:
    """Whether trials of a pack have ended, half of it or more, so that others are worth being taken in.

    Those that come late have other batches than the rest, which costs some of what a pack gains.
    """
    first = next(iter(held.values()), None)
    return first is not None and not first.alone and 2 * len(held) <= first.pack


class Executor(Protocol):
    """Runs the conductor's trials until it is exhausted and none is running."""

    def run(self, conductor: Conductor) -> None:
        """Return when all is done. Raises Unreachable when the cluster cannot be reached."""

    def close(self) -> None:
        """End what the executor started."""
