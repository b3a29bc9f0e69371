"""The interface of a tracker. Methods return at once and never raise: a sweep does not wait for its tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from orchestrator.definition.states import SweepState
from orchestrator.storage.metric_log import LoggedPoint
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.record import TrialRecord


class Tracker(Protocol):
    """Is notified of trials (see `callbacks.Callback`) and of the sweep's end."""

    @property
    def trouble(self) -> str:
        """The last error; empty if none."""

    def on_start(self, job: Job) -> None:
        """A trial starts."""

    def on_report(self, job: Job, report: Report) -> None:
        """A running trial reported."""

    def on_end(self, job: Job, result: Result | Report) -> None:
        """A trial ended or was drained."""

    def on_recover(self, job: Job, result: Result) -> None:
        """A trial that ended under an earlier driver of this sweep."""

    @property
    def repaired(self) -> list[str]:
        """Differences between the tracker and the trial folders, and what was done; complete once `finish` has
        returned.
        """

    def check(self, trials: Callable[[], list[TrialRecord]]) -> None:
        """Queue a comparison with the trials that ended, and repair differences."""

    def recall(self, trial_id: str) -> list[LoggedPoint]:
        """The tracker's points of a trial; empty if it has none or does not answer soon."""

    def finish(
        self,
        state: SweepState,
        arms: Mapping[str, Mapping[str, float]],
        parameters: Mapping[str, Mapping[str, Any]],
        ending: str = "",
    ) -> None:
        """The sweep ended as `state`; `arms`: summary metrics of each arm, and its chosen parameters once they are
        final.

        `ending`: how the driver ended, in the words of `storage.ending`.

        Waits until everything is sent.
        """


class NoTracker:
    """Tracks nothing: the trial folders are enough."""

    trouble = ""
    repaired: ClassVar[list[str]] = []

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

    def recall(self, trial_id: str) -> list[LoggedPoint]:
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
