"""Which worker trains which trials, and when another worker is needed: bookkeeping independent of Tune.

A worker has a name and takes one trial, or one pack of trials, after another. The next trial is chosen while others
run, so a worker that becomes free gets it at once, before its last result is processed.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.executors.base import Conductor, further, has_room
from orchestrator.executors.ray_faults import Attempts
from orchestrator.trial.job import Job, Report

CALM = 10
"""Trials that must end after a memory kill before concurrency increases by one again."""
GIVEN_BACK_S = 30.0
"""Idle seconds after which a worker of an autoscaling cluster is released, and its machine with it."""


class Dispatcher:
    """Hands the conductor's trials to workers.

    A worker that dies does not fail its trials: they are handed out again until `Attempts` gives them up; those of a
    pack individually, so that the culprit is found. After a memory kill, concurrency is reduced by one for a while, so
    that trials that do not fit side by side still finish.
    """

    def __init__(
        self, conductor: Conductor, logs: Path, *, grows: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._conductor, self._attempts = conductor, Attempts(logs)
        self._grows, self._clock = grows, clock
        self._most = conductor.workers
        self._training: dict[str, dict[str, Job]] = {}
        self._turning: deque[str] = deque()
        """Workers that had some of their trials stopped, or whose pack has room for others."""
        self._free: dict[str, float] = {}
        """Worker -> idle since; longest first."""
        self._asked: set[str] = set()
        """Workers that are starting up."""
        self._ends: deque[Report] = deque()
        """Final reports not yet passed to the conductor: the worker's next trial goes first."""
        self._again: deque[Job] = deque()
        self._ahead: list[Job] = []
        self._memory_kill, self._calm = "", 0

    @property
    def exhausted(self) -> bool:
        """No trial runs or will run."""
        self._give_back()
        return not (self._training or self._ahead or self._again or self._ends) and self._conductor.exhausted

    def wanted(self) -> Job | None:
        """A trial that waits for one more worker, or None if the existing and starting ones suffice."""
        if not self._ahead:
            self._decide()
        workers = len(self._training) + len(self._free) + len(self._asked)
        trials = len(self._training) + 1 + len(self._again) + self._conductor.remaining
        return self._ahead[0] if self._ahead and not self._free and workers < min(self._most, trials) else None

    def ask(self, worker: str) -> None:
        """A worker of this name is starting up."""
        self._asked.add(worker)

    def arrive(self, worker: str) -> None:
        """The worker is up and idle."""
        self._asked.discard(worker)
        self._free[worker] = self._clock()
        self._count()

    def assign(self) -> tuple[str, list[Job]] | None:
        """(a worker, all that it should train now) if there are both; otherwise the next trials are chosen."""
        found = self._turned() or self._pair()
        if found is None:
            self._decide()
            found = self._pair()
        return found

    def hear(self, worker: str, reports: Sequence[Report]) -> bool:
        """Forward reports of its trials. False: it has none now, or is to get others."""
        held, stopped = self._training[worker], False
        for report in reports:
            if report.done:
                self._ends.append(report)
            elif self._conductor.on_report(report):
                continue
            else:
                stopped = True
            self._calm += 1
            if self._calm % CALM == 0:
                self._most = min(self._conductor.workers, self._most + 1)
            del held[report.trial_id]
        if not held:
            del self._training[worker]
            self.arrive(worker)
            return False
        if stopped or has_room(held):
            self._turning.append(worker)
            return False
        return True

    def lose(self, worker: str, error: Exception | str | None) -> None:
        """The worker died. Before its first trial, that counts against those it was requested for."""
        self._asked.discard(worker)
        self._free.pop(worker, None)
        if worker in self._turning:
            self._turning.remove(worker)
        jobs = list(self._training.pop(worker, {}).values())
        self._count()
        if len(jobs) > 1:
            jobs = [replace(job, alone=True) for job in jobs]
        if not jobs:
            jobs, self._ahead = self._ahead, []
        for job in jobs:
            fault, why = self._attempts.give_up(job, error)
            if fault.kind == "memory" and fault.says.splitlines()[0] != self._memory_kill:  # one event may kill several
                self._memory_kill, self._calm = fault.says.splitlines()[0], 0
                self._most = max(1, self._most - 1)
            if why:
                self._conductor.on_lost(job.trial_id, why)
            else:
                self._again.append(job)

    def dismiss(self) -> list[str]:
        """Workers to end now: all of them once nothing is left; those long idle on an autoscaling cluster."""
        if self.exhausted:
            gone = [*self._free, *self._asked]
        else:
            since = self._clock() - GIVEN_BACK_S
            gone = [w for w, free_from in self._free.items() if free_from < since] if self._grows else []
        for worker in gone:
            self._free.pop(worker, None)
            self._asked.discard(worker)
        if gone:
            self._count()
        return gone

    def _count(self) -> None:
        self._conductor.on_workers(len(self._training) + len(self._free))

    def _give_back(self) -> None:
        """Return trials that wait for a worker that is no longer needed, because the sweep drains."""
        if self._training or self._free or not (self._ahead or self._again) or not self._conductor.draining:
            return
        self._hear_ends()
        waiting = [*self._ahead, *self._again]
        self._ahead = []
        self._again.clear()
        for job in waiting:
            self._conductor.give_back(job.trial_id)

    def _turned(self) -> tuple[str, list[Job]] | None:
        """A worker with its remaining trials, and with more trials if its pack has become small."""
        if not self._turning:
            return None
        worker = self._turning.popleft()
        held = self._training[worker]
        if has_room(held):
            self._hear_ends()
            first = next(iter(held.values()))
            held |= {job.trial_id: job for job in further(self._conductor, first, first.pack - len(held))}
        return worker, list(held.values())

    def _pair(self) -> tuple[str, list[Job]] | None:
        if not self._free or not self._ahead or len(self._training) >= self._most:
            return None
        worker, jobs = next(iter(self._free)), self._ahead
        del self._free[worker]
        self._ahead, self._training[worker] = [], {job.trial_id: job for job in jobs}
        return worker, jobs

    def _decide(self) -> None:
        """Process the ends of trials, and choose the next ones: a fair share for each worker."""
        self._hear_ends()
        if self._ahead:
            return
        job = self._again.popleft() if self._again else self._conductor.next_job()
        if job is None:
            return
        self._ahead = [job]
        if job.pack > 1 and not job.alone:
            idle = max(1, self._most - len(self._training))
            share = math.ceil((1 + self._conductor.remaining) / idle)
            self._ahead += further(self._conductor, job, min(job.pack, share) - 1)

    def _hear_ends(self) -> None:
        while self._ends:
            self._conductor.on_report(self._ends.popleft())
