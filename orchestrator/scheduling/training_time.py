"""The clock of `budget.wall_clock`: it runs while there is a worker that could train, and stops otherwise.

A cluster may take minutes or hours to provide machines; a sweep without any spends none of its budget.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.definition.model import Spec
from orchestrator.storage.folder import SweepFolder


class TrainingTime:
    """Seconds in which workers were up, in addition to `before`, those of earlier drivers.

    One worker is assumed until an executor says otherwise.
    """

    def __init__(self, before: float, clock: Callable[[], float]) -> None:
        self._charged, self._clock = before, clock
        self._since, self._workers = clock(), 1

    def on_workers(self, count: int) -> None:
        """Record the number of workers that are up."""
        if bool(count) == bool(self._workers):
            self._workers = count
            return
        self._charged, self._since, self._workers = self.seconds, self._clock(), count

    @property
    def seconds(self) -> float:
        """Seconds that count."""
        return self._charged + (self._clock() - self._since if self._workers else 0.0)

    @property
    def waited(self) -> float:
        """Seconds of the current period without a worker; 0 while there is one."""
        return 0.0 if self._workers else self._clock() - self._since


def over(time: TrainingTime, spec: Spec, folder: SweepFolder) -> str:
    """Why no further trial starts: `budget`, `stop` (on request), `wait` (too long without workers), or empty."""
    if spec.budget.wall_clock is not None and time.seconds >= spec.budget.wall_clock:
        return "budget"
    if folder.stop_file.exists():
        return "stop"
    return "wait" if time.waited >= spec.resources.wait else ""


class IdleTime:
    """Worker-seconds in which workers had no trial because strict replay waited for an earlier result."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._since, self._idle = clock, clock(), 0
        self.seconds = 0.0

    def on_idle(self, workers: int) -> None:
        """Record the number of idle workers from now on."""
        now = self._clock()
        self.seconds += self._idle * (now - self._since)
        self._since, self._idle = now, max(0, workers)
