"""The interface of a tracker. Every method returns at once and never raises: a sweep does not wait for its tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from orchestrator.definition.states import SweepState
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.record import TrialRecord


class Tracker(Protocol):
    """Hears of trials (see `callbacks.Callback`) and of the sweep's end."""

    @property
    def trouble(self) -> str:
        """What last went wrong, or nothing."""

    def on_start(self, job: Job) -> None:
        """A trial starts."""

    def on_report(self, job: Job, report: Report) -> None:
        """A running trial reported."""

    def on_end(self, job: Job, result: Result | Report) -> None:
        """A trial ended or was drained."""

    def on_recover(self, job: Job, result: Result) -> None:
        """A trial that ended under an earlier driver of this sweep."""

    @property
    def mended(self) -> list[str]:
        """Where the tracker differed from the trial folders, and what was done; known once `finish` returned."""

    def check(self, trials: Callable[[], list[TrialRecord]]) -> None:
        """Compare with the trials that ended, when its turn comes, and mend."""

    def recall(self, trial_id: str) -> list[dict[str, Any]]:
        """The points of a trial as the tracker has them; empty when it has none or does not answer soon."""

    def finish(
        self,
        state: SweepState,
        arms: Mapping[str, Mapping[str, float]],
        parameters: Mapping[str, Mapping[str, Any]],
        ending: str = "",
    ) -> None:
        """The sweep ended as `state`; each arm's summary metrics and, once they are final, its chosen parameters.

        `ending`: how the driver ended, in the words of `storage.ending`.

        Waits until all is sent.
        """


class NoTracker:
    """Tracks nothing: the trial folders are enough."""

    trouble = ""
    mended: ClassVar[list[str]] = []

    def on_start(self, job: Job) -> None:
        """Nothing."""

    def on_report(self, job: Job, report: Report) -> None:
        """Nothing."""

    def on_end(self, job: Job, result: Result | Report) -> None:
        """Nothing."""

    def on_recover(self, job: Job, result: Result) -> None:
        """Nothing."""

    def check(self, trials: Callable[[], list[TrialRecord]]) -> None:
        """Nothing."""

    def recall(self, trial_id: str) -> list[dict[str, Any]]:
        """Nothing."""
        return []

    def finish(
        self,
        state: SweepState,
        arms: Mapping[str, Mapping[str, float]],
        parameters: Mapping[str, Mapping[str, Any]],
        ending: str = "",
    ) -> None:
        """Nothing."""
