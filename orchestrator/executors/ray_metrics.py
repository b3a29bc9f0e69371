"""Metrics of a sweep on the Ray cluster, which Prometheus finds next to Ray's own.

ray_geosweep_trials{sweep, state}      trials that are running or waiting now
ray_geosweep_waiting{sweep, reason}    waiting trials, by the reason shown in `geosweep status`
ray_geosweep_trials_ended{sweep, state}  a counter: COMPLETE, PRUNED, DIVERGED, FAILED, ... or paused
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import ray
from ray.util.metrics import Counter, Gauge

from orchestrator.storage.waiting import Waiting
from orchestrator.trial.job import Job, Report, Result

PERIOD_S = 10.0
Asked = Callable[[], Mapping[str, Waiting]]
"""Arm -> how many `trials` wait, and the `reason`."""


class RayMetrics:
    """Follows the trials of one sweep. Updates before Ray has started or after it has stopped are dropped."""

    def __init__(self, sweep: str) -> None:
        self._sweep = {"sweep": sweep}
        self._running: set[str] = set()
        self._reasons: set[str] = set()
        self._made: tuple[Gauge, Gauge, Counter] | None = None

    def on_start(self, job: Job) -> None:
        """A trial was handed to the executor."""
        self._running.add(job.trial_id)
        self._show_running()

    def on_report(self, job: Job, report: Report) -> None:
        """Nothing changes."""

    def on_end(self, job: Job, result: Result | Report) -> None:
        """A trial ended, was drained or paused."""
        self._running.discard(job.trial_id)
        self._show_running()
        if metrics := self._metrics():
            state = result.state.value if isinstance(result, Result) else "paused"
            metrics[2].inc(1, {**self._sweep, "state": state})

    def on_recover(self, job: Job, result: Result) -> None:
        """Counted by the driver under which it ended."""

    @contextmanager
    def watching(self, waiting: Asked) -> Iterator[None]:
        """Export, while the context lasts, how many trials wait and why."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(PERIOD_S):
                with suppress(RuntimeError):  # the driver changed its arms during the read; the next one sees them
                    self.show_waiting(waiting())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(PERIOD_S)

    def show_waiting(self, arms: Mapping[str, Waiting]) -> None:
        """Export the waiting trials; reasons that no longer hold are set to 0."""
        metrics = self._metrics()
        if metrics is None:
            return
        self._show_running()
        by_reason: Tally[str] = Tally()
        for one in arms.values():
            by_reason[without_numbers(one.reason)] += one.trials
        metrics[0].set(by_reason.total(), {**self._sweep, "state": "waiting"})
        self._reasons |= set(by_reason)
        for reason in self._reasons:
            metrics[1].set(by_reason[reason], {**self._sweep, "reason": reason})

    def _show_running(self) -> None:
        if metrics := self._metrics():
            metrics[0].set(len(self._running), {**self._sweep, "state": "running"})

    def _metrics(self) -> tuple[Gauge, Gauge, Counter] | None:
        if not ray.is_initialized():
            return None
        if self._made is None:
            self._made = (
                Gauge("geosweep_trials", "Trials by state", tag_keys=("sweep", "state")),
                Gauge("geosweep_waiting", "Waiting trials, by reason", tag_keys=("sweep", "reason")),
                Counter("geosweep_trials_ended", "Trials that ended", tag_keys=("sweep", "state")),
            )
        return self._made


def without_numbers(reason: str) -> str:
    """The reason with its numbers replaced by N: each distinct text is a separate time series."""
    return " ".join("N" if any(c.isdigit() for c in word) else word for word in reason.split())
