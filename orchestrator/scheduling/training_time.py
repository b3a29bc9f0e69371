"""The clock of `budget.wall_clock`: it runs while there is a worker that could train, and stands still otherwise.

A cluster may take minutes or hours to find machines, and a sweep that has none spends nothing of what it was given.
"""

from __future__ import annotations

from collections.abc import Callable


class TrainingTime:
    """Seconds in which workers were up, on top of `before`, those of earlier drivers.

    One is taken to be there until an executor says otherwise.
    """

    def __init__(self, before: float, clock: Callable[[], float]) -> None:
        self._charged, self._clock = before, clock
        self._since, self._workers = clock(), 1

    def on_workers(self, count: int) -> None:
        """So many workers are up now."""
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
        """Seconds of the present stretch without a worker; 0 while there is one."""
        return 0.0 if self._workers else self._clock() - self._since
