"""One trial: a configuration and a seed trained to the budget. A function of its `Job`, on any executor.

The trial writes to its own folder first: `metrics.jsonl` (one line for each evaluation), checkpoints, `result.json`.
It knows neither the executor nor the search nor the tracker.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optim_core  # noqa: F401
from orchestrator.definition import built
from orchestrator.definition.states import State
from orchestrator.storage import disk
from orchestrator.storage.metric_log import MetricLog
from orchestrator.storage.object_store import StoreError
from orchestrator.trial import cache, gpu_memory, source, termination
from orchestrator.trial.ambient import Ambient
from orchestrator.trial.failure import described
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.locking import locked
from orchestrator.trial.log_files import last_lines
from orchestrator.trial.logs import TrialLogs
from orchestrator.trial.record import read_job, read_result, write_job, write_result
from orchestrator.trial.training import build_training
from orchestrator.trial.watchdog import Watchdog, left_behind
from orchestrator.trial.worker_group import LocalWorkerGroup, WorkerFailed, WorkerGroup
from orchestrator.trial.workspace import TrialPlace
from trainables import checkpoint
from trainables.loop import Diverged
from trainables.task_class import Task
from trainables.workers import Workers, listen

CHECKPOINT_SHARE = 0.1


class MetricMissing(KeyError):  # noqa: N818
    """The task does not return the metric that the sweep tunes."""

    def __init__(self, job: Job, metrics: Mapping[str, float]) -> None:
        super().__init__(
            f"evaluate of task {job.task} returned {', '.join(sorted(metrics))}, and not {job.metric}, which the sweep "
            "tunes: have it returned, or name another one in metric.name"
        )


class TrialSession:
    """A trial in progress, advanced in slices by whatever executor holds it.

    `own_process`: this process is the trial's alone and may be ended when a step hangs. `group` starts the other
    workers of a job with several processes, which reach this one at `host`.
    """

    def __init__(
        self, job: Job, *, own_process: bool = False, group: WorkerGroup | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.job = job
        self._group: WorkerGroup = group or LocalWorkerGroup()
        self._host = host
        self._place = TrialPlace(job.folder, job.stop_file)
        self._folder = self._place.folder
        self._watchdog = Watchdog(self._folder / "hang.txt", job.step_timeout_s, own_process=own_process)
        with disk.named(self._folder):
            self._lock = locked(self._folder / "lock")
            self._place.fetch()
            if read_job(self._folder) is None:
                write_job(job, self._folder, durable=False)
                self._place.begun()
        self._log = MetricLog(self._folder / "metrics.jsonl")
        self._printed = TrialLogs(self._folder, tee=not own_process)
        self._seconds, self._since = 0.0, time.perf_counter()
        self._points: list[dict[str, Any]] = []
        self._training: Any = None
        self._task: Task | None = None
        self._workers: Workers | None = None
        self._facts: dict[str, str] = {}
        self._address = self._code = ""
        self._last: dict[str, float] = {}
        self._ambient = Ambient()

    def advance(self) -> Report:
        """Train for about a slice. Never raises for what the trial itself does wrong: that is a FAILED result.

        Raises WorkerLost when the process of another worker died, DiskFull when nothing more can be
        written, StoreError when the object store stays away, and what a SIGTERM raised: it is not the trial's.
        """
        with disk.named(self._folder), self._printed.attached(), self._ambient:
            return self._advance()

    def _advance(self) -> Report:
        existing = read_result(self._folder)
        if existing is not None:
            return self._ended(existing.state, existing.grad_evals, existing.metrics)
        self._since = time.perf_counter()
        try:
            if self._training is None:
                hung = left_behind(self._folder)
                if hung:
                    return self._finish(State.FAILED, error=hung)
                self._begin()
                self._ambient.settle()
                if (trained := cache.find(Path(self.job.cache), self._address) if self._address else None) is not None:
                    return self._take_over(trained)
            return self._slice()
        except (Exception, SystemExit, GeneratorExit) as broken:
            self._watchdog.stop()
            if disk.is_full(broken) or isinstance(broken, StoreError) or termination.told():
                raise
            error = described(broken)
            try:
                self._group.trouble()
            except WorkerFailed as failure:
                error = f"{failure}\n\nand then:\n{error}"
            return self._finish(State.FAILED, error=error)
        finally:
            self._watchdog.stop()

    def close(self) -> None:
        """Let go of the folder and of the other workers."""
        if self._task is not None:
            self._task.read_ahead(0)
        self._group.stop()
        if self._workers is not None:
            self._workers.close()
        self._printed.close()
        self._place.close()
        self._lock.release()

    def _begin(self) -> None:
        import torch

        job = self.job
        self._code = source.digest(job.task, job.optimizer)
        torch.set_num_threads(job.threads)
        gpu_memory.claim(job.gpu)
        if job.processes > 1:
            store = listen(self._host)
            self._group.start(job, f"{self._host}:{store.port}")
            self._workers = Workers(size=job.processes, store=store)
        self._training, self._task = build_training(job, self._workers)
        task = self._task
        self._task_metrics, self._facts = task.METRICS, dict(task.facts())
        saved = checkpoint.newest(self._folder)
        if saved is not None and not self._log.reaches(float(saved["durable"])):
            warnings.warn(f"{self._folder}: the log ends before its checkpoint; training starts anew", stacklevel=2)
            saved = None
        if job.cache:
            self._address = cache.address(job, self._training.init_digest, self._training.data_digest, self._facts)
        if self._workers is not None:
            self._workers.same(saved and saved["training"])
        if saved is None:
            self._points = self._log.truncate(-1.0)
        else:
            self._training.load(saved["training"])
            self._seconds = float(saved["seconds"]) if saved["trial"] == job.trial_id else 0.0  # else inherited
            self._place.durable = float(saved["durable"])
            self._points = self._log.truncate(self._place.durable)
        self._last = self._points[-1]["metrics"] if self._points else {}
        self._every = self.job.checkpoint_s
        self._due = time.perf_counter() + self._every

    def _take_over(self, trained: Path) -> Report:
        """End with the log and the result of a trial that was the same."""
        self._log.replace(MetricLog(trained / "metrics.jsonl").points())
        theirs = read_result(trained)
        assert theirs is not None
        name = f"{trained.parent.parent.name}/{trained.name}"
        self._write(replace(theirs, stopped=None, cached_from=theirs.cached_from or name))
        return self._ended(theirs.state, theirs.grad_evals, theirs.metrics)

    def _write(self, result: Result) -> None:
        self._place.settle()
        self._log.sync()
        write_result(result, self._folder)
        for old in self._folder.glob("checkpoint*"):
            old.unlink()
        self._place.ended()

    def _slice(self) -> Report:
        training, place = self._training, self._place
        began = looked = self._since

        def pause() -> bool:
            nonlocal looked
            self._watchdog.beat()
            now = time.perf_counter()
            if now - looked < 0.25:
                return False
            looked = now
            return (now >= self._due and not place.busy()) or place.stop_asked()

        while not training.finished:
            if self.job.until and len(self._points) >= self.job.until:
                if place.durable < self._points[-1]["step"]:
                    self._checkpoint()
                    place.settle()
                return self._ended(State.PAUSED, self._own(training.optimizer.grad_evals), self._last)
            try:
                point = training.advance(pause)
            except Diverged as end:
                self._log.append(end.grad_evals, {"cost/grad_evals": end.grad_evals})
                return self._finish(State.DIVERGED, spent=end.grad_evals)
            now = time.perf_counter()
            if point is not None and self.job.metric not in point.metrics:
                raise MetricMissing(self.job, point.metrics)
            if point is None:
                stopping = place.stop_asked()
                if self._workers is not None:
                    stopping = self._workers.same(stopping)
                self._checkpoint()
                if stopping:
                    place.settle()
                    return self._ended(State.INTERRUPTED, self._own(training.optimizer.grad_evals), self._last)
                continue
            point.metrics.update(gpu_memory.peak(self.job.gpu))
            self._log.append(point.grad_evals, point.metrics)
            self._points.append({"step": point.grad_evals, "metrics": point.metrics})
            self._last = point.metrics
            due = now - began >= self.job.slice_s or len(self._points) in self.job.rungs
            if due and not training.finished:
                self._count()
                if now >= self._due and not place.busy():
                    self._checkpoint()
                if len(self._points) in self.job.rungs:
                    place.logged()
                return Report(
                    trial_id=self.job.trial_id,
                    grad_evals=self._own(point.grad_evals),
                    metrics=point.metrics,
                    seconds=self._seconds,
                    evaluation=len(self._points),
                    durable=place.durable,
                    checkpoint_s=self._every,
                )
        return self._finish(State.COMPLETE)

    def _own(self, grad_evals: float) -> float:
        """What of these this trial has spent."""
        return max(0.0, float(grad_evals) - self.job.inherited)

    def _count(self) -> None:
        """Add the time since the last call to the trial's own."""
        now = time.perf_counter()
        self._seconds, self._since = self._seconds + now - self._since, now

    def _checkpoint(self) -> None:
        self._watchdog.stop()
        self._place.settle()
        self._count()
        durable = self._points[-1]["step"] if self._points else -1.0
        saved = {"training": self._training.state(), "seconds": self._seconds, "durable": durable}
        saved["trial"] = self.job.trial_id
        limit = self.job.checkpoint_quota
        quota = checkpoint.Quota(self._folder.parent, limit) if limit is not None else None
        self._log.sync()
        try:
            if checkpoint.save(saved, self._folder, quota=quota) is not None:
                self._place.saved(durable)
        except checkpoint.Unreadable as unreadable:
            if self.job.until:  # somebody else goes on from it
                raise
            warnings.warn(
                f"{self.job.trial_id} has no checkpoints: {unreadable}; interrupted, it starts over", stacklevel=2
            )
            self._due = math.inf
            return
        interval = max(self.job.checkpoint_s, (time.perf_counter() - self._since) / CHECKPOINT_SHARE)
        self._due = self._since + interval
        self._every = max(interval, self._place.upload_s)

    def _finish(self, state: State, *, spent: float | None = None, error: str = "") -> Report:
        self._count()
        training = self._training
        if spent is None:
            spent = training.optimizer.grad_evals if training is not None else 0.0
        metrics = dict(self._last)
        self._printed.flush()
        value: float | None = None
        if state is State.DIVERGED:
            metrics.update({name: m.worst for name, m in self._task_metrics.items()})
            value = metrics[self.job.metric]
        elif state is State.COMPLETE:
            values = [p["metrics"][self.job.metric] for p in self._points]
            value = self.job.goal.best(values) if self.job.select == "best" else values[-1]
            if not math.isfinite(value):
                return self._finish(State.DIVERGED, spent=spent)
        result = Result(
            state=state,
            value=value,
            metrics=metrics,
            grad_evals=self._own(spent),
            seconds=round(self._seconds, 4),
            init_digest=getattr(training, "init_digest", ""),
            data_digest=getattr(training, "data_digest", ""),
            error=error,
            last_lines=last_lines(str(self._folder)) if state is State.FAILED else "",
            facts=self._facts,
            code=self._code,
            changed=self._ambient.found(),
        )
        self._write(result)
        if self._address and state.is_trained and source.unchanged((self.job.task, self.job.optimizer)):
            cache.remember(Path(self.job.cache), self._address, self._folder)
        return self._ended(state, result.grad_evals, metrics)

    def _ended(self, state: State, grad_evals: float, metrics: dict[str, float]) -> Report:
        self.close()
        return Report(
            trial_id=self.job.trial_id,
            grad_evals=grad_evals,
            metrics=metrics,
            seconds=self._seconds,
            durable=self._place.durable if state.is_resumable else math.inf,
            done=True,
            state=state,
        )


def warm_up(job: Job) -> None:
    """Pay once in a worker what every trial needs: imports and the task's data."""
    built.build(job.task, job.task_parameters).batch(job.seed, 0)
