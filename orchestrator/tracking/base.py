"""The interface of a tracker. Every method returns at once and never raises: a sweep does not wait for its tracker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from orchestrator.trial import Job, Report


class Tracker(Protocol):
    """Hears of trials (see `conductor.Listener`) and of the sweep's end."""

    @property
    def trouble(self) -> str:
        """What last went wrong, or nothing."""

    def began(self, job: Job) -> None:
        """A trial starts."""

    def moved(self, job: Job, report: Report) -> None:
        """A running trial reported."""

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        """A trial ended or was drained."""

    def recovered(self, job: Job, result: Mapping[str, Any]) -> None:
        """A trial that ended under an earlier driver of this sweep."""

    def finish(
        self, state: str, arms: Mapping[str, Mapping[str, float]], parameters: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """The sweep ended as `state`; each arm's summary metrics and chosen parameters. Waits until all is sent."""


class NoTracker:
    """Tracks nothing: the trial folders are enough."""

    trouble = ""

    def began(self, job: Job) -> None:
        """Nothing."""

    def moved(self, job: Job, report: Report) -> None:
        """Nothing."""

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        """Nothing."""

    def recovered(self, job: Job, result: Mapping[str, Any]) -> None:
        """Nothing."""

    def finish(
        self, state: str, arms: Mapping[str, Mapping[str, float]], parameters: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Nothing."""
