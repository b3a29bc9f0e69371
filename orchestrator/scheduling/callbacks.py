"""Who hears of trials as they begin, move and end: trackers, displays, witnesses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from orchestrator.trial.job import Job, Report


class Listener(Protocol):
    """Hears of trials, to track and to display them."""

    def began(self, job: Job) -> None:
        """A trial was handed to the executor."""

    def moved(self, job: Job, report: Report) -> None:
        """A running trial reported."""

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        """A trial ended, was drained or pauses; `result` as in result.json."""

    def recovered(self, job: Job, result: Mapping[str, Any]) -> None:
        """A trial had ended under an earlier driver."""


class Listeners:
    """Several of them as one."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._all = tuple(listeners)

    def began(self, job: Job) -> None:
        """A trial was handed to the executor."""
        for listener in self._all:
            listener.began(job)

    def moved(self, job: Job, report: Report) -> None:
        """A running trial reported."""
        for listener in self._all:
            listener.moved(job, report)

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        """A trial ended, was drained or pauses."""
        for listener in self._all:
            listener.ended(job, result)

    def recovered(self, job: Job, result: Mapping[str, Any]) -> None:
        """A trial had ended under an earlier driver."""
        for listener in self._all:
            listener.recovered(job, result)
