"""Decides which trial comes next: unfinished ones, then the search of each arm in turn, then its confirm seeds.

All it knows can be rebuilt from the studies and the trial folders, so a driver that was killed loses nothing: the next
one tells what was trained but not told, and starts again what was asked but not trained.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from orchestrator.folder import SweepFolder, write_atomic
from orchestrator.search.base import Configuration, Study
from orchestrator.spec import ArmSpec, Spec
from orchestrator.trial import Job, Report, Result

ENDED = ("COMPLETE", "DIVERGED", "FAILED")


class Listener(Protocol):
    """Hears of trials, to track and to display them."""

    def began(self, job: Job) -> None:
        """A trial was handed to the executor."""

    def moved(self, job: Job, report: Report) -> None:
        """A running trial reported."""

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        """A trial ended or was drained; `result` as in result.json."""

    def recovered(self, job: Job, result: Mapping[str, Any]) -> None:
        """A trial had ended under an earlier driver."""


@dataclass(kw_only=True)
class Arm:
    """What is known of one arm."""

    spec: ArmSpec
    study: Study
    trials: int
    """Configurations to try."""
    planned: int
    """Trials in all: configurations x tune seeds + confirm seeds."""
    states: dict[str, str] = field(default_factory=dict)
    """Trial id -> RUNNING, COMPLETE, DIVERGED, FAILED or INTERRUPTED."""
    values: dict[int, dict[int, float | None]] = field(default_factory=dict)
    """Configuration -> tune seed -> value (None: failed)."""
    spent: dict[str, float] = field(default_factory=dict)
    """Trial id -> gradient evaluations."""
    best: float | None = None
    queue: deque[Job] = field(default_factory=deque)
    confirming: bool = False

    def counts(self) -> dict[str, int]:
        """Trials by what has become of them, as `geosweep status` shows them."""
        found = list(self.states.values())
        ended = {name.lower(): found.count(name) for name in ("DIVERGED", "FAILED", "PRUNED")}
        done, running = found.count("COMPLETE"), found.count("RUNNING")
        waiting = max(0, self.planned - done - running - sum(ended.values()))
        return {"done": done, "running": running, "waiting": waiting, **ended}


class SweepConductor:
    """The conductor of one sweep (see `executors.base.Conductor`)."""

    def __init__(
        self,
        spec: Spec,
        folder: SweepFolder,
        arms: Mapping[str, Arm],
        *,
        listeners: tuple[Listener, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec, self.folder, self.arms = spec, folder, dict(arms)
        self.stopped_by = ""
        """Why no further trial starts before all is done: empty, `budget` or `stop`."""
        self._listeners, self._clock, self._start = listeners, clock, clock()
        self._before = folder.seconds()
        self._jobs: dict[str, Job] = {}
        self._running: set[str] = set()
        self.pace_from: float | None = None
        """When the first trial of this driver began, on the clock of `time.monotonic`."""
        for arm in self.arms.values():
            self._recover(arm)
        self.ended_before = sum(len(arm.states) for arm in self.arms.values())
        """Trials that had ended before this driver."""

    @property
    def seconds(self) -> float:
        """Wall clock spent on this sweep, time down left out."""
        return self._before + self._clock() - self._start

    @property
    def grad_evals(self) -> float:
        """Gradient evaluations spent by all trials."""
        return sum(sum(arm.spent.values()) for arm in self.arms.values())

    @property
    def remaining(self) -> int:
        """Trials still to be started."""
        return sum(arm.counts()["waiting"] for arm in self.arms.values())

    @property
    def exhausted(self) -> bool:
        """No trial will be started any more, and none is running."""
        if self._running:
            return False
        return self._draining() or not any(arm.queue or self._may_ask(arm) for arm in self.arms.values())

    def next_job(self) -> Job | None:
        """Unfinished trials first, then arms in turn: the one with the fewest trials begun."""
        if self._draining():
            return None
        ready = [arm for arm in self.arms.values() if arm.queue or self._may_ask(arm)]
        if not ready:
            return None
        arm = min(ready, key=lambda a: len(a.states))
        if not arm.queue:
            self._issue(arm, arm.study.ask())
        job = arm.queue.popleft()
        arm.states[job.trial_id] = "RUNNING"
        self._jobs[job.trial_id] = job
        self._running.add(job.trial_id)
        self.pace_from = self.pace_from or time.monotonic()
        for listener in self._listeners:
            listener.began(job)
        return job

    def heard(self, report: Report) -> None:
        """Pass on progress; record and tell an end."""
        job = self._jobs[report.trial_id]
        arm = self.arms[job.arm]
        arm.spent[job.trial_id] = report.grad_evals
        if not report.done:
            for listener in self._listeners:
                listener.moved(job, report)
            return
        self._running.discard(job.trial_id)
        result = self.folder.result(job.trial_id) or {**asdict(report), "value": None, "error": ""}
        arm.states[job.trial_id] = result["state"]
        if result["state"] in ENDED:
            self._record(arm, job, result)
            self._maybe_confirm(arm)
        for listener in self._listeners:
            listener.ended(job, result)

    def lost(self, trial_id: str, why: str) -> None:
        """Give a trial up as FAILED."""
        result = asdict(Result(state="FAILED", value=None, metrics={}, grad_evals=0.0, seconds=0.0, error=why))
        folder = self.folder.trial(trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "trial.json", json.dumps(asdict(self._jobs[trial_id])))
        write_atomic(folder / "result.json", json.dumps(result))
        self.heard(Report(trial_id=trial_id, grad_evals=0.0, done=True, state="FAILED"))

    def _draining(self) -> bool:
        if not self.stopped_by:
            limit = self.spec.budget.wall_clock
            if limit is not None and self.seconds >= limit:
                self.stopped_by = "budget"
                self.folder.stop_file.touch()
            elif self.folder.stop_file.exists():
                self.stopped_by = "stop"
        return bool(self.stopped_by)

    def _may_ask(self, arm: Arm) -> bool:
        return not arm.confirming and len(arm.study.configurations()) < arm.trials

    def _issue(self, arm: Arm, configuration: Configuration) -> None:
        arm.values[configuration.number] = {}
        for seed in self.spec.seeds.tune:
            arm.queue.append(self._job(arm, configuration, seed, "tune"))

    def _job(self, arm: Arm, configuration: Configuration, seed: int, stage: str) -> Job:
        spec, trial_id = self.spec, f"{arm.spec.name}-{configuration.number:04d}-s{seed}"
        return Job(
            trial_id=trial_id,
            arm=arm.spec.name,
            stage=stage,
            configuration=configuration.number,
            seed=seed,
            optimizer=arm.spec.optimizer,
            parameters=configuration.parameters,
            task=spec.task.name,
            task_parameters=spec.task.parameters,
            budget=spec.budget.per_trial,
            evaluations=spec.evaluations,
            metric=spec.metric.name,
            goal=spec.metric.goal,
            select=spec.metric.select,
            folder=str(self.folder.trial(trial_id).resolve()),
            stop_file=str(self.folder.stop_file.resolve()),
            threads=spec.resources.cpu,
            processes=spec.resources.processes,
            diagnostics=spec.diagnostics.names,
            diagnose_every=spec.diagnostics.every,
            diagnose_batches=spec.diagnostics.batches,
            training=spec.training.recipe(),
            step_timeout_s=spec.training.step_timeout,
        )

    def _recover(self, arm: Arm) -> None:
        """Take up what the study and the trial folders say: unfinished trials go to the head of the queue."""
        for configuration in arm.study.configurations():
            arm.values[configuration.number] = {}
            for seed in self.spec.seeds.tune:
                self._take_up(arm, self._job(arm, configuration, seed, "tune"))
        chosen = arm.study.chosen()
        if chosen is not None:
            self._confirm(arm, chosen)
        else:
            self._maybe_confirm(arm)

    def _take_up(self, arm: Arm, job: Job) -> None:
        result = self.folder.result(job.trial_id)
        if result is None:
            arm.queue.append(job)
            return
        arm.states[job.trial_id] = result["state"]
        arm.spent[job.trial_id] = result["grad_evals"]
        self._record(arm, job, result)
        for listener in self._listeners:
            listener.recovered(job, result)

    def _record(self, arm: Arm, job: Job, result: Mapping[str, Any]) -> None:
        if job.stage != "tune":
            return
        values = arm.values[job.configuration]
        values[job.seed] = result["value"]
        if len(values) == len(self.spec.seeds.tune):
            told = list(values.values())
            mean = None if None in told else sum(v for v in told if v is not None) / len(told)
            arm.study.tell(job.configuration, mean)
            if mean is not None:
                pick = max if self.spec.metric.goal == "maximize" else min
                arm.best = mean if arm.best is None else pick(arm.best, mean)

    def _maybe_confirm(self, arm: Arm) -> None:
        """Once every configuration of the arm is told, its best one goes on to the fresh seeds."""
        told = [c for c in arm.study.configurations() if c.state != "RUNNING"]
        if arm.confirming or len(told) < arm.trials:
            return
        complete = [c for c in told if c.value is not None]
        if not complete:
            arm.confirming = True
            arm.planned = len(arm.states)
            return
        sign = -1.0 if self.spec.metric.goal == "maximize" else 1.0
        best = min(complete, key=lambda c: (sign * (c.value or 0.0), c.number))
        arm.study.choose(best.number)
        self._confirm(arm, best.number)

    def _confirm(self, arm: Arm, number: int) -> None:
        arm.confirming = True
        configuration = next(c for c in arm.study.configurations() if c.number == number)
        for seed in self.spec.seeds.confirm:
            self._take_up(arm, self._job(arm, configuration, seed, "confirm"))
