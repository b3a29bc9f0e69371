"""Which worker trains which trials, and when another worker is wanted: bookkeeping that knows nothing of Tune.

A worker is known by a name and takes one trial after another, or one pack of trials. What comes next is decided while
others run, so that a worker that becomes free has it at once, before anything else is done with the end of its last.
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
"""Trials that end after a memory kill before one more runs at a time again."""
GIVEN_BACK_S = 30.0
"""Seconds without a trial after which a worker of a cluster that grows is given back, and its machine with it."""


class Dispatcher:
    """Hands the conductor's trials to workers.

    A worker that dies fails nothing: its trials are handed out again, until `Attempts` holds the deaths against them;
    those of a pack each alone, so that the one which is to blame is found. After a memory kill one worker fewer trains
    for a while, so that trials which do not fit side by side still end.
    """

    def __init__(
        self, conductor: Conductor, logs: Path, *, grows: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._conductor, self._attempts = conductor, Attempts(logs)
        self._grows, self._clock = grows, clock
        self._most = conductor.workers
        self._training: dict[str, dict[str, Job]] = {}
        self._turning: deque[str] = deque()
        """Workers of which some trials were stopped, or whose pack has room for others."""
        self._free: dict[str, float] = {}
        """Worker -> since when; longest first."""
        self._asked: set[str] = set()
        """Workers that are starting up."""
        self._ends: deque[Report] = deque()
        """Last reports that the conductor has not heard: the worker's next trial goes first."""
        self._again: deque[Job] = deque()
        self._ahead: list[Job] = []
        self._memory_kill, self._calm = "", 0

    @property
    def exhausted(self) -> bool:
        """No trial runs or will run."""
        self._give_back()
        return not (self._training or self._ahead or self._again or self._ends) and self._conductor.exhausted

    def wanted(self) -> Job | None:
        """A trial that waits for one more worker, or None when those there are, or start up, will do."""
        if not self._ahead:
            self._decide()
        workers = len(self._training) + len(self._free) + len(self._asked)
        trials = len(self._training) + 1 + len(self._again) + self._conductor.remaining
        return self._ahead[0] if self._ahead and not self._free and workers < min(self._most, trials) else None

    def ask(self, worker: str) -> None:
        """A worker of this name is starting up."""
        self._asked.add(worker)

    def arrive(self, worker: str) -> None:
        """The worker is up and free."""
        self._asked.discard(worker)
        self._free[worker] = self._clock()
        self._count()

    def assign(self) -> tuple[str, list[Job]] | None:
        """(a worker, all that it is to train now) if there are both; what comes after is decided once there are not."""
        found = self._turned() or self._pair()
        if found is None:
            self._decide()
            found = self._pair()
        return found

    def hear(self, worker: str, reports: Sequence[Report]) -> bool:
        """Pass on reports of its trials. False: it has none now, or is to be turned to others."""
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
        """The worker died. Before its first trial that counts against those it was wanted for."""
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
            if fault.kind == "memory" and fault.says.splitlines()[0] != self._memory_kill:  # one event may take several
                self._memory_kill, self._calm = fault.says.splitlines()[0], 0
                self._most = max(1, self._most - 1)
            if why:
                self._conductor.on_lost(job.trial_id, why)
            else:
                self._again.append(job)

    def dismiss(self) -> list[str]:
        """Workers to end now: all of them once nothing is left, those long free on a cluster that grows."""
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
        """What waits for a worker that need not come any more, since the sweep drains, goes back."""
        if self._training or self._free or not (self._ahead or self._again) or not self._conductor.draining:
            return
        self._hear_ends()
        waiting = [*self._ahead, *self._again]
        self._ahead = []
        self._again.clear()
        for job in waiting:
            self._conductor.give_back(job.trial_id)

    def _turned(self) -> tuple[str, list[Job]] | None:
        """A worker with what it has left, and with more trials where its pack has become small."""
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
        """Take in how trials ended, and see to it that what comes next is known: a fair share for each worker."""
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
