"""Callbacks that follow trials from start to end: trackers, displays, witnesses."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.job import Job, Report, Result


class Callback(Protocol):
    """The interface of a tracker or display that follows trials."""

    def on_start(self, job: Job) -> None:
        """A trial was handed to the executor."""

    def on_report(self, job: Job, report: Report) -> None:
        """A running trial reported."""

    def on_end(self, job: Job, result: Result | Report) -> None:
        """A trial ended with a Result, or was drained or paused after a last Report."""

    def on_recover(self, job: Job, result: Result) -> None:
        """A trial had ended under an earlier driver."""


class Callbacks:
    """Several callbacks as one."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._all = tuple(callbacks)

    def on_start(self, job: Job) -> None:
        """A trial was handed to the executor."""
        for callback in self._all:
            callback.on_start(job)

    def on_report(self, job: Job, report: Report) -> None:
        """A running trial reported."""
        for callback in self._all:
            callback.on_report(job, report)

    def on_end(self, job: Job, result: Result | Report) -> None:
        """A trial ended, was drained or paused."""
        for callback in self._all:
            callback.on_end(job, result)

    def on_recover(self, job: Job, result: Result) -> None:
        """A trial had ended under an earlier driver."""
        for callback in self._all:
            callback.on_recover(job, result)


class Begun:
    """Whether a worker of this driver has begun to train; before that, ending at once loses nothing."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder, self._since = folder, time.time()
        self._waiting: list[str] = []
        """Trials that were handed out and have not reported."""
        self._heard = False

    @property
    def yet(self) -> bool:
        """Whether a trial has reported or written to its folder."""
        places = [self._folder.trial(trial_id) for trial_id in self._waiting]
        return self._heard or any(
            file.stat().st_mtime >= self._since for place in places for file in place.glob("*.json*")
        )

    def on_start(self, job: Job) -> None:
        """It may begin at any time."""
        self._waiting = [*self._waiting, job.trial_id] if not self._heard else []

    def on_report(self, job: Job, report: Report) -> None:
        """It has begun."""
        self._heard = True

    def on_end(self, job: Job, result: Result | Report) -> None:
        """It had begun."""
        self._heard = True

    def on_recover(self, job: Job, result: Result) -> None:
        """Nothing: another driver's."""
